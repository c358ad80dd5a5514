//! Ordinary clients do not notice the guard (rows N01 to N14 of the acceptance matrix).
//!
//! Every client is a program that people use. A row passes when the client is content, the flows
//! it opened have let its answers in, and no frame was dropped. `unrecorded` is the control for
//! all of them: the same clients fail where nobody records what the host sends.

mod bulk;
mod dns;
mod http;
mod path;
mod session;
mod transport;
mod unrecorded;

use std::net::IpAddr;

use anyhow::{Result, ensure};
use guard_tests::{frames::P, guard::Guard, netns::Direct};

/// How XDP is attached, and how long the frames on the link are.
const MODES: [&str; 2] = ["native", "generic"];

/// The peer, in both families.
const PEERS: [IpAddr; 2] = [IpAddr::V4(P.ipv4), IpAddr::V6(P.ipv6)];

/// As an address is written in front of a port.
fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Guards a direct link in this mode.
fn guarded<'a>(topology: &'a Direct, mode: &str, flags: &[&str]) -> Result<Guard<'a>> {
    let flags = [&["--xdp-mode", mode], flags].concat();
    let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
    let said = guard.said();
    ensure!(said.contains(&format!("({mode} XDP")), "{mode}: {said}");
    Ok(guard)
}
