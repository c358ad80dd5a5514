//! The tuple filter is as long as its marks need, and decides at any length.

use anyhow::{Result, ensure};
use guard_common::{
    flow::{
        key::{FlowKey, FlowKeyV4},
        state::{Flow, Phase},
    },
    frame::{address::V4, ip::Tuple, transport::Transport},
};
use guard_tests::{netns::Namespace, pinned::PinnedMaps};
use guard_userspace::{config::ConfigLayer, guard::fault_injection::Parts};

/// The map with the flows.
const MAP: (&str, u32) = ("flows_udp4", 1 << 17);
/// More than the shortest filter has room for, by two marks each.
const FLOWS: u32 = 60_000;

fn numbered(number: u32) -> FlowKeyV4 {
    FlowKeyV4::new(&Tuple {
        transport: Transport::Udp,
        local: V4::from([10, 9, 0, 2]),
        remote: V4::from(number.to_be_bytes()),
        local_port: 40_000_u16.to_be(),
        remote_port: 443_u16.to_be(),
    })
}

#[test]
fn a_filter_grows_with_its_marks_and_is_doubted_until_it_holds_them() -> Result<()> {
    let host = Namespace::new("g")?;
    let maps = PinnedMaps::new(&[MAP], ConfigLayer::default())?;
    let state = maps.state();
    let mut sweeper = maps.sweeper(Parts::default())?;
    let mut sweep = || host.run(|| sweeper.sweep());
    ensure!(sweep()?.fits && state.filters(), "no filter is too short");
    let shortest = state.filter().size.bytes();

    let flows: Vec<_> = (1..=FLOWS).map(numbered).collect();
    maps.fill(MAP.0, &flows, Flow::new(Phase::Datagram, maps.now()?))?;
    ensure!(!sweep()?.fits, "{shortest} bytes do for {FLOWS} flows");
    let longer = state.filter().size.bytes();
    ensure!(longer > shortest, "{longer} bytes instead of {shortest}");
    ensure!(
        !state.filters(),
        "bytes are trusted that no sweep has filled"
    );

    ensure!(sweep()?.fits && state.filters(), "it stays in doubt");
    // A sweep that has failed has marked as much, and the next must find it all the same.
    let again = maps.state();
    again.set_epoch(again.epoch() - 1);
    ensure!(sweep()?.fits && state.filters(), "marks are not counted");
    ensure!(state.filter().size.bytes() == longer);
    Ok(())
}
