//! The policy as the programs have it: a page that is filled while no program reads it, and one word
//! that puts it in force.

use core::cell::UnsafeCell;

use crate::{
    flow::timer::Timeouts,
    frame::address::{Address, V4, V6},
    ports::class::{GuardedPorts, PORTS},
};

/// What is in force: which page, the range, and the questions that somebody has to be asked.
///
/// One word, which a program reads once a frame: a page and what it takes to read it come into force
/// in one store, and no frame sees half of a change.
///
/// From its lowest bit on: 16 bits for the first port of the range, 16 flags of questions before a
/// drop, 16 other flags, and 16 bits for how many ports the range has. Where nothing has to be asked,
/// the lower half is the first port alone, so that one comparison says what a flood needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct InForce(u64);

impl InForce {
    /// No port is guarded, and nothing is asked: what a new map holds.
    pub const NOTHING: Self = Self(0);

    /// Some interface forwards or bridges.
    pub const FORWARDS: u32 = 1;
    /// Some sources are trusted.
    pub const SOURCES: u32 = 1 << 1;
    /// Some ports of the range are [special](Page::special).
    pub const SPECIAL: u32 = 1 << 2;
    /// Would-be drops pass.
    pub const MONITOR: u32 = 1 << 3;
    /// The second page is in force, and not the first.
    pub const SECOND_PAGE: u32 = 1 << 16;
    /// The kernel itself receives on some ports of the range.
    pub const KERNEL_PORTS: u32 = 1 << 17;
    /// A UDP flow admits every port of the peer's address.
    pub const ANY_REMOTE_PORT: u32 = 1 << 18;
    /// A flow that is not in the map may be looked up among the kernel's sockets.
    pub const RESCUE: u32 = 1 << 19;
    /// For egress alone: ports that the other page guards are recorded as well.
    pub const BOTH_PAGES: u32 = 1 << 20;
    /// For egress alone, beside [`BOTH_PAGES`](Self::BOTH_PAGES): a UDP flow is recorded both with the
    /// peer's port and for every port of the peer's address.
    pub const BOTH_KEYS: u32 = 1 << 21;

    /// What stands between a packet that belongs to nothing and its drop.
    const BEFORE_A_DROP: u32 = Self::FORWARDS | Self::SOURCES | Self::SPECIAL | Self::MONITOR;

    /// Where the flags begin.
    const FLAGS: u32 = 16;
    /// Where the number of ports is.
    const SPAN: u32 = 48;

    /// The ports from `first` to `last` are the range, and these flags apply. Port 0 is in no range.
    pub const fn new(first: u16, last: u16, flags: u32) -> Self {
        let span = if first == 0 || first > last {
            0
        } else {
            last - first + 1
        };

        Self(first as u64 | (flags as u64) << Self::FLAGS | (span as u64) << Self::SPAN)
    }

    /// The same with a range that holds that of `other` too.
    #[must_use]
    const fn spanning(self, other: Self) -> Self {
        let ((first, last), (others_first, others_last)) = match (self.range(), other.range()) {
            (Some(one), Some(two)) => (one, two),
            (Some(only), None) | (None, Some(only)) => (only, only),
            (None, None) => return self,
        };
        let first = if first < others_first {
            first
        } else {
            others_first
        };
        let last = if last > others_last {
            last
        } else {
            others_last
        };

        Self::new(first, last, self.flags())
    }

    /// What egress goes by while a policy by `next` is about to come into force instead.
    #[must_use]
    pub const fn before(self, next: Self) -> Self {
        let keys = self.has(Self::ANY_REMOTE_PORT) != next.has(Self::ANY_REMOTE_PORT);

        self.spanning(next)
            .with(Self::BOTH_PAGES, true)
            .with(Self::BOTH_KEYS, keys)
    }

    /// The same but for these flags, which apply or do not.
    #[must_use]
    pub const fn with(self, flags: u32, apply: bool) -> Self {
        let flags = (flags as u64) << Self::FLAGS;

        Self(if apply {
            self.0 | flags
        } else {
            self.0 & !flags
        })
    }

    /// Whether one of these flags applies.
    #[inline(always)]
    pub const fn has(self, flags: u32) -> bool {
        self.flags() & flags != 0
    }

    /// All that apply.
    #[inline(always)]
    pub const fn flags(self) -> u32 {
        (self.0 >> Self::FLAGS) as u32
    }

    /// Those that have to be asked about a packet before it is dropped.
    #[inline(always)]
    pub const fn before_a_drop(self) -> u32 {
        self.flags() & Self::BEFORE_A_DROP
    }

