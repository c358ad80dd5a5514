//! The Bloom filter: which tuples have a flow or a socket, as far as a hash can tell.
//!
//! A flood at ports in use passes the occupancy table, and would pay for a look-up in the flow
//! map and one among the kernel's sockets. The filter stands before both, and works as the
//! occupancy table does: bytes that hold the epoch in which a tuple of their hash was last known to
//! be in use. Egress and rescues mark what they put into a map, and each sweep marks every flow and
//! every connected socket.
//!
//! It is a Bloom filter of two bytes a tuple, in one line of a processor's cache (Putze, Sanders and
//! Singler 2007): nearly every unsolicited packet is refused by the first. One that passes by chance costs a hundred times as much, because the flows and sockets it is looked up in are in no cache.

use crate::{
    frame::{address::Address, ip::Tuple},
    ports::occupancy::Occupancy,
};

/// Bytes of one element of the map `state`: as many as Linux 5.10 allows a value
/// (`KMALLOC_MAX_SIZE`, kernel/bpf/arraymap.c), and a power of two, by which no program need
/// multiply to find it.
pub const ELEMENT_BYTES: usize = 1 << 22;

/// Bytes of the first element that stand before the filter. The layout of that element asserts it.
pub const STATE_BYTES: usize = 655_424;

/// Bytes of the filter where there are few flows, whether they are in use or not: what is left of
/// the first element.
pub const BLOOM_BYTES: usize = ELEMENT_BYTES - STATE_BYTES;

/// Bytes of a line of a processor's cache.
pub const LINE: usize = 64;

/// Such a line of the filter.
pub type Line = [Occupancy; LINE];

const _: () = assert!(BLOOM_BYTES.is_multiple_of(LINE) && STATE_BYTES.is_multiple_of(LINE));

/// The secret by which tuples are hashed, and the size of the filter.
///
/// The hash is a sum of products with secret odd numbers, of which the highest bits count most
/// (multiply-shift, Dietzfelbinger et al. 1997): without them nobody can find tuples that share a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct BloomFilter {
    /// How many bytes are in use, and which marks count.
    pub size: BloomSize,
    /// Secret odd numbers. They never change while programs look at them.
    pub seeds: [u64; 3],
}

impl BloomFilter {
    /// A filter with secret numbers. It is not valid yet.
    pub const fn new([a, b, c]: [u64; 3]) -> Self {
        Self {
            size: BloomSize::FIRST,
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
        let place = mixed.wrapping_mul(u64::from(self.size.bytes()));
        let first = self.size.base() + (place >> 32) as usize;
        // What is left of the hash chooses a byte of the same line: the same byte for one in 64.
        let second = (first & !(LINE - 1)) + ((place >> (32 - LINE.ilog2())) as usize & (LINE - 1));

        [first, second]
    }
}

/// Bits of a product above those that are folded into the highest.
const MIDDLE: u32 = 23;

/// Bytes in use for each mark, at least, as far as there are enough: then at most one in eight unsolicited packets at ports in use has its second byte read.
const BYTES_A_MARK: u64 = 8;

/// Bytes in use for each mark before there are too many: what is spread wider than it need be does
/// not stay in a processor's cache.
const TOO_MANY_A_MARK: u64 = 32;

/// Bytes in use for the fewest marks.
const FEWEST: u64 = 1 << 17;

/// Bytes that there are for each flow that a flow map has room for, where there are more than
/// [`BLOOM_BYTES`]: two marks a flow of two of the four maps.
const BYTES_A_FLOW: u64 = 4 * BYTES_A_MARK;

/// Elements that the map `state` has where each flow map has room for so many flows: one, and
/// behind it those that a filter takes for which that one has no room.
pub const fn elements(max_flows: u32) -> u32 {
    let more = max_flows as u64 * BYTES_A_FLOW / ELEMENT_BYTES as u64;
    if more > 1 { 1 + more as u32 } else { 1 }
}

/// The size of a filter, and whether it is valid. One word, so that it changes as a whole: no program may rely on bytes that no sweep has filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct BloomSize(u64);

impl BloomSize {
    /// In [`span`](Self::span): as [`Occupancy::fresh`](crate::ports::occupancy::Occupancy::fresh) has it.
    pub const VALID: u32 = 2;
    /// In [`span`](Self::span): every mark is fresh.
    pub const INVALID: u32 = u8::MAX as u32;

    /// The size of a filter that is not valid yet.
    pub(crate) const FIRST: Self = Self::new(Self::INVALID, FEWEST as u32);

    /// So many `bytes` are in use, and a mark may be so many epochs away.
    pub const fn new(span: u32, bytes: u32) -> Self {
        Self(span as u64 | (bytes as u64) << 32)
    }

    /// Epochs that a mark may be away from the one that begins: [`VALID`](Self::VALID), or
    /// [`INVALID`](Self::INVALID) while tuples may be in use that no sweep has marked.
    #[inline(always)]
    pub const fn span(self) -> u32 {
        self.0 as u32
    }

    /// Bytes in use: at most [`BLOOM_BYTES`], which are in the first element of the map `state`, or a
    /// multiple of [`ELEMENT_BYTES`] in those behind it.
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

    /// The same size, invalid: every mark counts as fresh.
    pub const fn invalidated(self) -> Self {
        Self::new(Self::INVALID, self.bytes())
    }

