//! What the suites share.
//!
//! Modules in reading order: frames made by hand ([`frames`]), the table of verdicts that reads as
//! the specification ([`cases`]), and the two things it is tried on: the packet logic over tables
//! in memory ([`memory`]) and the loaded programs ([`kernel`]).

pub mod frames;

pub mod setup;

pub mod cases;

pub mod memory;