    /// Whether `port`, by its index, lies in the range, and nothing has to be asked before a drop.
    #[inline(always)]
    pub const fn drops_unasked(self, port: usize) -> bool {
        // With a flag in the lower half the difference is at least 2^32 - 2^20.
        (port as u32).wrapping_sub(self.0 as u32) < self.span()
    }

    /// Whether `port`, by its index, lies in the range, guarded or not.
    #[inline(always)]
    pub const fn in_range(self, port: usize) -> bool {
        (port as u32).wrapping_sub(self.0 as u32 & 0xffff) < self.span()
    }

    #[inline(always)]
    const fn span(self) -> u32 {
        (self.0 >> Self::SPAN) as u32
    }

    /// The first and the last port of the range, if there is one.
    pub const fn range(self) -> Option<(u16, u16)> {
        let (first, span) = (self.0 as u16, self.span() as u16);
        if span == 0 {
            None
        } else {
            Some((first, first + (span - 1)))
        }
    }

    /// Which of the two pages is meant.
    #[inline(always)]
    pub const fn page(self) -> usize {
        self.has(Self::SECOND_PAGE) as usize
    }

    /// The word that says this.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// What a [`word`](Self::word) says.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

/// Flags lie where no other part of the word is, and questions where the other flags are not.
const _: () = assert!(InForce::BEFORE_A_DROP < 1 << 4 && InForce::BOTH_KEYS < 1 << 22);

/// Everything that the administrator tells the programs. There are two: the daemon fills the one that
/// is not in force, and only once no program can read it any more.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Page {
    /// Which ports are guarded.
    pub ports: GuardedPorts,
    /// Ports of the range whose packets take the general path, for whatever protocol: those that
    /// are reserved, exposed or received on by the kernel, and in monitor mode those on which a
    /// socket waits. The daemon adds single ports to a page that is in force in monitor mode.
    pub special: [u32; PORTS / 32],
    /// Where trusted sources may be.
    pub sources: Sources,
    /// Addresses of this host.
    pub own: OwnAddresses,
    /// How long flows live. The daemon changes single timers of a page that is in force while the
    /// flow maps fill.
    pub timeouts: Timeouts,
    /// Zero.
    pub reserved: u32,
    /// When the page ceases to be in force, in jiffies; 0 for never. No program acts on it yet.
    pub deadline: u64,
    /// Zeroes: room for what is to come, and a power of two, by which no program need multiply to
    /// find a page.
    pub unused: [u64; UNUSED],
}

/// Words that a page has left.
const UNUSED: usize = (Page::SIZE
    - size_of::<GuardedPorts>()
    - PORTS / 8
    - size_of::<Sources>()
    - size_of::<OwnAddresses>()
    - size_of::<Timeouts>()
    - size_of::<u32>()
    - size_of::<u64>())
    / size_of::<u64>();

const _: () = assert!(size_of::<Page>() == Page::SIZE);

impl Page {
    /// Bytes of a page.
    pub const SIZE: usize = 1 << 16;

    /// A page by which nothing is guarded.
    pub const EMPTY: Self = Self {
        ports: GuardedPorts::NONE,
        special: [0; PORTS / 32],
        sources: Sources {
            ipv4: [0; PORTS / 32],
            ipv6: [0; PORTS / 32],
        },
        own: OwnAddresses {
            salt: 1,
            ipv4: [V4::UNSPECIFIED; OwnAddresses::IPV4],
            ipv6: [V6::UNSPECIFIED; OwnAddresses::IPV6],
        },
        timeouts: Timeouts {
            tcp_syn: 0,
            tcp_established: 0,
            tcp_transitory: 0,
            udp: 0,
            udp_dns: 0,
            multicast: 0,
            fragment: 0,
        },
        reserved: 0,
        deadline: 0,
        unused: [0; UNUSED],
    };
}

/// A [`Page`] of which the daemon changes single words while programs read it.
#[repr(transparent)]
pub struct PageCell(UnsafeCell<Page>);

impl PageCell {
    /// A page that is not in a map.
    pub const fn new(page: Page) -> Self {
        Self(UnsafeCell::new(page))
    }

    /// Which ports are guarded. This part of a page in force never changes.
    #[inline(always)]
    pub fn ports(&self) -> &GuardedPorts {
        // SAFETY: the cell is a valid, aligned `Page` for as long as `self` lives, of which no
        // process writes this part while programs may read it.
        unsafe { &(*self.0.get()).ports }
    }

