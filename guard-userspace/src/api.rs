//! What others may ask a running guard, and how they are answered.

pub mod control;
pub mod http;
pub mod metrics;
pub mod snapshot;
