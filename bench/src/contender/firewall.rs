//! The rules that a user would write instead of running portguard.
//!
//! Those with conntrack let in what answers the host, and drop what else comes to the range. Those
//! without must guess: they let in UDP from the ports of a few services, and every TCP segment but
//! the first of a connection.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    netns::Namespace,
    setup::{FIRST, LAST},
};

/// Remote ports whose UDP packets stateless rules let in: DNS, NTP, QUIC.
const SERVICES: [u16; 3] = [53, 123, 443];

/// nftables with conntrack, in a chain at this hook.
pub fn nft_conntrack(host: &Namespace, hook: &str) -> Result<()> {
    nft(
        host,
        &format!(
            "table inet bench {{
                chain guard {{
                    type filter hook {hook} priority filter; policy accept;
                    ct state established,related accept
                    udp dport {FIRST}-{LAST} drop
                    tcp dport {FIRST}-{LAST} drop
                }}
            }}"
        ),
    )
}

/// nftables at the ingress of an interface.
pub fn nft_ingress(host: &Namespace, interface: &str) -> Result<()> {
    let services = SERVICES.map(|port| port.to_string()).join(", ");
    nft(
        host,
        &format!(
            "table netdev bench {{
                chain guard {{
                    type filter hook ingress device {interface} priority 0; policy accept;
                    udp dport {FIRST}-{LAST} udp sport != {{ {services} }} drop
                    tcp dport {FIRST}-{LAST} tcp flags & (fin|syn|rst|ack) == syn drop
                }}
            }}"
        ),
    )
}

/// iptables with conntrack.
pub fn iptables_conntrack(host: &Namespace) -> Result<()> {
    iptables(
        host,
        "filter",
        &[
            "INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".to_owned(),
            format!("INPUT -p udp --dport {FIRST}:{LAST} -j DROP"),
            format!("INPUT -p tcp --dport {FIRST}:{LAST} -j DROP"),
        ],
    )
}

/// iptables before conntrack.
pub fn iptables_raw(host: &Namespace) -> Result<()> {
    let services = SERVICES.map(|port| port.to_string()).join(",");
    iptables(
        host,
        "raw",
        &[
            format!(
                "PREROUTING -p udp --dport {FIRST}:{LAST} -m multiport ! --sports {services} -j DROP"
            ),
            format!("PREROUTING -p tcp --dport {FIRST}:{LAST} --syn -j DROP"),
        ],
    )
}

/// Lets conntrack remember UDP flows for as long as the bench runs.
pub fn remember_long(host: &Namespace) -> Result<()> {
    for timer in ["udp_timeout", "udp_timeout_stream"] {
        host.sysctl(&format!("net/netfilter/nf_conntrack_{timer}"), "3600")?;
    }
    Ok(())
}

/// Puts rules in force.
pub fn nft(host: &Namespace, rules: &str) -> Result<()> {
    let mut nft = host.command("nft");
    let mut nft = nft
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("run nft")?;
    let mut input = nft.stdin.take().context("nft has no input")?;
    input.write_all(rules.as_bytes())?;
    drop(input);
    ensure!(nft.wait()?.success(), "nft refuses {rules}");
    Ok(())
}

/// The same rules for both families.
fn iptables(host: &Namespace, table: &str, rules: &[String]) -> Result<()> {
    for program in ["iptables", "ip6tables"] {
        for rule in rules {
            let mut command = host.command(program);
            command.args(["-w", "-t", table, "-A"]);
            succeed(command.args(rule.split_whitespace()))?;
        }
    }
    Ok(())
}

/// Runs a program that should succeed, and returns what it prints.
pub fn succeed(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
