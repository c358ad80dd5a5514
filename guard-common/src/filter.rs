//! The tuple filter: which tuples have a flow or a socket, as far as a hash can tell.
//!
//! A flood at ports in use passes the occupancy table, and would pay for a look-up in the flow
//! map and one among the kernel's sockets. The filter stands before both, and works as the
//! occupancy table does: one byte a hash, which holds the epoch in which a tuple of that hash was
//! last known to be in use. Egress and rescues mark what they put into a map, and each sweep marks
//! every flow and every connected socket. Two tuples that share a byte cost a look-up.

use crate::{
    address::Address,
    parse::Tuple,
    state::{Element, State},
    tables::Tables,
};

/// Bytes that there are, whether they are in use or not: what the [rest of the state](State) leaves
/// of [`Element::SIZE`].
pub const TUPLES: usize = Element::SIZE - size_of::<State>();

/// Bytes in use for each flow that one flow map holds: with one map full, one stranger in 16 is
/// looked up.
const BYTES_A_FLOW: u64 = 16;

/// How tuples are hashed, and whether the answer counts.
///
/// The hash is a sum of products with secret odd numbers, of which the highest bits count most
/// (multiply-shift, Dietzfelbinger et al. 1997): nobody outside can tell which tuples share a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Filter {
    /// Epochs that a mark may be away from the one that begins: [`TRUSTED`](Self::TRUSTED), or
    /// [`DOUBTED`](Self::DOUBTED) while tuples may be in use that no sweep has marked.
    pub span: u32,
    /// Bytes in use, at most [`TUPLES`].
    pub bytes: u32,
    /// Secret odd numbers.
    pub seeds: [u64; 3],
}

impl Filter {
    /// In [`span`](Self::span): as [`Occupancy::fresh`](crate::ports::Occupancy::fresh) has it.
    pub const TRUSTED: u32 = 2;
    /// In [`span`](Self::span): every mark is fresh.
    pub const DOUBTED: u32 = u8::MAX as u32;

    /// A filter beside flow maps of this capacity, with numbers that nobody must know. It is not
    /// trusted yet.
    pub const fn new(max_flows: u32, [a, b, c]: [u64; 3]) -> Self {
        let bytes = max_flows as u64 * BYTES_A_FLOW;
        Self {
            span: Self::DOUBTED,
            bytes: if bytes < TUPLES as u64 {
                bytes as u32
            } else {
                TUPLES as u32
            },
            seeds: [a | 1, b | 1, c | 1],
        }
    }

    /// Which byte stands for a tuple, as it is recorded.
    #[inline(always)]
    pub fn index<A: Address>(&self, tuple: &Tuple<A>) -> usize {
        let ports = u32::from(tuple.local_port) << 16 | u32::from(tuple.remote_port);
        let hash = tuple.remote.hash(ports, &self.seeds);
        // The highest bits alone repeat for tuples in arithmetic progression, such as the flows of
        // one client: the middle of the product does not.
        let mixed = (hash ^ hash << MIDDLE) >> 32;

        (mixed.wrapping_mul(u64::from(self.bytes)) >> 32) as usize
    }
}

/// Bits of a product above those that are folded into the highest.
const MIDDLE: u32 = 23;

/// Whether a tuple may have a flow or a socket. `tuple` is as it is recorded.
#[inline(always)]
pub(crate) fn may_be_known<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    let config = tables.config();

    tables
        .remembered(config.filter().index(tuple))
        .is_none_or(|mark| mark.within(config.epoch() as u8, config.filter_span()))
}

/// Notes that a tuple has a flow. `tuple` is as it is recorded.
#[inline(always)]
pub(crate) fn remember<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) {
    let config = tables.config();
    if let Some(mark) = tables.remembered(config.filter().index(tuple)) {
        mark.mark(config.epoch() as u8);
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
    fn there_are_as_many_bytes_as_the_flows_ask_for() {
        for (flows, bytes) in [
            (1, 16),
            (1 << 16, 1 << 20),
            (1 << 20, TUPLES as u32),
            (1 << 31, TUPLES as u32),
        ] {
            assert_eq!(Filter::new(flows, SEEDS).bytes, bytes, "{flows}");
        }
    }

    #[test]
    fn what_counts_are_the_remote_end_and_both_ports() {
        let filter = Filter::new(1 << 16, SEEDS);
        let index = |remote, local_port, remote_port| {
            filter.index(&Tuple {
                transport: Transport::Udp,
                local: V4::from([192, 0, 2, 1]),
                remote,
                local_port,
                remote_port,
            })
        };
        let known = index(V4::from([198, 51, 100, 1]), 40_000, 53);
        assert_ne!(known, index(V4::from([198, 51, 100, 2]), 40_000, 53));
        assert_ne!(known, index(V4::from([198, 51, 100, 1]), 40_001, 53));
        assert_ne!(known, index(V4::from([198, 51, 100, 1]), 40_000, 54));
    }

    /// The flows of a busy client differ in little; so do those of its IPv6 twin.
    #[test]
    fn flows_that_differ_in_little_are_spread() {
        let filter = Filter::new(1 << 16, SEEDS);
        let bytes = filter.bytes as usize;
        let mut ipv4 = HashSet::new();
        let mut ipv6 = HashSet::new();
        for port in 32_768..=60_999u16 {
            ipv4.insert(filter.index(&tuple(V4::from([198, 51, 100, 1]), port)));
            ipv6.insert(filter.index(&tuple(
                V6 {
                    high: 0x20,
                    low: 1 << 56,
                },
                port,
            )));
        }
        for indices in [ipv4, ipv6] {
            assert!(indices.iter().all(|&index| index < bytes));
            assert!(indices.len() > 27_000, "{}", indices.len());
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
