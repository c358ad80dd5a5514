//! `portguard audit` finds what was planted, and nothing where nothing was.

use std::{net::TcpListener, path::Path};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    build,
    frames::G,
    guard::Guard,
    netns::{Namespace, TwoLinks},
};
use serde_json::Value;

use crate::RANGE;

/// Findings that depend on the network namespace alone, and not on the machine.
const OWN: [&str; 8] = [
    "no-guard",
    "guard-alarm",
    "interface-unguarded",
    "listener-in-range",
    "listener-cut-off",
    "published-port",
    "range-at-boot",
    "range-not-covered",
];

/// The ids of what is found, and the exit code.
fn audit(host: &Namespace, control: &Path, threshold: &str) -> Result<(Vec<String>, i32)> {
    let output = host
        .command(build::binary())
        .args(["audit", "--json", "--threshold", threshold])
        .arg("--control-socket")
        .arg(control)
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let findings = report["findings"].as_array().context("findings")?;
    let mut ids: Vec<String> = findings
        .iter()
        .filter_map(|finding| finding["id"].as_str())
        .filter(|id| OWN.contains(id))
        .map(str::to_owned)
        .collect();
    ids.sort_unstable();

    Ok((ids, output.status.code().context("an exit code")?))
}

#[test]
fn planted_faults_are_found_and_no_others() -> Result<()> {
    let links = TwoLinks::new()?;
    let host = &links.0.guarded;
    let nowhere = Path::new("/proc/no-guard.sock");
    let listener = host.run(|| TcpListener::bind((G.ipv4, 40_000)))?;
    let (ids, code) = audit(host, nowhere, "9")?;
    ensure!(ids == ["listener-in-range", "no-guard"], "{ids:?}");
    ensure!(code == 1, "a high finding alone is above 9");

    let guard = Guard::start(host, "vg", &["--iface", "vg2", "--xdp-mode", "generic"])?;
    let control = guard.control_socket();
    let (ids, code) = audit(host, &control, "1000")?;
    ensure!(ids == ["listener-cut-off"] && code == 0, "{ids:?}, {code}");
    drop(listener);
    let (ids, _) = audit(host, &control, "1000")?;
    ensure!(ids.is_empty(), "{ids:?}");
    guard.stop()?;

    let guard = Guard::start(host, "vg", &["--xdp-mode", "generic"])?;
    let control = guard.control_socket();
    let (ids, _) = audit(host, &control, "1000")?;
    ensure!(ids == ["interface-unguarded"], "{ids:?}");
    let nft = host
        .command("nft")
        .arg(
            "table ip nat { chain pre { type nat hook prerouting priority dstnat; \
             tcp dport 40080 dnat to 172.30.0.2:80; }; }",
        )
        .status()?;
    ensure!(nft.success());
    host.sysctl(RANGE, "40000 45000")?;
    let (ids, _) = audit(host, &control, "1000")?;
    ensure!(
        ids == ["interface-unguarded", "published-port", "range-at-boot"],
        "{ids:?}"
    );
    Ok(())
}
