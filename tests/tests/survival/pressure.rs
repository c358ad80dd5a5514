//! Flow maps that are too small, and what is forgotten then.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use guard_common::{
    flow::{
        key::{FlowKey, FlowKeyV4},
        state::{Flow, Phase},
    },
    frame::{address::V4, ip::Tuple, transport::Transport},
    ports::occupancy::Use,
};
use guard_tests::{netns::Namespace, pinned::PinnedMaps};
use guard_userspace::{
    config::{ConfigLayer, Settings},
    guard::fault_injection::Parts,
};

/// The map that fills.
const MAP: (&str, u32) = ("flows_udp4", 4096);
/// Longer ago than any timer.
const LONG_AGO: u32 = 10_000_000;

/// Flows of a kind, which their remote addresses tell apart.
fn flows(kind: u8, count: u32) -> Vec<FlowKeyV4> {
    (0..count)
        .map(|number| {
            let [_, b, c, d] = number.to_be_bytes();
            FlowKeyV4::new(&Tuple {
                transport: Transport::Udp,
                local: V4::from([10, 9, 0, 2]),
                remote: V4::from([kind, b, c, d]),
                local_port: 40_000_u16.to_be(),
                remote_port: 443_u16.to_be(),
            })
        })
        .collect()
}

/// How many flows of a kind are left.
fn left(maps: &PinnedMaps, kind: u8) -> Result<usize> {
    let mut left = 0;
    let all = maps.flows()?;
    let map = all
        .iter()
        .find(|map| map.holds(Transport::Udp, ([10, 9, 0, 2], 0).into()))
        .context("there is no such map")?;
    map.walk(|entry| {
        let IpAddr::V4(remote) = entry.remote.ip() else {
            return;
        };
        left += usize::from(remote.octets()[0] == kind);
    })?;
    Ok(left)
}

/// Idle flows that count, then flows that have expired, a sweep, and new flows: how many of each
/// are left.
fn newcomers(parts: Parts) -> Result<[usize; 3]> {
    let host = Namespace::new("g")?;
    let maps = PinnedMaps::new(&[MAP], ConfigLayer::default())?;
    let now = maps.now()?;
    let mut sweeper = maps.sweeper(parts)?;
    maps.fill(MAP.0, &flows(1, 1_000), Flow::new(Phase::Datagram, now))?;
    let expired = Flow::new(Phase::Datagram, now.saturating_sub(LONG_AGO));
    maps.fill(MAP.0, &flows(2, 2_000), expired)?;
    host.run(|| sweeper.sweep())?;
    maps.fill(MAP.0, &flows(3, 2_500), Flow::new(Phase::Datagram, now))?;
    Ok([left(&maps, 1)?, left(&maps, 2)?, left(&maps, 3)?])
}

#[test]
fn what_has_expired_makes_room_first() -> Result<()> {
    let left = newcomers(Parts::default())?;
    ensure!(left == [1_000, 0, 2_500], "{left:?}");
    Ok(())
}

#[test]
fn without_reclaiming_idle_flows_make_room_for_expired_ones() -> Result<()> {
    let left = newcomers(Parts {
        reclaim: false,
        ..Parts::default()
    })?;
    let [idle, expired, new] = left;
    ensure!(new == 2_500, "{left:?}");
    ensure!(
        idle < 100 && expired > 1_000,
        "the kernel prefers those that count: {left:?}"
    );
    Ok(())
}

/// The timers for UDP and for TCP that is closed, as parts of a hundred of their full length.
fn percent(maps: &PinnedMaps) -> Result<[u32; 2]> {
    let (whole, now) = (maps.timers().configured(), maps.state().timeouts());
    let rounded = |part: u32, whole: u32| (part * 100 + whole / 2) / whole;
    Ok([
        rounded(now.udp_dns, whole.udp_dns),
        rounded(now.tcp_transitory, whole.tcp_transitory),
    ])
}

#[test]
fn timers_shrink_while_a_map_is_nearly_full() -> Result<()> {
    let host = Namespace::new("g")?;
    let maps = PinnedMaps::new(&[MAP], ConfigLayer::default())?;
    let live = Flow::new(Phase::Datagram, maps.now()?);
    let mut sweeper = maps.sweeper(Parts::default())?;
    let mut sweep = || host.run(|| sweeper.sweep());
    // Three fifths of 4,096.
    maps.fill(MAP.0, &flows(1, 2_457), live)?;
    sweep()?;
    ensure!(percent(&maps)? == [100, 100], "{:?}", percent(&maps)?);
    maps.fill(MAP.0, &flows(2, 615), live)?;
    let swept = sweep()?;
    ensure!(percent(&maps)? == [75, 100], "{:?}", percent(&maps)?);
    ensure!(swept.reclaimed == 0, "what counts was taken out");

    // A reload in the middle of it: other timers, as short as those before.
    let flags = |timeout: &str, adaptive: &str| -> Result<Settings> {
        let flags = ConfigLayer {
            iface: Some(vec!["none".to_owned()]),
            timeout: vec![timeout.parse()?],
            adaptive_timeouts: Some(adaptive.parse()?),
            ..ConfigLayer::default()
        };
        Ok(Settings::load(&flags, None)?)
    };
    let whole = maps.timers().configured().udp_dns;
    maps.reconfigure(&flags("udp-dns=120", "60-120")?);
    ensure!(percent(&maps)? == [75, 100], "{:?}", percent(&maps)?);
    let doubled = maps.timers().configured().udp_dns;
    ensure!((doubled - 1) / 2 == whole - 1, "{whole}, {doubled}");
    maps.reconfigure(&flags("udp-dns=120", "off")?);
    ensure!(percent(&maps)? == [100, 100], "{:?}", percent(&maps)?);
    sweep()?;
    ensure!(percent(&maps)? == [100, 100], "off, and shorter");
    maps.reconfigure(&flags("udp-dns=120", "60-120")?);
    sweep()?;
    ensure!(percent(&maps)? == [75, 100], "{:?}", percent(&maps)?);

    maps.empty(MAP.0, &flows(2, 615))?;
    sweep()?;
    ensure!(percent(&maps)? == [100, 100], "{:?}", percent(&maps)?);
    Ok(())
}

/// Timers may be longer again before the next sweep.
#[test]
fn ports_stay_marked_that_shorter_timers_would_free() -> Result<()> {
    let host = Namespace::new("g")?;
    let maps = PinnedMaps::new(&[MAP], ConfigLayer::default())?;
    let now = maps.now()?;
    let mut sweeper = maps.sweeper(Parts {
        reclaim: false,
        ..Parts::default()
    })?;
    let state = maps.state();
    // Half as long ago as the timer is long.
    let old = now - state.timeouts().udp_dns / 2;
    maps.fill(MAP.0, &flows(1, 4_000), Flow::new(Phase::Dns, now))?;
    let single = FlowKeyV4 {
        local_port: 50_000_u16.to_be(),
        ..flows(2, 1)[0]
    };
    maps.fill(MAP.0, &[single], Flow::new(Phase::Dns, old))?;
    let swept = host.run(|| {
        sweeper.sweep()?;
        sweeper.sweep()?;
        sweeper.sweep()
    })?;
    ensure!(swept.scales.udp.percent() < 50, "{swept:?}");
    ensure!(state.in_use(Use::Udp, 50_000), "the port looks free");
    ensure!(!state.in_use(Use::Udp, 50_001), "another port looks busy");
    Ok(())
}
