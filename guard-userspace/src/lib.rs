//! The user side of portguard: loads and attaches the kernel programs, keeps them in step with
//! the kernel's port range, and reports.
//!
//! Layers, from the lowest to the highest. A module uses those of its own layer and of lower ones,
//! and no two modules use each other.

pub mod api;
pub mod base;
pub mod bpf;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod guard;
pub mod host;

#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
