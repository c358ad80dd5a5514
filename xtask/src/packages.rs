//! Debian packages: what is missing, and installing just that.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::privilege;
use crate::process::{self, announce, probe};

/// Installs its arguments while no service may start, and leaves no service enabled.
const INSTALL: &str = include_str!("packages/install.sh");

/// What the suites and the kernels under QEMU call.
pub const FOR_TESTS: &[&str] = &[
    "binutils",
    "bpftool",
    "busybox-static",
    "conntrack",
    "cpio",
    "curl",
    "dnsmasq-base",
    "dnsperf",
    "ethtool",
    "hping3",
    "iperf3",
    "iproute2",
    "iptables",
    "iputils-ping",
    "iputils-tracepath",
    "isc-dhcp-client",
    "kmod",
    "knot-dnsutils",
    "mtr-tiny",
    "nftables",
    "nmap",
    "openssh-client",
    "openssh-server",
    "openssl",
    "procps",
    "prometheus",
    "python3-minimal",
    "qemu-system-x86",
    "socat",
    "tcpdump",
    "traceroute",
    "xz-utils",
];

/// What the bench calls, its peers included.
pub const FOR_BENCH: &[&str] = &["ethtool", "iproute2", "iptables", "nftables", "xdp-tools"];

/// Those of `names` that are not installed.
pub fn missing<S: AsRef<str>>(names: &[S]) -> Result<Vec<String>> {
    if process::find("dpkg-query").is_none() {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        bail!(
            "this is not a Debian machine: install what these Debian packages hold by hand, \
             and see that it is on PATH: {}",
            names.join(" "),
        );
    }
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(names.iter().map(AsRef::as_ref))
        .output()
        .context("dpkg-query could not be started")?;

    // It fails as soon as one name is unknown, and still prints the others.
    Ok(not_installed(
        names,
        &String::from_utf8_lossy(&output.stdout),
    ))
}

/// Whether apt can install `names` here, asking its mirror once if it does not know all of them.
pub fn installable<S: AsRef<str>>(names: &[S]) -> Result<bool> {
    installable_as(names, |_| true)
}

/// Whether apt can install `names` here in versions that `suit`, asking its mirror once if it does
/// not know of such.
pub fn installable_as<S: AsRef<str>>(names: &[S], suit: impl Fn(&str) -> bool) -> Result<bool> {
    if process::find("apt-get").is_none() || !privilege::obtainable() {
        return Ok(false);
    }
    if known_to_apt(names, &suit) {
        return Ok(true);
    }

    announce("apt-get update: apt has not heard of what is missing");
    let mut update = privilege::as_root("apt-get", &[("DEBIAN_FRONTEND", "noninteractive")])?;
    // A mirror that does not answer is no failure of ours while the lists name the packages.
    let updated = process::run(update.args(["update", "--quiet"]));

    Ok(updated.is_ok() && known_to_apt(names, &suit))
}

/// Installs `names`, and says why.
pub fn install<S: AsRef<str>>(names: &[S], why: &str) -> Result<()> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    announce(&format!("installing {}: {why}", names.join(" ")));

    let mut command = privilege::as_root("sh", &[("DEBIAN_FRONTEND", "noninteractive")])?;
    command.args(["-c", INSTALL, "install.sh"]).args(&names);
    command.stdin(File::open("/dev/null").context("/dev/null could not be opened")?);
    process::run(&mut command).with_context(|| {
        format!(
            "the packages could not be installed; type, as root:\n  \
             apt-get update\n  \
             apt-get install --yes --no-install-recommends {}",
            names.join(" "),
        )
    })
}

fn known_to_apt<S: AsRef<str>>(names: &[S], suit: impl Fn(&str) -> bool) -> bool {
    names.iter().all(|name| {
        probe(Command::new("apt-cache").args(["policy", name.as_ref()]))
            .is_some_and(|policy| candidate(&policy).is_some_and(&suit))
    })
}

/// The version that apt would install.
fn candidate(policy: &str) -> Option<&str> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .map(str::trim)
        .filter(|version| *version != "(none)")
}

fn not_installed<S: AsRef<str>>(names: &[S], states: &str) -> Vec<String> {
    let installed = |name: &str| {
        states
            .lines()
            .any(|line| line.split_once(' ') == Some((name, "installed")))
    };
    names
        .iter()
        .map(AsRef::as_ref)
        .filter(|name| !installed(name))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_was_removed_or_never_seen_is_missing() {
        let states = "curl installed\nnmap config-files\n";
        assert_eq!(
            not_installed(&["curl", "nmap", "socat"], states),
            ["nmap", "socat"]
        );
    }

    #[test]
    fn apt_knows_a_package_when_it_has_a_candidate() {
        let known = "curl:\n  Installed: (none)\n  Candidate: 7.88.1-10\n";
        assert_eq!(candidate(known), Some("7.88.1-10"));
        let unknown = "curl:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(candidate(unknown), None);
        assert_eq!(candidate(""), None);
    }
}
