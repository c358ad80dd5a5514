//! Putting back what the maps have forgotten of connected sockets.
//!
//! The data path does that where it can: a packet that would be dropped, and a socket
//! that the kernel finds for it on the guarded interface. Sockets that are bound to a device above
//! that one, and those of UDP-Lite, are not found there, so sweeps look after them.

mod cpu_share;
pub mod nat;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use guard_common::{flow::timer::Timeouts, frame::transport::Transport};

use crate::{
    bpf::maps::{FlowEntry, FlowMap},
    guard::seed,
    host::sockets::HostSocket,
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
    /// The shortest of the timers, in ticks, that those flows run by which nothing but sweeps can put
    /// back.
    pub shortest: Option<u32>,
}

impl Repaired {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            absent: self.absent + other.absent,
            expired: self.expired + other.expired,
            shortest: self.shortest.into_iter().chain(other.shortest).min(),
        }
    }
}

/// How flows are made, and when they expire.
#[derive(Clone, Copy, Debug)]
pub struct RepairTerms {
    /// The time in ticks.
    pub now: u32,
    /// When the sweep after the next will be over, if nothing delays it: until then nothing looks
    /// again after sockets that the data path cannot find.
    pub until: u32,
    /// The timers in force.
    pub timeouts: Timeouts,
    /// Whether a UDP flow admits every port of the peer's address.
    pub any_remote_port: bool,
}

/// Puts back the flows of sockets on guarded ports, some thousands at most.
///
/// `waiting` are those that wait for packets of any peer, listed after all `sockets` were: anyone who has begun
/// to listen while they were listed shows there.
///
/// `maps` come with whether they have room. One that has none takes only the flows of sockets that
/// the data path cannot find: others are better off waiting for their next packet than evicting
/// the flow of a host that has no socket here.
pub fn repair(
    (sockets, waiting): (&[HostSocket], &[HostSocket]),
    guarded: impl Fn(Transport, u16) -> bool,
    maps: &[(&FlowMap, bool)],
    terms: &RepairTerms,
) -> Repaired {
    let waiting = Waiting::of(sockets.iter().chain(waiting));
    let mut repaired = Repaired::default();
    for socket in sockets {
        if !seed::belongs(socket, &guarded) || waiting.may_have_accepted(socket) {
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
            let due = if unseen(socket) {
                let timer = terms.timeouts.of(entry.flow.timer());
                repaired.shortest = repaired.shortest.into_iter().chain([timer]).min();
                terms.until
            } else {
                terms.now
            };
            // What cannot be written now may be at the next sweep. Sockets are marked already.
            let _ = put_back(map, &entry, (due, &terms.timeouts), &mut repaired, |_| {});
        }
        if repaired.absent + repaired.expired >= MOST {
            break;
        }
    }

    repaired
}

/// Puts a flow into its map, unless it is there and lives until it is `due`. `mark` is told of it
/// before.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn put_back(
    map: &FlowMap,
    entry: &FlowEntry,
    (due, timeouts): (u32, &Timeouts),
    repaired: &mut Repaired,
    mark: impl Fn(&FlowEntry),
) -> anyhow::Result<()> {
    let found = map.find(entry)?;
    if found.is_some_and(|flow| flow.alive(due, timeouts)) {
        return Ok(());
    }
    mark(entry);
    match found {
        Some(_) => repaired.expired += u64::from(map.replace(entry)?),
        None => repaired.absent += u64::from(map.insert(entry)?),
    }

    Ok(())
}

/// Whether no look-up on the guarded interface finds the socket.
fn unseen(socket: &HostSocket) -> bool {
    socket.device != 0 || socket.transport == Transport::UdpLite
}

/// What sockets are bound to that wait for others to connect or send. What came of one may have been
/// opened from outside, by another interface or before the guard, and must not fill the maps.
struct Waiting(HashSet<Bound>);

/// A transport, an address and a port, and the device or 0 for all.
type Bound = (u8, IpAddr, u16, u32);

