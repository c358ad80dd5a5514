//! The tuple filter: which tuples have a flow or a socket, as far as a hash can tell.
//!
//! A flood at ports in use passes the occupancy table, and would pay for a look-up in the flow
//! map and one among the kernel's sockets. The filter stands before both, and works as the
//! occupancy table does: bytes that hold the epoch in which a tuple of their hash was last known to
//! be in use. Egress and rescues mark what they put into a map, and each sweep marks every flow and
//! every connected socket.
//!
//! It is a Bloom filter of two bytes a tuple, in one line of a processor's cache (Putze, Sanders and
//! Singler 2007): nearly every stranger is told by the first, and what passes by chance costs a
//! hundred times as much, because nobody has the flows and sockets of others in a cache.

use crate::{
    address::Address,
    parse::Tuple,
    ports::Occupancy,
    reach::Reach,
    state::{Element, State},
    tables::Tables,
};

/// Bytes that there are for few flows, whether they are in use or not: what the [rest of the
/// state](State) leaves of [`Element::SIZE`].
pub const TUPLES: usize = Element::SIZE - size_of::<State>();

/// Bytes of a line of a processor's cache.
pub const LINE: usize = 64;

/// Such a line of the filter.
pub type Line = [Occupancy; LINE];

const _: () = assert!(TUPLES.is_multiple_of(LINE) && size_of::<State>().is_multiple_of(LINE));

/// How tuples are hashed, and whether the answer counts.
///
/// The hash is a sum of products with secret odd numbers, of which the highest bits count most
/// (multiply-shift, Dietzfelbinger et al. 1997): nobody outside can tell which tuples share a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Filter {
    /// Which marks count.
    pub reach: Reach,
    /// Secret odd numbers. They never change while programs look at them.
    pub seeds: [u64; 3],
}

impl Filter {
    /// A filter with numbers that nobody must know. It is not trusted yet.
    pub const fn new([a, b, c]: [u64; 3]) -> Self {
        Self {
            reach: Reach::FIRST,
            seeds: [a | 1, b | 1, c | 1],
        }
    }

    /// Where in the map `state` the two bytes are that stand for a tuple, as it is recorded: both
    /// in one line.
    #[inline(always)]
    pub fn places<A: Address>(&self, tuple: &Tuple<A>) -> [usize; 2] {
        let ports = u32::from(tuple.local_port) << 16 | u32::from(tuple.remote_port);
        let hash = tuple.remote.hash(ports, &self.seeds);
        // The highest bits alone repeat for tuples in arithmetic progression, such as the flows of
        // one client: the middle of the product does not.
        let mixed = (hash ^ hash << MIDDLE) >> 32;
        let place = mixed.wrapping_mul(u64::from(self.reach.bytes()));
        let first = self.reach.base() + (place >> 32) as usize;
        // What is left of the hash chooses a byte of the same line: the same byte for one in 64.
        let second = (first & !(LINE - 1)) + ((place >> (32 - LINE.ilog2())) as usize & (LINE - 1));

        [first, second]
    }
}

/// Bits of a product above those that are folded into the highest.
const MIDDLE: u32 = 23;

/// Whether a tuple may have a flow or a socket. `tuple` is as it is recorded.
#[inline(always)]
pub(crate) fn may_be_known<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    let config = tables.config();
    let filter = config.filter();

    let (epoch, span) = (config.epoch() as u8, filter.reach.span());
    let [first, second] = filter.places(tuple);
    let Some(line) = tables.line(first) else {
        return true;
    };

    line[first & (LINE - 1)].within(epoch, span) && line[second & (LINE - 1)].within(epoch, span)
}

/// Notes that a tuple has a flow. `tuple` is as it is recorded.
#[inline(always)]
pub(crate) fn remember<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) {
    let config = tables.config();
    let [first, second] = config.filter().places(tuple);
    if let Some(line) = tables.line(first) {
        for place in [first, second] {
            line[place & (LINE - 1)].set(config.epoch() as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;

    use super::*;
    use crate::{
        address::{V4, V6},
        parse::Transport,
    };

    const SEEDS: [u64; 3] = [
        0x9e37_79b9_7f4a_7c15,
        0xd1b5_4a32_d192_ed03,
        0x8cb9_2ba7_2f3d_8dd7,
    ];

    #[test]
    fn what_counts_are_the_remote_end_and_both_ports() {
        let filter = Filter::new(SEEDS);
        let places = |remote, local_port, remote_port| {
            filter.places(&Tuple {
                transport: Transport::Udp,
                local: V4::from([192, 0, 2, 1]),
                remote,
                local_port,
                remote_port,
            })
        };
        let known = places(V4::from([198, 51, 100, 1]), 40_000, 53);
        assert_ne!(known, places(V4::from([198, 51, 100, 2]), 40_000, 53));
        assert_ne!(known, places(V4::from([198, 51, 100, 1]), 40_001, 53));
        assert_ne!(known, places(V4::from([198, 51, 100, 1]), 40_000, 54));
    }

    /// The flows of a busy client differ in little; so do those of its IPv6 twin.
    #[test]
    fn flows_that_differ_in_little_are_spread() {
        let filter = Filter::new(SEEDS);
        let bytes = filter.reach.bytes() as usize;
        let mut ipv4 = HashSet::new();
        let mut ipv6 = HashSet::new();
        for port in 32_768..=60_999u16 {
            ipv4.insert(filter.places(&tuple(V4::from([198, 51, 100, 1]), port)));
            ipv6.insert(filter.places(&tuple(
                V6 {
                    high: 0x20,
                    low: 1 << 56,
                },
                port,
            )));
        }
        for indices in [ipv4, ipv6] {
            for [first, second] in &indices {
                let end = size_of::<State>() + bytes;
                assert!(*first < end && *second < end);
                assert_eq!(first / LINE, second / LINE);
            }
            assert!(indices.len() > 28_000, "{}", indices.len());
        }
    }

    fn tuple<A: Address>(remote: A, port: u16) -> Tuple<A> {
        Tuple {
            transport: Transport::Tcp,
            local: A::UNSPECIFIED,
            remote,
            local_port: port.to_be(),
            remote_port: 443u16.to_be(),
        }
    }
}
