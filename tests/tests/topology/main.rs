//! Hosts with more than one link, and hosts that forward for others.

mod asymmetric;
mod behind;
mod bridge;
mod classes;
mod containers;
mod evicted;
mod macvlan;
mod older;
mod own;
mod promiscuous;
mod proxy;
mod rebridged;
mod resets;
mod stateful;
mod tracked_later;
mod translated;

use guard_common::outcome::Family;

const MODES: [&str; 2] = ["native", "generic"];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
