//! Hosts with more than one link, and hosts that forward for others.

mod asymmetric;
mod bridge;
mod containers;
mod own;

const MODES: [&str; 2] = ["native", "generic"];
