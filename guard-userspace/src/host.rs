//! What is on this host, as the kernel tells it.

pub mod conntrack;
pub mod descriptors;
pub mod driver;
pub mod features;
pub mod hooks;
pub mod interfaces;
pub mod lock;
pub mod namespace;
pub mod netlink;
pub mod port_use;
pub mod privileges;
pub mod process_usage;
pub mod range;
pub mod socket_owners;
pub mod sockets;
pub mod sysctl_d;
pub mod tunnels;
