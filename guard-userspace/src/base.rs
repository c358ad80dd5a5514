//! What every layer uses: failures and their exit codes, text that others choose, work in the
//! background, and answers that tests keep back.

pub mod background;
pub mod failure;
pub mod slow_answers;
pub mod text;
