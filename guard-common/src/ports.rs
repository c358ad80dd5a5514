//! Ports: which are guarded, which are in use, and with whom.

pub mod class;

pub mod occupancy;

pub mod bloom;

pub mod peer;