    /// The same size, valid.
    pub const fn validated(self) -> Self {
        Self::new(Self::VALID, self.bytes())
    }

    /// Whether the answer of the filter counts.
    #[inline(always)]
    pub const fn is_valid(self) -> bool {
        self.span() == Self::VALID
    }

    /// Where the bytes in use begin, in the map `state`.
    #[inline(always)]
    pub const fn base(self) -> usize {
        if self.bytes() as usize > BLOOM_BYTES {
            ELEMENT_BYTES
        } else {
            STATE_BYTES
        }
    }

    /// What suits so many marks of one sweep, where the map `state` has so many elements: this,
    /// unless it is too short or much too long.
    pub fn fitting(self, marks: u64, elements: u32) -> Self {
        let room = match elements {
            0..=2 => BLOOM_BYTES as u64,
            more => u64::from(more - 1) << ELEMENT_BYTES.ilog2(),
        };
        let least = marks.saturating_mul(BYTES_A_MARK).max(FEWEST);
        let most = marks.saturating_mul(TOO_MANY_A_MARK).max(FEWEST);
        let bytes = u64::from(self.bytes());
        if (least.min(room)..=most).contains(&bytes) {
            return self;
        }

        let bytes = least.min(room).next_power_of_two().min(room);
        // A whole element would be no more than what the first has left.
        let bytes = if bytes <= ELEMENT_BYTES as u64 {
            bytes.min(BLOOM_BYTES as u64)
        } else {
            bytes
        };
        Self::new(Self::INVALID, bytes as u32)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;

    use super::*;
    use crate::frame::{
        address::{V4, V6},
        transport::Transport,
    };

    const SEEDS: [u64; 3] = [
        0x9e37_79b9_7f4a_7c15,
        0xd1b5_4a32_d192_ed03,
        0x8cb9_2ba7_2f3d_8dd7,
    ];

    #[test]
    fn what_counts_are_the_remote_end_and_both_ports() {
        let filter = BloomFilter::new(SEEDS);
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
        let filter = BloomFilter::new(SEEDS);
        let bytes = filter.size.bytes() as usize;
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
                let end = STATE_BYTES + bytes;
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

#[cfg(test)]
mod size_tests {
    use super::*;

    #[test]
    fn there_are_as_many_bytes_as_the_marks_ask_for() {
        let new = BloomSize::FIRST;
        for (marks, bytes) in [
            (0, 1 << 17),
            (1 << 14, 1 << 17),
            ((1 << 14) + 1, 1 << 18),
            (40_000, 1 << 19),
            (1 << 18, 1 << 21),
            ((1 << 18) + 1, BLOOM_BYTES as u32),
            (u64::MAX, BLOOM_BYTES as u32),
        ] {
            for elements in [0, 1, 2] {
                let fitting = new.fitting(marks, elements);
                assert_eq!(fitting.bytes(), bytes, "{marks}");
                assert_eq!(fitting.fitting(marks, elements), fitting, "{marks}");
                assert!(!fitting.is_valid());
                assert_eq!(fitting.base(), STATE_BYTES);
            }
        }
    }

    #[test]
    fn many_marks_take_elements_of_their_own() {
        let new = BloomSize::FIRST;
        for (flows, marks, bytes, base) in [
            (1 << 18, 1 << 19, BLOOM_BYTES as u32, STATE_BYTES),
            (1 << 18, (1 << 19) + 1, 1 << 23, ELEMENT_BYTES),
            (1 << 20, 2_000_000, 1 << 24, ELEMENT_BYTES),
            (1 << 20, u64::MAX, 1 << 25, ELEMENT_BYTES),
            (1 << 24, u64::MAX, 1 << 29, ELEMENT_BYTES),
        ] {
            let elements = elements(flows);
            let fitting = new.fitting(marks, elements);
            assert_eq!(fitting.bytes(), bytes, "{marks}");
            assert_eq!(fitting.base(), base, "{marks}");
            assert_eq!(fitting.fitting(marks, elements), fitting, "{marks}");
            let end = base + bytes as usize;
            assert!(end <= elements as usize * ELEMENT_BYTES, "{flows}");
        }
        assert_eq!([1 << 10, 1 << 17, 1 << 18].map(elements), [1, 1, 3]);
    }

    /// A change of size makes the filter invalid and every packet is looked up, so the size must not follow every connection.
    #[test]
    fn what_fits_stays_as_it_is() {
        let validated = BloomSize::new(BloomSize::VALID, 1 << 18);
        for marks in [1 << 13, 1 << 15] {
            assert_eq!(validated.fitting(marks, 1), validated, "{marks}");
        }
        for (marks, bytes) in [((1 << 13) - 1, 1 << 17), ((1 << 15) + 1, 1 << 19)] {
            let other = BloomSize::new(BloomSize::INVALID, bytes);
            assert_eq!(validated.fitting(marks, 1), other, "{marks}");
        }
    }

    #[test]
    fn a_size_is_what_it_was_made_of() {
        let size = BloomSize::new(BloomSize::VALID, BLOOM_BYTES as u32);
        assert_eq!((size.span(), size.bytes()), (2, BLOOM_BYTES as u32));
        assert!(size.is_valid() && !size.invalidated().is_valid());
        assert_eq!(size.invalidated().validated(), size);
    }
}
