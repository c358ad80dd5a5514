//! The command line, and the commands that need no guard of their own.

pub mod arguments;
pub mod audit;
pub mod check;
pub mod detach;
pub mod flows;
pub mod generated;
pub mod harden;
pub mod output;
pub mod ports;
pub mod report;
mod table;