    /// Whether packets to this port, by its index, take the general path.
    #[inline(always)]
    pub fn is_special(&self, port: usize) -> bool {
        let port = port & (PORTS - 1);
        // SAFETY: there are as many words as the index is masked to, and a volatile read of one
        // tolerates that the daemon writes it.
        let word = unsafe {
            let words = (&raw const (*self.0.get()).special).cast::<u32>();
            words.add(port / 32).read_volatile()
        };

        (word >> (port % 32)) & 1 != 0
    }

    /// Where trusted sources may be.
    #[inline(always)]
    pub fn sources(&self) -> &Sources {
        // SAFETY: as in `ports`.
        unsafe { &(*self.0.get()).sources }
    }

    /// Addresses of this host.
    #[inline(always)]
    pub fn own(&self) -> &OwnAddresses {
        // SAFETY: as in `ports`.
        unsafe { &(*self.0.get()).own }
    }

    /// The number that addresses are hashed by.
    #[inline(always)]
    pub fn salt(&self) -> u64 {
        self.own().salt
    }

    /// The timers. They change one word at a time.
    #[inline(always)]
    pub fn timeouts(&self) -> &Timeouts {
        // SAFETY: the cell is a valid, aligned `Page` for as long as `self` lives. A timer that the
        // daemon replaces meanwhile is read as it was or as it will be.
        unsafe { &(*self.0.get()).timeouts }
    }
}

/// What a page says about an address of one family, and where.
pub trait PageAddress: Address {
    /// Whether this is in its place among addresses of this host.
    fn is_listed(self, own: &OwnAddresses) -> bool;

    /// The bit that stands for this source and those near it.
    fn hint(self, salt: u64) -> usize;

    /// The bits of sources of this family.
    fn hints(sources: &Sources) -> &[u32; PORTS / 32];
}

impl PageAddress for V4 {
    #[inline(always)]
    fn is_listed(self, own: &OwnAddresses) -> bool {
        own.lists_v4(self)
    }

    /// Its first 16 bits, of which the second eight come first.
    #[inline(always)]
    fn hint(self, _: u64) -> usize {
        self.0 as usize & 0xffff
    }

    #[inline(always)]
    fn hints(sources: &Sources) -> &[u32; PORTS / 32] {
        &sources.ipv4
    }
}

impl PageAddress for V6 {
    #[inline(always)]
    fn is_listed(self, own: &OwnAddresses) -> bool {
        own.lists_v6(self)
    }

    /// A hash of its first 32 bits.
    #[inline(always)]
    fn hint(self, salt: u64) -> usize {
        (u64::from(self.high as u32).wrapping_mul(salt) >> 48) as usize
    }

    #[inline(always)]
    fn hints(sources: &Sources) -> &[u32; PORTS / 32] {
        &sources.ipv6
    }
}

/// Where sources may be of whom the policy says something: a bit for the first 16 bits of an IPv4
/// address, and one for a hash of the first 32 of an IPv6 address. Where the bit is not set, nothing
/// is said.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Sources {
    ipv4: [u32; PORTS / 32],
    ipv6: [u32; PORTS / 32],
}

/// Bits of an IPv6 address that are hashed.
const HASHED: u32 = 32;
/// Bits of a hint of a source.
const HINT: u32 = 16;

impl Sources {
    /// Whether something may be said about this source.
    #[inline(always)]
    pub fn may_name<A: PageAddress>(&self, source: A, salt: u64) -> bool {
        let hint = source.hint(salt) & (PORTS - 1);

        (A::hints(self)[hint / 32] >> (hint % 32)) & 1 != 0
    }

    /// Notes that something is said about a prefix of IPv4.
    pub fn add_v4(&mut self, address: V4, length: u32) {
        let first = u32::from_be(address.0) >> (32 - HINT);
        let more = (1 << HINT.saturating_sub(length)) - 1;
        for high in first & !more..=first | more {
            let hint = V4((high << (32 - HINT)).to_be()).hint(0);
            self.ipv4[hint / 32] |= 1 << (hint % 32);
        }
    }

    /// Notes that something is said about a prefix of IPv6, whose addresses are hashed by `salt`.
    pub fn add_v6(&mut self, address: V6, length: u32, salt: u64) {
        let free = HASHED.saturating_sub(length);
        if free >= HINT {
            self.ipv6.fill(u32::MAX);
            return;
        }
        let first = (u64::from_be(address.high) >> HASHED) as u32;
        let more = (1 << free) - 1;
        for high in first & !more..=first | more {
            let high = (u64::from(high) << HASHED).to_be();
            let hint = V6 { high, low: 0 }.hint(salt);
            self.ipv6[hint / 32] |= 1 << (hint % 32);
        }
    }
}

