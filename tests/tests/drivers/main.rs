//! Which XDP mode is taken, on links of this kernel and, under QEMU, on network cards.

mod cards;
mod veth;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{build, guard::Guard, metrics, netns::Namespace};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// A port of the range that somebody listens on.
const PORT: u16 = 40_000;

/// The mode that the guard says XDP is in on an interface.
fn told(guard: &Guard, interface: &str) -> Result<&'static str> {
    let samples = guard.scrape()?;
    ["native", "generic"]
        .into_iter()
        .find(|mode| {
            let labels = [("device", interface), ("mode", mode)];
            metrics::sum(&samples, "portguard_xdp_mode_info", &labels) == 1
        })
        .with_context(|| format!("{interface}: no mode is told: {}", guard.said()))
}

/// The mode that the kernel shows XDP in on an interface, if there is a program.
fn shown(host: &Namespace, interface: &str) -> Result<Option<&'static str>> {
    let output = Command::new("ip")
        .args(["-n", host.name(), "link", "show", "dev", interface])
        .output()?;
    ensure!(output.status.success(), "ip link show {interface}");
    let text = String::from_utf8(output.stdout)?;

    Ok(if text.contains(" xdpgeneric ") {
        Some("generic")
    } else if text.contains(" xdp ") {
        Some("native")
    } else {
        None
    })
}

/// What `check` says about XDP on an interface: the line without its beginning.
fn checked(host: &Namespace, interface: &str, flags: &[&str]) -> Result<String> {
    let output = host
        .command(build::binary())
        .args(["check", "--iface", interface])
        .args(flags)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let item = format!(" xdp {interface} ");
    let line = text.lines().find(|line| line.contains(&item));
    let line = line.with_context(|| format!("check says nothing about XDP: {text}"))?;

    Ok(line
        .split_once(&item)
        .map_or(line, |(_, rest)| rest)
        .trim()
        .to_owned())
}
