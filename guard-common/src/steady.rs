//! Packets of a flow in its steady state, which leave nothing to remember but the time.
//!
//! They are nearly all packets of a busy host. What they are judged as and what they change is what
//! the longer way has them judged as and change; it is left to that wherever there is a doubt.

use crate::{
    flow::{Flow, FlowCell, Phase},
    tables::Tables,
};

/// What [`Flow::word`] has above the time, where only time passes.
const fn above_time(phase: Phase) -> u32 {
    (Flow::new(phase, 0).word() >> 32) as u32
}

/// What is to be done beside noting the time of a steady flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tick {
    /// Nothing: another packet has come in this tick.
    Same,
    /// What is done once a tick.
    New,
}

/// Notes the time of a flow that is alive and steady; `None` for any other. The packet must have
/// none of the TCP flags that change a flow.
#[inline(always)]
pub(crate) fn keeps_up(cell: &FlowCell, tables: &impl Tables) -> Option<Tick> {
    const ESTABLISHED: u32 = above_time(Phase::Established);
    const DATAGRAM: u32 = above_time(Phase::Datagram);
    const DNS: u32 = above_time(Phase::Dns);

    // One comparison tells all three.
    const _: () = assert!(DATAGRAM == ESTABLISHED + 1 && DNS == DATAGRAM + 1);

    let word = cell.load_word();
    let phase = (word >> 32) as u32;
    if !(ESTABLISHED..=DNS).contains(&phase) {
        return None;
    }
    let now = tables.now();
    // Where another processor's clock is a tick ahead this is a great age, and left to others.
    let age = now.wrapping_sub(word as u32);
    if age == 0 {
        return Some(Tick::Same);
    }
    let timeouts = tables.config().timeouts();
    let timeout = match phase {
        ESTABLISHED => timeouts.tcp_established,
        DATAGRAM => timeouts.udp,
        _ => timeouts.udp_dns,
    };
    if age > timeout {
        return None;
    }
    cell.seen(now);

    Some(Tick::New)
}
