//! The user side of portguard: loads and attaches the kernel programs, keeps them in step with
//! the kernel's port range, and reports.
//!
//! Layers, from the lowest to the highest: [`base`], [`host`], [`config`], [`bpf`], [`guard`], [`api`],
//! [`daemon`], [`cli`]. A module uses those of its own layer and of lower ones, and no two modules use
//! each other: a test of xtask fails where they do.

pub mod base;

pub mod host;

pub mod config;

pub mod bpf;

pub mod guard;

pub mod api;

pub mod daemon;

pub mod cli;

#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
