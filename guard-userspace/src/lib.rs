//! The user side of portguard.

pub mod cli;
pub mod failure;

pub mod settings;

pub mod range;

pub mod interfaces;
