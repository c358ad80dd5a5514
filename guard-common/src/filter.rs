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
    state::{Element, State},
    tables::Tables,
};

/// Bytes that there are, whether they are in use or not: what the [rest of the state](State) leaves
/// of [`Element::SIZE`], but for a line.
pub const TUPLES: usize = Element::SIZE - size_of::<State>() - LINE;

/// Bytes of a line of a processor's cache.
pub const LINE: usize = 64;

const _: () = assert!(TUPLES.is_multiple_of(LINE) && size_of::<State>().is_multiple_of(LINE));

/// Bytes in use for each mark, at least, as far as there are enough: of strangers at ports in use,
/// the second byte of one in eight is asked for, or of fewer.
const BYTES_A_MARK: u64 = 8;

/// Bytes in use for each mark before there are too many: what is spread wider than it need be does
/// not stay in a processor's cache.
const TOO_MANY_A_MARK: u64 = 32;

/// Bytes in use for the fewest marks.
const FEWEST: u64 = 1 << 17;

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

/// Which marks of a filter count. One word, so that it changes as a whole: no program may trust
/// bytes that no sweep has filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Reach(u64);

impl Reach {
    /// In [`span`](Self::span): as [`Occupancy::fresh`](crate::ports::Occupancy::fresh) has it.
    pub const TRUSTED: u32 = 2;
    /// In [`span`](Self::span): every mark is fresh.
    pub const DOUBTED: u32 = u8::MAX as u32;

    /// So many `bytes` are in use, and a mark may be so many epochs away.
    pub const fn new(span: u32, bytes: u32) -> Self {
        Self(span as u64 | (bytes as u64) << 32)
    }

    /// Epochs that a mark may be away from the one that begins: [`TRUSTED`](Self::TRUSTED), or
    /// [`DOUBTED`](Self::DOUBTED) while tuples may be in use that no sweep has marked.
    #[inline(always)]
    pub const fn span(self) -> u32 {
        self.0 as u32
    }

    /// Bytes in use, at most [`TUPLES`].
    #[inline(always)]
    pub const fn bytes(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The word that says this.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// What a [`word`](Self::word) says.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As many bytes, of which every mark is fresh.
    pub const fn doubted(self) -> Self {
        Self::new(Self::DOUBTED, self.bytes())
    }

    /// As many bytes, which decide.
    pub const fn trusted(self) -> Self {
        Self::new(Self::TRUSTED, self.bytes())
    }

    /// Whether the filter decides.
    pub const fn decides(self) -> bool {
        self.span() == Self::TRUSTED
    }

    /// What suits so many marks of one sweep: this, unless it is too short or much too long.
    pub fn fitting(self, marks: u64) -> Self {
        let least = marks.saturating_mul(BYTES_A_MARK).max(FEWEST);
        let most = marks.saturating_mul(TOO_MANY_A_MARK).max(FEWEST);
        let bytes = u64::from(self.bytes());
        if (least.min(TUPLES as u64)..=most).contains(&bytes) {
            return self;
        }

        let bytes = least.min(TUPLES as u64).next_power_of_two();
        let bytes = bytes.min(TUPLES as u64);
        Self::new(Self::DOUBTED, bytes as u32)
    }
}

impl Filter {
    /// A filter with numbers that nobody must know. It is not trusted yet.
    pub const fn new([a, b, c]: [u64; 3]) -> Self {
        Self {
            reach: Reach::new(Reach::DOUBTED, FEWEST as u32),
            seeds: [a | 1, b | 1, c | 1],
        }
    }