/// Addresses of this host, each in the one place that a hash of it says. Of two in one place one is
/// left out: what is sent to it takes the general path.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OwnAddresses {
    /// What addresses are hashed by: an odd number that is secret.
    pub salt: u64,
    ipv4: [V4; Self::IPV4],
    ipv6: [V6; Self::IPV6],
}

impl OwnAddresses {
    /// Places of IPv4 addresses.
    const IPV4: usize = 512;
    /// Places of IPv6 addresses.
    const IPV6: usize = 256;

    /// Whether this is certainly an address of this host.
    #[inline(always)]
    pub fn contain<A: PageAddress>(&self, address: A) -> bool {
        address.is_listed(self) && address != A::UNSPECIFIED
    }

    /// Adds an address of IPv4, and says whether its place was free.
    pub fn add_v4(&mut self, address: V4) -> bool {
        let place = &mut self.ipv4[Self::place_v4(address, self.salt)];
        let free = *place == V4::UNSPECIFIED;
        if free {
            *place = address;
        }

        free || *place == address
    }

    /// Adds an address of IPv6, and says whether its place was free.
    pub fn add_v6(&mut self, address: V6) -> bool {
        let place = &mut self.ipv6[Self::place_v6(address, self.salt)];
        let free = *place == V6::UNSPECIFIED;
        if free {
            *place = address;
        }

        free || *place == address
    }

    #[inline(always)]
    fn lists_v4(&self, address: V4) -> bool {
        self.ipv4[Self::place_v4(address, self.salt)] == address
    }

    #[inline(always)]
    fn lists_v6(&self, address: V6) -> bool {
        self.ipv6[Self::place_v6(address, self.salt)] == address
    }

    #[inline(always)]
    const fn place_v4(address: V4, salt: u64) -> usize {
        const BITS: u32 = OwnAddresses::IPV4.trailing_zeros();

        ((address.0 as u64).wrapping_mul(salt) >> (64 - BITS)) as usize & (Self::IPV4 - 1)
    }

