//! Frames: from bytes to a tuple whose ends are named by whose they are.

pub mod bytes;

pub mod address;

pub mod headers;

pub mod ethernet;

pub mod transport;

pub mod ip;

pub mod subject;

pub mod fast;
