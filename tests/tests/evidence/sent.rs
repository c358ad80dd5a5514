//! Packets that the interface sends and the egress program does not see.

use std::{
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    frames::udp,
    guard::Guard,
    neighbour::{add_filter, tc},
    netns::Direct,
    wire::Wire,
};

use super::{
    FAMILIES, OVER, PAUSE, PORT, PROMISED, egress_hooks, health, send_until, status, unseen,
};

/// A filter that matches at the first priority, behind which nothing of ours runs.
const IN_FRONT: &str = "prio 1 protocol all u32 match u32 0 0 classid 1:1";

#[test]
fn h10_what_ends_the_chain_before_ours_is_found() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    add_filter(host, ("vg", "egress"), IN_FRONT)?;
    let flags = ["--egress-hook", "clsact", "--allow-filter-in-front"];
    let guard = Guard::start(host, "vg", &flags)?;
    let wire = Wire::open(host, "vg")?;
    let send = |family| wire.send(&udp(PORT, 53).sent(family));
    ensure!(health(host)? == 200, "unwell without traffic");

    let found = send_until(503, PROMISED, host, send)?;
    println!("found after {found:?}");
    let said = status(host, &guard)?;
    ensure!(said.contains("sent NOT SEEN"), "{said}");
    let alarm = said.lines().find(|line| line.starts_with("ALARM"));
    ensure!(
        alarm.is_some_and(|line| line.contains("u32 filter")),
        "not named: {said}"
    );
    let counted = unseen(&guard.scrape()?, "egress");
    ensure!(counted >= 50, "{counted} packets are counted");

    tc(host, "filter del dev vg egress prio 1")?;
    let over = send_until(200, OVER, host, send)?;
    println!("over after {over:?}");
    let counted = unseen(&guard.scrape()?, "egress");
    thread::sleep(Duration::from_secs(1));
    ensure!(unseen(&guard.scrape()?, "egress") == counted, "counts on");
    Ok(())
}

/// What passes by TC is not recorded, and docs/limits.md says so: there is nothing to be mended.
#[test]
fn h10_what_skips_tc_is_no_alarm() -> Result<()> {
    thread::scope(|scope| {
        let attempts = egress_hooks()
            .iter()
            .map(|hook| scope.spawn(|| skips(hook)));
        let attempts: Vec<_> = attempts.collect();
        attempts
            .into_iter()
            .try_for_each(|attempt| attempt.join().expect("does not panic"))
    })
}

fn skips(hook: &str) -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let guard = Guard::start(host, "vg", &["--egress-hook", hook])?;
    let wire = Wire::open(host, "vg")?;
    past_tc(&wire)?;
    let since = Instant::now();
    while !status(host, &guard)?.contains("sent past the program") {
        for family in FAMILIES {
            wire.send(&udp(PORT, 53).sent(family))?;
        }
        ensure!(health(host)? == 200, "{hook}: an alarm");
        ensure!(since.elapsed() < PROMISED, "{hook}: not found");
        thread::sleep(PAUSE);
    }
    ensure!(
        guard.said().contains("PACKET_QDISC_BYPASS"),
        "{hook}: not said"
    );
    ensure!(unseen(&guard.scrape()?, "egress") == 0, "{hook}: counted");
    Ok(())
}

/// What is sent by this wire skips TC, as what AF_XDP sends does.
pub fn past_tc(wire: &Wire) -> Result<()> {
    let on = 1_i32;
    // SAFETY: the value is as long as the call is told.
    let done = unsafe {
        libc::setsockopt(
            wire.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    ensure!(done == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}
