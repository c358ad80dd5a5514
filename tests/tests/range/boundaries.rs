//! Y01, Y06, Y07: exactly the ports of the range are guarded, less the reserved ones.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Outcome::{self, DropNoFlow, PassExempt, PassOutsideRange},
    Verdict,
};
use guard_tests::{
    frames::{tcp, udp},
    guard::Guard,
    netns::{Direct, Namespace},
    wire::{Listener, Wire},
};

use crate::{FAMILIES, MODES, RANGE, RESERVED, blocked, change, guards, kernels};

/// How long the datagrams of one row may take to arrive.
const QUIET: Duration = Duration::from_millis(60);

/// A listener on each of some ports, and what becomes of frames to them.
struct Doors<'a> {
    topology: &'a Direct,
    wire: Wire,
    listeners: Vec<(u16, Listener)>,
}

impl<'a> Doors<'a> {
    fn open(topology: &'a Direct, ports: &[u16]) -> Result<Self> {
        let mut ports = ports.to_vec();
        ports.sort_unstable();
        ports.dedup();
        let listen = |port: u16| Ok((port, Listener::new(&topology.guarded, port)?));
        Ok(Self {
            topology,
            wire: Wire::open(&topology.peer, topology.peer_interface())?,
            listeners: ports.into_iter().map(listen).collect::<Result<_>>()?,
        })
    }

    /// Sends a datagram and a SYN to every port, in both families.
    fn knock(&self) -> Result<()> {
        for (port, _) in &self.listeners {
            for family in FAMILIES {
                self.wire.send(&udp(53, *port).received(family))?;
                self.wire.send(&tcp(443, *port).syn().received(family))?;
            }
        }
        Ok(())
    }

    /// Checks who heard of the last knock: datagrams reach their listener, SYNs are answered.
    fn heard(&self, open: impl Fn(u16) -> bool) -> Result<()> {
        let answers = self.wire.segments_heard(QUIET);
        let mut expected = 0;
        for (port, listener) in &self.listeners {
            let due = if open(*port) { FAMILIES.len() } else { 0 };
            let delivered = listener.delivered(QUIET);
            ensure!(
                delivered == due,
                "port {port}: {delivered} delivered, not {due}"
            );
            expected += due;
        }
        ensure!(
            answers == expected,
            "{answers} SYNs answered, not {expected}"
        );
        Ok(())
    }

    /// Shows that nothing but the guard keeps frames from any of the ports.
    fn are_open(&self) -> Result<()> {
        self.knock()?;
        self.heard(|_| true).context("without a guard")
    }

    /// Checks what the guard does, as a function of the port.
    fn are(&self, guard: &Guard, outcome: impl Fn(u16) -> Outcome) -> Result<()> {
        let due = [PassOutsideRange, PassExempt, DropNoFlow].map(|due| {
            let ports = self.listeners.iter();
            let count = ports.filter(|(port, _)| outcome(*port) == due).count();
            (due, (count * FAMILIES.len() * 2) as u64)
        });
        guard.expect(due, || self.knock())?;
        self.heard(|port| outcome(port).verdict() == Verdict::Pass)
    }

    fn host(&self) -> &Namespace {
        &self.topology.guarded
    }
}

/// The ports on and next to the bounds.
fn bounds(ranges: &[(u16, u16)]) -> Vec<u16> {
    let around = |&(first, last): &(u16, u16)| {
        [
            first.checked_sub(1),
            Some(first),
            Some(last),
            last.checked_add(1),
        ]
    };
    let ports = ranges.iter().flat_map(around).flatten();
    ports.filter(|port| *port != 0).collect()
}

fn within((first, last): (u16, u16)) -> impl Fn(u16) -> Outcome {
    move |port| {
        if (first..=last).contains(&port) {
            DropNoFlow
        } else {
            PassOutsideRange
        }
    }
}

fn y01_starts_with(mode: &str) -> Result<()> {
    for range in [
        (32_768, 60_999),
        (40_000, 45_000),
        (60_999, 60_999),
        (1024, 65_535),
    ] {
        let topology = Direct::new()?;
        let text = format!("{} {}", range.0, range.1);
        topology.guarded.sysctl(RANGE, &text)?;
        let doors = Doors::open(&topology, &bounds(&[range]))?;
        doors.are_open()?;
        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        let row = || format!("Y01, {mode}, {text}");
        let found = guards(&guard)?;
        ensure!(found == range, "{}: the gauges say {found:?}", row());
        doors.are(&guard, within(range)).with_context(row)?;

        // The sockets behind the doors may be servers. What the daemon listens on is loopback's.
        let cut_off = if range.0 == range.1 { 1 } else { 2 };
        let found = blocked(&guard)?;
        ensure!(found == cut_off, "{}: {found} listeners", row());
        let said = guard.said();
        let named = said.contains(&format!("--expose {}/udp lets them", range.0));
        ensure!(named, "{}: no warning: {said}", row());
    }
    Ok(())
}

