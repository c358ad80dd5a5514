//! What shows that the programs see the packets, and what is done where they do not (traps H10, H11).

mod detached;
mod ordinary;
mod received;
mod sent;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    build,
    frames::udp,
    guard::Guard,
    kernel::Kernel,
    metrics::{self, Sample},
    netns::Namespace,
    wire::Wire,
};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// A port of the range that somebody listens on.
const PORT: u16 = 40_000;
/// Ten seconds, and a look.
const PROMISED: Duration = Duration::from_secs(12);
/// Within so long an alarm ends when nothing is wrong any more.
const OVER: Duration = Duration::from_secs(10);
/// How often something is sent where ten a second are enough for an alarm.
const PAUSE: Duration = Duration::from_millis(50);

/// Where recording can happen on this kernel.
fn egress_hooks() -> &'static [&'static str] {
    // tcx needs 6.6: https://github.com/torvalds/linux/commit/e420bed02507
    if Kernel::running() < Kernel::new(6, 6) {
        &["clsact"]
    } else {
        &["tcx", "clsact"]
    }
}

/// What `/healthz` answers.
fn health(host: &Namespace) -> Result<u16> {
    Ok(metrics::get(host, "/healthz")?.0)
}

/// What `portguard status` prints.
fn status(host: &Namespace, guard: &Guard<'_>) -> Result<String> {
    let mut status = host.command(build::binary());
    status.args(["status", "--control-socket"]);
    let output = status.arg(guard.control_socket()).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// How many packets went by a hook unseen, as the guard says.
fn unseen(samples: &[Sample], hook: &str) -> u64 {
    metrics::sum(
        samples,
        "portguard_unseen_packets_total",
        &[("device", "vg"), ("hook", hook)],
    )
}

/// Keeps a packet of each family coming until `/healthz` answers `code`. Returns how long that took.
fn send_until(
    code: u16,
    patience: Duration,
    host: &Namespace,
    mut send: impl FnMut(Family) -> Result<()>,
) -> Result<Duration> {
    let since = Instant::now();
    loop {
        for family in FAMILIES {
            send(family)?;
        }
        if health(host)? == code {
            return Ok(since.elapsed());
        }
        ensure!(
            since.elapsed() < patience,
            "/healthz does not answer {code} in {patience:?}"
        );
        thread::sleep(PAUSE);
    }
}

/// An unsolicited datagram to the port where somebody listens.
fn strange(wire: &Wire, family: Family) -> Result<()> {
    wire.send(&udp(53, PORT).received(family))
        .with_context(|| format!("{family:?}"))
}
