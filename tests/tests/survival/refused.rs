//! Sweeps to which the kernel refuses what they need: nothing is forgotten for that.

use std::{net::Ipv4Addr, ops::Range, sync::Arc};

use anyhow::{Context, Result, ensure};
use guard_common::{
    flow::{
        key::{FlowKey, FlowKeyV4},
        state::{Flow, Phase},
    },
    frame::{address::V4, ip::Tuple, transport::Transport},
    ports::occupancy::Use,
};
use guard_tests::{
    kernel::Kernel,
    netns::Namespace,
    pinned::PinnedMaps,
    refused::{Refused, while_refused},
};
use guard_userspace::{
    bpf::maps::StateMemory,
    config::ConfigLayer,
    guard::{fault_injection::Parts, sweep::Sweeper},
};

/// `BPF_MAP_LOOKUP_BATCH`, include/uapi/linux/bpf.h.
const LOOKUP_BATCH: u32 = 24;
/// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
const LOOKUP_AND_DELETE: u32 = 21;
/// `ENOTSUPP`, include/linux/errno.h: what kernels before 5.14 say to the latter.
const NOT_SUPPORTED: i32 = 524;

const MAP: &str = "flows_udp4";
const CAPACITY: u32 = 1_024;
/// Of flows that live: enough that timers shrink, and few enough that none is evicted, although each
/// processor keeps some of the room for itself.
const PORTS: Range<u16> = 40_000..40_700;
/// Of flows that have expired.
const OLD: Range<u16> = 41_000..41_050;
/// A port that nothing marks looks free after two sweeps.
const MANY: usize = 5;

fn keys(ports: Range<u16>) -> Vec<FlowKeyV4> {
    let tuple = |port: u16| Tuple {
        transport: Transport::Udp,
        local: V4::from(Ipv4Addr::new(10, 9, 0, 2).octets()),
        remote: V4::from(Ipv4Addr::new(10, 9, 0, 1).octets()),
        local_port: port.to_be(),
        remote_port: 443_u16.to_be(),
    };
    ports.map(|port| FlowKeyV4::new(&tuple(port))).collect()
}

/// How many ports of live flows look free.
fn free(state: &StateMemory) -> usize {
    PORTS.filter(|port| !state.in_use(Use::Udp, *port)).count()
}

/// Maps with many flows, of which one map is nearly full.
fn filled(host: &Namespace) -> Result<(PinnedMaps, Arc<StateMemory>, Sweeper)> {
    let maps = PinnedMaps::new(&[(MAP, CAPACITY)], ConfigLayer::default())?;
    maps.fill(MAP, &keys(PORTS), Flow::new(Phase::Datagram, maps.now()?))?;
    let (state, mut sweeper) = (maps.state(), maps.sweeper(Parts::default())?);
    host.run(|| sweeper.sweep())?;
    ensure!(free(&state) == 0, "a sweep leaves ports unmarked");
    Ok((maps, state, sweeper))
}

#[test]
fn a_sweep_that_fails_forgets_nothing() -> Result<()> {
    // what is refused, and what is said of it
    let table = [
        (Refused::Sockets, libc::EMFILE, "sock_diag"),
        (Refused::Bpf(LOOKUP_BATCH), libc::EPERM, "flows"),
        (Refused::Bpf(LOOKUP_BATCH), libc::ENOMEM, "flows"),
    ];
    let host = Namespace::new("g")?;
    for (refused, errno, about) in table {
        let (_maps, state, mut sweeper) = filled(&host)?;
        let before = state.epoch();
        for _ in 0..MANY {
            let swept = while_refused(refused, errno, || host.run(|| sweeper.sweep()));
            let Err(error) = swept else {
                anyhow::bail!("{refused:?}: it has not failed");
            };
            let error = format!("{error:#}");
            ensure!(error.contains(about), "{refused:?}: {error}");
            ensure!(state.epoch() == before, "{refused:?}: the epoch has moved");
            ensure!(free(&state) == 0, "{refused:?}: ports look free");
        }
        // What comes afterwards is as if nothing had been.
        let swept = host.run(|| sweeper.sweep())?;
        ensure!(swept.flows() == PORTS.len() as u64, "{swept:?}");
        ensure!(state.epoch() == before + 1, "{refused:?}: it stays behind");
        ensure!(free(&state) == 0, "{refused:?}: ports look free later");
    }
    Ok(())
}

#[test]
fn sweeps_that_see_nothing_do_forget() -> Result<()> {
    let host = Namespace::new("g")?;
    let (maps, state, mut sweeper) = filled(&host)?;
    maps.empty(MAP, &keys(PORTS))?;
    for _ in 0..MANY {
        host.run(|| sweeper.sweep())?;
    }
    ensure!(free(&state) == PORTS.len(), "{} are free", free(&state));
    Ok(())
}

/// Kernels before 5.14 let nobody take an entry out and see what it was. Short timers would only
/// cost flows there.
#[test]
fn where_nothing_can_be_taken_out_timers_stay_whole() -> Result<()> {
    let host = Namespace::new("g")?;
    let (maps, state, mut sweeper) = filled(&host)?;
    let whole = maps.timers().configured();
    if Kernel::running() >= Kernel::new(5, 14) {
        let short = state.timeouts();
        ensure!(short != whole, "timers of a map that is nearly full");
    }
    // So that there is something to take out.
    let old = maps.now()?.wrapping_sub(whole.udp + 10);
    maps.fill(MAP, &keys(OLD), Flow::new(Phase::Datagram, old))?;
    for round in 0..MANY {
        let before = state.epoch();
        let refused = Refused::Bpf(LOOKUP_AND_DELETE);
        let swept = while_refused(refused, NOT_SUPPORTED, || host.run(|| sweeper.sweep()))
            .with_context(|| format!("sweep {round}"))?;
        ensure!(swept.reclaimed == 0, "{swept:?}");
        ensure!(swept.flows() == PORTS.len() as u64, "{swept:?}");
        ensure!(state.timeouts() == whole, "timers are short: {swept:?}");
        ensure!(state.epoch() == before + 1, "the epoch has not moved");
    }
    // Once is enough to know the kernel: it is not asked again.
    let swept = host.run(|| sweeper.sweep())?;
    ensure!(swept.reclaimed == 0, "{swept:?}");
    ensure!(state.timeouts() == whole, "{swept:?}");
    Ok(())
}