#[test]
fn y01_a_native_guard_starts_with_exactly_the_range() -> Result<()> {
    y01_starts_with("native")
}

#[test]
fn y01_a_generic_guard_starts_with_exactly_the_range() -> Result<()> {
    y01_starts_with("generic")
}

#[test]
fn y06_the_guard_follows_whatever_the_kernel_takes() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        host.sysctl(RANGE, "32768 60999")?;
        let ports = bounds(&[(32_768, 60_999), (40_000, 45_000), (1, 65_535)]);
        let doors = Doors::open(&topology, &ports)?;
        doors.are_open()?;
        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(host, topology.interface(), &flags)?;

        for (written, expected) in [
            ("40000 45000", (40_000, 45_000)),
            // One number is the first one.
            ("32768", (32_768, 45_000)),
            ("32768 60999", (32_768, 60_999)),
        ] {
            change(host, &guard, written)?;
            let row = || format!("Y06, {mode}, {written}");
            ensure!(kernels(host)? == expected, "{}: kernel", row());
            doors.are(&guard, within(expected)).with_context(row)?;
        }
        for refused in ["45000 40000", "0 60999", "40000 65536", "80 60999", "some"] {
            let written = host.sysctl(RANGE, refused);
            ensure!(written.is_err(), "Y06: the kernel takes {refused}");
        }
        // Longer than the guard takes to notice.
        thread::sleep(Duration::from_millis(500));
        doors
            .are(&guard, within((32_768, 60_999)))
            .with_context(|| format!("Y06, {mode}, refused writes"))?;

        host.sysctl("net/ipv4/ip_unprivileged_port_start", "1")?;
        change(host, &guard, "1 65535")?;
        doors
            .are(&guard, within((1, 65_535)))
            .with_context(|| format!("Y06, {mode}, every port"))?;
        let complaints = guard.said().contains("ERROR");
        ensure!(!complaints, "Y06, {mode}: {}", guard.said());
    }
    Ok(())
}

#[test]
fn y07_reserved_ports_are_left_alone_as_long_as_they_are_reserved() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        host.sysctl(RESERVED, "40001,40003-40005,20000")?;
        let ports: Vec<u16> = (40_000..=40_006).chain([20_000]).collect();
        let doors = Doors::open(&topology, &ports)?;
        doors.are_open()?;
        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(host, topology.interface(), &flags)?;
        let reserved = |ports: &'static [u16]| {
            move |port| match port {
                20_000 => PassOutsideRange,
                _ if ports.contains(&port) => PassExempt,
                _ => DropNoFlow,
            }
        };
        doors
            .are(&guard, reserved(&[40_001, 40_003, 40_004, 40_005]))
            .with_context(|| format!("Y07, {mode}, at the start"))?;
        for (written, ports) in [
            ("40000-40002", &[40_000, 40_001, 40_002][..]),
            ("40006", &[40_006]),
            ("", &[]),
        ] {
            // As an administrator types it: an empty write would not empty the list.
            doors.host().sysctl(RESERVED, &format!("{written}\n"))?;
            thread::sleep(Duration::from_millis(600));
            doors
                .are(&guard, reserved(ports))
                .with_context(|| format!("Y07, {mode}, {written:?}"))?;
        }
    }
    Ok(())
}

/// Nothing is guarded any more, and what is left open is said at once.
#[test]
fn y07_a_reservation_of_the_whole_range_warns() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let guard = Guard::start(host, topology.interface(), &[])?;
    let warning =
        |protocol| format!("warning: every {protocol} port of 32768-60999 is exposed or reserved");
    let said = |protocol| guard.said().matches(&warning(protocol)).count();
    ensure!(said("TCP") + said("UDP") == 0, "{}", guard.said());
    for reserved in ["32768-60998", "32768-60999", "32768-60999,61000"] {
        host.sysctl(RESERVED, &format!("{reserved}\n"))?;
        thread::sleep(Duration::from_millis(600));
        let due = usize::from(reserved != "32768-60998");
        for protocol in ["TCP", "UDP"] {
            let times = said(protocol);
            ensure!(times == due, "{reserved}: {times} times: {}", guard.said());
        }
    }
    // Nothing can be asked of the guard by TCP now: no port is left to ask from.
    Doors::open(&topology, &[40_001])?.are_open()
}
