//! The policy: from a frame and what the maps say about it to an outcome.

pub mod datapath;

pub mod lookup;

pub mod multicast;

pub mod forwarding;

pub mod exceptions;

pub mod ingress;

pub mod egress;
