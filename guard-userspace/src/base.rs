//! What every layer uses: failures and their exit codes, text that others choose, work in the
//! background, places to write to, and answers that tests keep back.

pub mod background;
pub mod failure;
pub mod scratch;
pub mod slow_answers;
pub mod text;
pub mod thread;
