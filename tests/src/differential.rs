//! The policy three ways: as the reference tells it, in memory, and as the loaded programs do it.
//!
//! Modules in reading order: choices ([`random`]), who there is ([`places`], [`scene`]), frames
//! ([`packets`]), what happens ([`session`], [`generate`]), the words of both sides ([`translate`]), the two that
//! are compared with the reference ([`host`]; [`machine`], [`kernel`]), the comparison ([`trial`]),
//! and many of them ([`campaign`]); what fails is made small ([`shrink`]) and kept ([`found`]).

pub mod random;

pub mod places;
pub mod scene;

pub mod packets;

pub mod session;

pub mod generate;

pub mod translate;

pub mod host;

pub mod kernel;
pub mod machine;

pub mod trial;

pub mod campaign;

pub mod corpus;

pub mod found;
pub mod shrink;