    /// Which two bytes stand for a tuple, as it is recorded.
    #[inline(always)]
    pub fn indices<A: Address>(&self, tuple: &Tuple<A>) -> [usize; 2] {
        let ports = u32::from(tuple.local_port) << 16 | u32::from(tuple.remote_port);
        let hash = tuple.remote.hash(ports, &self.seeds);
        // The highest bits alone repeat for tuples in arithmetic progression, such as the flows of
        // one client: the middle of the product does not.
        let mixed = (hash ^ hash << MIDDLE) >> 32;
        let place = mixed.wrapping_mul(u64::from(self.reach.bytes()));
        let first = (place >> 32) as usize;
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
    let fresh = |index| {
        let mark = tables.remembered(index);
        mark.is_none_or(|mark| mark.within(epoch, span))
    };
    let [first, second] = filter.indices(tuple);

    fresh(first) && fresh(second)
}

/// Notes that a tuple has a flow. `tuple` is as it is recorded.
#[inline(always)]
pub(crate) fn remember<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) {
    let config = tables.config();
    for index in config.filter().indices(tuple) {
        if let Some(mark) = tables.remembered(index) {
            mark.set(config.epoch() as u8);
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
    fn there_are_as_many_bytes_as_the_marks_ask_for() {
        let new = Filter::new(SEEDS).reach;
        for (marks, bytes) in [
            (0, 1 << 17),
            (1 << 14, 1 << 17),
            ((1 << 14) + 1, 1 << 18),
            (40_000, 1 << 19),
            (1 << 18, 1 << 21),
            ((1 << 18) + 1, TUPLES as u32),
            (u64::MAX, TUPLES as u32),
        ] {
            let fitting = new.fitting(marks);
            assert_eq!(fitting.bytes(), bytes, "{marks}");
            assert_eq!(fitting.fitting(marks), fitting, "{marks}");
            assert!(!fitting.decides());
        }
    }

    /// Whoever is in doubt looks everything up, so the size must not follow every connection.
    #[test]
    fn what_fits_stays_as_it_is() {
        let trusted = Reach::new(Reach::TRUSTED, 1 << 18);
        for marks in [1 << 13, 1 << 15] {
            assert_eq!(trusted.fitting(marks), trusted, "{marks}");
        }
        for (marks, bytes) in [((1 << 13) - 1, 1 << 17), ((1 << 15) + 1, 1 << 19)] {
            let other = Reach::new(Reach::DOUBTED, bytes);
            assert_eq!(trusted.fitting(marks), other, "{marks}");
        }
    }

    #[test]
    fn a_reach_is_what_it_was_made_of() {
        let reach = Reach::new(Reach::TRUSTED, TUPLES as u32);
        assert_eq!((reach.span(), reach.bytes()), (2, TUPLES as u32));
        assert!(reach.decides() && !reach.doubted().decides());
        assert_eq!(reach.doubted().trusted(), reach);
    }

    #[test]
    fn what_counts_are_the_remote_end_and_both_ports() {
        let filter = Filter::new(SEEDS);
        let indices = |remote, local_port, remote_port| {
            filter.indices(&Tuple {
                transport: Transport::Udp,
                local: V4::from([192, 0, 2, 1]),
                remote,
                local_port,
                remote_port,
            })
        };
        let known = indices(V4::from([198, 51, 100, 1]), 40_000, 53);
        assert_ne!(known, indices(V4::from([198, 51, 100, 2]), 40_000, 53));
        assert_ne!(known, indices(V4::from([198, 51, 100, 1]), 40_001, 53));
        assert_ne!(known, indices(V4::from([198, 51, 100, 1]), 40_000, 54));
    }

    /// The flows of a busy client differ in little; so do those of its IPv6 twin.
    #[test]
    fn flows_that_differ_in_little_are_spread() {
        let filter = Filter::new(SEEDS);
        let bytes = filter.reach.bytes() as usize;
        let mut ipv4 = HashSet::new();
        let mut ipv6 = HashSet::new();
        for port in 32_768..=60_999u16 {
            ipv4.insert(filter.indices(&tuple(V4::from([198, 51, 100, 1]), port)));
            ipv6.insert(filter.indices(&tuple(
                V6 {
                    high: 0x20,
                    low: 1 << 56,
                },
                port,
            )));
        }
        for indices in [ipv4, ipv6] {
            for [first, second] in &indices {
                assert!(*first < bytes && *second < bytes);
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
