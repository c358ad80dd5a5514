//! What ICMP errors have done to the host.

use std::fs;

use anyhow::{Context, Result};
use guard_common::outcome::Family;
use guard_tests::netns::Namespace;

use super::output;

/// The errors that have reached the kernel's handlers.
pub fn errors(host: &Namespace, family: Family) -> Result<u64> {
    match family {
        Family::Ipv6 => Ok(ipv6(host, "Icmp6InDestUnreachs")? + ipv6(host, "Icmp6InPktTooBigs")?),
        Family::Ipv4 | Family::Other => ipv4(host, "InDestUnreachs"),
    }
}

/// The redirects that have reached the kernel's handlers.
pub fn redirects(host: &Namespace) -> Result<u64> {
    ipv4(host, "InRedirects")
}

fn ipv4(host: &Namespace, name: &str) -> Result<u64> {
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("Icmp:"));
    let names = lines.next().context("no names")?.split_whitespace();
    let values = lines.next().context("no values")?.split_whitespace();
    let found = names.zip(values).find(|(found, _)| *found == name);
    Ok(found.context("no such counter")?.1.parse()?)
}

fn ipv6(host: &Namespace, name: &str) -> Result<u64> {
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/snmp6"))?;
    let found = text.lines().find_map(|line| {
        let (found, value) = line.split_once(char::is_whitespace)?;
        (found == name).then(|| value.trim().to_owned())
    });
    Ok(found.context("no such counter")?.parse()?)
}

/// Whether packets to `address` are kept below 1,281 bytes because an error said so.
pub fn has_small_path(host: &Namespace, address: &str) -> Result<bool> {
    let (_, text) = output(host, &format!("ip route get {address}"))?;
    Ok(text.contains("mtu 1280"))
}

/// Forgets what errors said.
pub fn forget_paths(host: &Namespace) -> Result<()> {
    host.ip("route flush cache")?;
    host.ip("-6 route flush cache")
}
