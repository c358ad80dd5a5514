//! Putting back what the maps have forgotten of connected sockets.
//!
//! The data path does that for whoever it can see: a packet that would be dropped, and a socket
//! that the kernel finds for it on the guarded interface. Sockets that are bound to a device above
//! that one, and those of UDP-Lite, are not found there, so sweeps look after them.

use std::collections::HashSet;

use guard_common::{config::Timeouts, parse::Transport};

use crate::{
    maps::{FlowEntry, FlowMap},
    seed,
    sockets::Socket,
};

/// Flows that are put back at a time. What is more waits for the next sweep.
const MOST: u64 = 4096;

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// Flows that were not in the maps.
    pub absent: u64,
    /// Flows that had expired there, or would have before anybody looked again.
    pub expired: u64,
}

/// How flows are made and judged.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The time in ticks.
    pub now: u32,
    /// When the sweep after the next will be over, if nothing delays it: until then nobody looks
    /// again after sockets that the data path cannot find.
    pub until: u32,
    /// The timers in force.
    pub timeouts: Timeouts,
    /// Whether a UDP flow admits every port of the peer's address.
    pub any_remote_port: bool,
}

/// Puts back the flows of sockets on guarded ports, some thousands at most.
///
/// `waiting` are those that wait for strangers, listed after all `sockets` were: whoever has begun
/// to listen while they were listed shows there.
///
/// `maps` come with whether they have room. One that has none takes only the flows of sockets that
/// the data path cannot find: others are better off waiting for their next packet than evicting
/// the flow of somebody who has no socket here.
pub fn repair(
    (sockets, waiting): (&[Socket], &[Socket]),
    guarded: impl Fn(Transport, u16) -> bool,
    maps: &[(&FlowMap, bool)],
    terms: &Terms,
) -> Repaired {
    let servers = servers(sockets.iter().chain(waiting));
    let mut repaired = Repaired::default();
    for socket in sockets {
        if !seed::belongs(socket, &guarded)
            || servers.contains(&(socket.transport as u8, socket.local.port()))
        {
            continue;
        }
        let entry = seed::entry(socket, terms.now, terms.any_remote_port);
        let map = maps
            .iter()
            .find(|(map, _)| map.holds(entry.transport, entry.local));
        let Some((map, roomy)) = map else {
            continue;
        };
        if *roomy || unseen(socket) {
            // What cannot be written now may be at the next sweep.
            let due = if unseen(socket) {
                terms.until
            } else {
                terms.now
            };
            let _ = put_back(map, &entry, (due, &terms.timeouts), &mut repaired);
        }
        if repaired.absent + repaired.expired >= MOST {
            break;
        }
    }

    repaired
}

/// Puts a flow into its map, unless it is there and lives until it is `due`.
fn put_back(
    map: &FlowMap,
    entry: &FlowEntry,
    (due, timeouts): (u32, &Timeouts),
    repaired: &mut Repaired,
) -> anyhow::Result<()> {
    match map.find(entry)? {
        Some(flow) if flow.alive(due, timeouts) => {}
        Some(_) => repaired.expired += u64::from(map.replace(entry)?),
        None => repaired.absent += u64::from(map.insert(entry)?),
    }

    Ok(())
}

/// Whether no look-up on the guarded interface finds the socket.
fn unseen(socket: &Socket) -> bool {
    socket.device != 0 || socket.transport == Transport::UdpLite
}

/// Ports on which somebody waits for strangers. A socket there may be a stranger's doing, who came
/// by another interface or before the guard, and strangers must not fill the maps.
fn servers<'a>(sockets: impl Iterator<Item = &'a Socket>) -> HashSet<(u8, u16)> {
    sockets
        .filter(|socket| socket.waits())
        .map(|socket| (socket.transport as u8, socket.local.port()))
        .collect()
}
