//! The packet logic of portguard.
//!
//! Everything here is pure: bytes, look-ups and the time come in as arguments, an [`Outcome`] goes
//! out. The same code runs in the kernel programs, in the tests and in the fuzzer.
//!
//! Modules in reading order: what can happen to a frame ([`outcome`]), how bytes become a tuple
//! ([`packet`], [`wire`], [`link`], [`address`], [`parse`], [`route`]), what is remembered ([`key`], [`flow`],
//! [`fragment`], [`ports`], [`filter`], [`owner`], [`config`],
//! [`pressure`], [`state`]), what is decided ([`tables`],
//! [`plain`], [`subject`], [`decide`], [`record`]), and how the maps are laid out ([`layout`]).
//!
//! [`Outcome`]: outcome::Outcome
#![no_std]

#[cfg(target_endian = "big")]
compile_error!("portguard lays out keys and flows as little-endian words");

pub mod outcome;

pub mod packet;
pub mod wire;

pub mod link;

pub mod address;

mod transport;

pub mod parse;

pub mod route;

pub mod key;

mod flow_cell;

pub mod flow;

pub mod fragment;

pub mod ports;

pub mod reach;

pub mod filter;

pub mod owner;

pub mod config;
pub mod pressure;

pub mod state;

pub mod tables;

pub mod plain;

mod flood;

pub mod subject;

mod query;

mod lookup;

mod marks;

mod steady;

mod onward;

mod excuse;

pub mod decide;

pub mod record;

pub mod layout;
