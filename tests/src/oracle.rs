//! The kernel as the judge: what it delivers where nobody guards, a guard delivers to whom the
//! host has asked, and to nobody else.
//!
//! Each [`encoding`] of a packet, made up from a number ([`generate`]) and turned into frames
//! ([`bytes`]), goes to a guarded host and to its twin that nobody guards ([`host`], [`batch`]).
//! What their sockets get is compared ([`campaign`]), but for what the [`policy`] takes from
//! askers too.

pub mod encoding;

pub mod bytes;
pub mod generate;

pub mod batch;
pub mod host;

pub mod policy;

pub mod campaign;