impl Waiting {
    fn of<'a>(sockets: impl Iterator<Item = &'a HostSocket>) -> Self {
        let waiting = sockets.filter(|socket| socket.waits());

        Self(
            waiting
                .flat_map(|socket| {
                    let address = socket.local.ip();
                    let everything = address.is_unspecified() && address.is_ipv6();
                    let ipv4 = (everything && !socket.ipv6_only)
                        .then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                    let bound = |address| {
                        let port = socket.local.port();
                        (socket.transport as u8, address, port, socket.device)
                    };
                    [address].into_iter().chain(ipv4).map(bound)
                })
                .collect(),
        )
    }

    /// Whether one of them waits at the end of a connected socket, so that the connection may have
    /// come from outside. A port alone tells nothing: anybody may wait at the same port of another
    /// address, family or device, where they can never have been given this connection.
    fn may_have_accepted(&self, socket: &HostSocket) -> bool {
        let address = socket.local.ip();
        let any = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };

        // What a socket accepts is bound to the same device. One for all devices may be bound later.
        [address, any].into_iter().any(|address| {
            [0, socket.device].into_iter().any(|device| {
                let port = socket.local.port();
                self.0
                    .contains(&(socket.transport as u8, address, port, device))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sockets::SocketState;

    fn socket(local: &str, remote: &str, device: u32) -> HostSocket {
        HostSocket {
            transport: Transport::Tcp,
            local: local.parse().expect("is an end"),
            remote: remote.parse().expect("is an end"),
            state: SocketState::Established,
            device,
            ipv6_only: false,
            inode: 1,
            uid: 0,
        }
    }

    #[test]
    fn only_who_waits_at_a_connection_s_own_end_may_have_accepted_it() {
        let (any, bridge) = (0, 7);
        let ipv4 = |device| socket("10.9.0.2:40000", "10.9.0.1:80", device);
        let ipv6 = |device| socket("[fd09::2]:40000", "[fd09::1]:80", device);
        // name, who waits, on which device, for IPv6 alone, the connection, whether it may be theirs
        let table = [
            ("same", "10.9.0.2:40000", any, false, ipv4(any), true),
            (
                "bound later",
                "10.9.0.2:40000",
                any,
                false,
                ipv4(bridge),
                true,
            ),
            (
                "every address",
                "0.0.0.0:40000",
                any,
                false,
                ipv4(any),
                true,
            ),
            (
                "of both families",
                "[::]:40000",
                any,
                false,
                ipv4(bridge),
                true,
            ),
            ("IPv6 alone", "[::]:40000", any, true, ipv4(bridge), false),
            ("IPv6", "[::]:40000", any, true, ipv6(any), true),
            (
                "IPv4 for IPv6",
                "0.0.0.0:40000",
                any,
                false,
                ipv6(any),
                false,
            ),
            (
                "loopback",
                "127.0.0.1:40000",
                any,
                false,
                ipv4(bridge),
                false,
            ),
            (
                "loopback, IPv6",
                "[::1]:40000",
                any,
                false,
                ipv6(bridge),
                false,
            ),
            (
                "another port",
                "0.0.0.0:40001",
                any,
                false,
                ipv4(any),
                false,
            ),
            (
                "its device",
                "0.0.0.0:40000",
                bridge,
                false,
                ipv4(bridge),
                true,
            ),
            (
                "another device",
                "0.0.0.0:40000",
                1,
                false,
                ipv4(bridge),
                false,
            ),
            (
                "another device, IPv6",
                "[::]:40000",
                1,
                false,
                ipv6(bridge),
                false,
            ),
        ];
        for (name, local, device, ipv6_only, connection, expected) in table {
            let waiting = Waiting::of(std::iter::once(&HostSocket {
                state: SocketState::Listen,
                ipv6_only,
                ..socket(local, "0.0.0.0:0", device)
            }));
            assert_eq!(waiting.may_have_accepted(&connection), expected, "{name}");
        }
        let datagrams = Waiting::of(std::iter::once(&HostSocket {
            transport: Transport::Udp,
            state: SocketState::Close,
            ..socket("10.9.0.2:40000", "0.0.0.0:0", any)
        }));
        assert!(
            !datagrams.may_have_accepted(&ipv4(any)),
            "another transport"
        );
    }
}