    #[inline(always)]
    const fn place_v6(address: V6, salt: u64) -> usize {
        const BITS: u32 = OwnAddresses::IPV6.trailing_zeros();

        let both = address.high.wrapping_mul(salt).rotate_right(32) ^ address.low;
        (both.wrapping_mul(salt) >> (64 - BITS)) as usize & (Self::IPV6 - 1)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::boxed::Box;

    use super::*;

    const SALT: u64 = 0x9e37_79b9_7f4a_7c15;

    #[test]
    fn a_word_is_what_it_was_made_of() {
        let word = InForce::new(32_768, 60_999, InForce::MONITOR | InForce::SECOND_PAGE);
        assert_eq!(word.range(), Some((32_768, 60_999)));
        assert_eq!(word.page(), 1);
        assert!(word.has(InForce::MONITOR) && !word.has(InForce::RESCUE));
        assert_eq!(word.before_a_drop(), InForce::MONITOR);
        assert_eq!(InForce::from_word(word.word()), word);
        let other = word.with(InForce::SECOND_PAGE, false);
        assert_eq!(
            (other.page(), other.range(), other.has(InForce::MONITOR)),
            (0, word.range(), true)
        );
    }

    #[test]
    fn a_range_holds_its_ends_and_nothing_beside() {
        for (first, last) in [(1, 65_535), (32_768, 60_999), (40_000, 40_000), (1, 1)] {
            let others = InForce::SECOND_PAGE | InForce::KERNEL_PORTS | InForce::RESCUE;
            let word = InForce::new(first, last, others);
            for port in 0..PORTS {
                let within = (usize::from(first)..=usize::from(last)).contains(&port);
                let told = (word.in_range(port), word.drops_unasked(port));
                assert_eq!(told, (within, within), "{first}-{last}: {port}");
            }
            for questions in 1..=InForce::BEFORE_A_DROP {
                let word = word.with(questions, true);
                for port in 0..PORTS {
                    let within = (usize::from(first)..=usize::from(last)).contains(&port);
                    let told = (word.in_range(port), word.drops_unasked(port));
                    assert_eq!(told, (within, false), "{first}-{last}, {questions}: {port}");
                }
            }
        }
        for none in [
            InForce::NOTHING,
            InForce::new(0, 9, 0),
            InForce::new(7, 6, 0),
        ] {
            assert!((0..PORTS).all(|port| !none.in_range(port) && !none.drops_unasked(port)));
            assert_eq!(none.range(), None);
        }
    }

    #[test]
    fn a_range_spans_another() {
        let flags = InForce::RESCUE | InForce::SECOND_PAGE;
        for (one, two, both) in [
            ((40_000, 45_000), (50_000, 60_999), (40_000, 60_999)),
            ((1, 65_535), (50_000, 60_999), (1, 65_535)),
            ((50_000, 60_999), (40_000, 55_000), (40_000, 60_999)),
            ((7, 6), (50_000, 60_999), (50_000, 60_999)),
        ] {
            let (one, two) = (
                InForce::new(one.0, one.1, flags),
                InForce::new(two.0, two.1, InForce::MONITOR),
            );
            assert_eq!(one.spanning(two), InForce::new(both.0, both.1, flags));
            assert_eq!(two.spanning(one).range(), Some(both));
        }
        assert_eq!(
            InForce::NOTHING.spanning(InForce::NOTHING),
            InForce::NOTHING
        );
    }

    #[test]
    fn sources_in_a_prefix_are_hinted_at() {
        let v4 = |address: [u8; 4]| V4::from(address);
        let mut page = Box::new(Page::EMPTY);
        page.sources.add_v4(v4([10, 0, 0, 0]), 8);
        page.sources.add_v4(v4([192, 0, 2, 7]), 32);
        for named in [
            [10, 0, 0, 0],
            [10, 255, 255, 255],
            [10, 7, 8, 9],
            [192, 0, 9, 9],
        ] {
            assert!(page.sources.may_name(v4(named), SALT), "{named:?}");
        }
        for other in [
            [9, 255, 255, 255],
            [11, 0, 0, 0],
            [192, 1, 2, 7],
            [0, 0, 0, 0],
        ] {
            assert!(!page.sources.may_name(v4(other), SALT), "{other:?}");
        }
        page.sources.add_v4(v4([0, 0, 0, 0]), 0);
        assert!(page.sources.may_name(v4([203, 0, 113, 1]), SALT));
    }

    #[test]
    fn ipv6_sources_in_a_prefix_are_hinted_at() {
        let v6 = |first: u32, last: u8| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&first.to_be_bytes());
            bytes[15] = last;
            V6::from(bytes)
        };
        for length in [0, 3, 16, 17, 29, 31, 32, 48, 64, 128] {
            let mut page = Box::new(Page::EMPTY);
            page.sources.add_v6(v6(0x2001_0db8, 0), length, SALT);
            let free = 32u32.saturating_sub(length);
            let ends = [0, ((1u64 << free) - 1) as u32];
            for low in ends {
                let first = 0x2001_0db8 & !ends[1] | low;
                assert!(page.sources.may_name(v6(first, 1), SALT), "{length}");
            }
            let named = (0..1000u32)
                .filter(|other| page.sources.may_name(v6(0x2a00_0000 | other << 4, 1), SALT))
                .count();
            assert!(length < 29 || named < 10, "{length}: {named}");
        }
    }

    #[test]
    fn own_addresses_are_told_exactly() {
        let mut page = Box::new(Page::EMPTY);
        page.own.salt = SALT;
        let (mut ipv4, mut ipv6) = (0, 0);
        for last in 1..=40u8 {
            let four = V4::from([10, 0, last, last]);
            let mut bytes = [0; 16];
            (bytes[0], bytes[7], bytes[15]) = (0xfd, last, last);
            let six = V6::from(bytes);
            assert!(!page.own.contain(four) && !page.own.contain(six));
            let added = [page.own.add_v4(four), page.own.add_v6(six)];
            assert_eq!([page.own.contain(four), page.own.contain(six)], added);
            ipv4 += u32::from(added[0]);
            ipv6 += u32::from(added[1]);
        }
        // Those in a row share places by one number or another.
        assert!(ipv4 >= 10 && ipv6 >= 10, "{ipv4} {ipv6}");
        for last in 0..=u8::MAX {
            assert!(!page.own.contain(V4::from([10, 1, last, last])));
            assert!(!page.own.contain(V6 {
                high: u64::from(last),
                low: 7
            }));
        }
        assert!(!page.own.contain(V4::UNSPECIFIED) && !page.own.contain(V6::UNSPECIFIED));
    }
}
