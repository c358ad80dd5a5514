//! The datapath of portguard in memory.
//!
//! The packet logic asks a [`Datapath`] for everything that it does not read from the frame. In the
//! kernel that is the maps; here it is memory, so that a decision can be made without root, repeated,
//! fuzzed and explained.
//!
//! Modules in reading order: frames made by hand ([`frames`]), the guard that they are shown to
//! ([`setup`]), and its datapath ([`memory`]).
//!
//! [`Datapath`]: guard_common::policy::datapath::Datapath

pub mod frames;

pub mod setup;

pub mod memory;
