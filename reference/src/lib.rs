//! What portguard must do with a frame, written a second time.
//!
//! A plain interpreter of the design's text: whole frames as slices, tables as hash maps, numbers
//! as they stand in the text. It shares no code, type or constant with guard-common, which is
//! compared with it by name; a mistake would have to be made twice to go unnoticed.
//!
//! Modules in reading order: the decision about a frame ([`decision`]), what the user and the host
//! have set up ([`policy`]), every number and comparison of the text ([`rules`]), how a frame is
//! read ([`read`]), what is kept ([`memory`]), what is decided ([`model`]), and the same with one rule wrong ([`mutants`]).

pub mod decision;

pub mod policy;

pub mod rules;

pub mod read;

pub mod memory;

mod egress;
mod ingress;
pub mod model;

pub mod mutants;
