//! The process that runs a guard.

pub mod event_loop;
pub mod log;
pub mod observer;
pub mod process;
