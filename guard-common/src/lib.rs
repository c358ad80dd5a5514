//! The packet logic of portguard.
//!
//! Everything here is pure: bytes, look-ups and the time come in as arguments, an [`Outcome`] goes
//! out. The same code runs in the kernel programs, in the tests and in the fuzzer.
//!
//! Layers in reading order, each of which uses only those before it: what can happen to a frame
//! ([`outcome`]), how bytes become a tuple ([`frame`]), what is kept of a flow ([`flow`]), what is
//! known of a port ([`ports`]), what the daemon and the programs share ([`abi`]), and the decision
//! ([`policy`]).
//!
//! [`Outcome`]: outcome::Outcome
#![no_std]

#[cfg(target_endian = "big")]
compile_error!("portguard lays out keys and flows as little-endian words");

pub mod outcome;

pub mod frame;

pub mod flow;

pub mod ports;

pub mod abi;

pub mod policy;
