//! What every layer uses: failures and their exit codes, text that others choose, work in the
//! background.

pub mod background;
pub mod failure;
pub mod text;
