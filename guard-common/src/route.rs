//! What the kernel's routes are asked of a packet.

use crate::parse::Tuple;

/// All that rules and routes may tell a packet by, as far as XDP can see it. Ports are in network
/// byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteKey<A> {
    /// Where the packet comes from.
    pub source: A,
    /// Where it goes.
    pub destination: A,
    /// Its protocol's IANA number.
    pub protocol: u8,
    /// Its source port; 0 where it has none.
    pub source_port: u16,
    /// Its destination port; 0 where it has none.
    pub destination_port: u16,
    /// Its type of service, or the traffic class and flow label of IPv6 as they are in memory.
    pub class: u32,
}

impl<A: Copy> RouteKey<A> {
    /// The key of a packet that this host receives in this conversation.
    #[inline(always)]
    pub fn received(tuple: &Tuple<A>, class: u32) -> Self {
        Self {
            source: tuple.remote,
            destination: tuple.local,
            protocol: tuple.transport.number(),
            source_port: tuple.remote_port,
            destination_port: tuple.local_port,
            class,
        }
    }

    /// The key of a packet that has no ports.
    #[inline(always)]
    pub const fn without_ports(source: A, destination: A, protocol: u8, class: u32) -> Self {
        Self {
            source,
            destination,
            protocol,
            source_port: 0,
            destination_port: 0,
            class,
        }
    }
}
