//! The kernel as the oracle: what it delivers where nobody guards, a guard delivers to whom the
//! host has asked, and to nobody else.
//!
//! Each [`encoding`] of a packet between two [`ends`], made up from a number ([`generate`],
//! [`headers`]) and turned into frames ([`transport`], [`bytes`]), goes to a guarded host and to its
//! twin that nobody guards ([`host`], [`batch`]). What their sockets get, are told is lost or answer
//! is compared ([`campaign`], [`tally`]), but for what the [`policy`] takes from askers too.

pub mod encoding;
pub mod ends;

pub mod transport;

pub mod bytes;
pub mod generate;
pub mod headers;

pub mod batch;
pub mod host;

pub mod policy;

pub mod tally;

pub mod campaign;
