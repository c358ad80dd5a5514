//! Ports that are used with one remote address alone.
//!
//! Most ports of a host with many connections have one each. For such a port the daemon's sweeps
//! leave a hash of the remote address beside the occupancy: nearly all unsolicited packets are told by the same look as at an unused port, and their drop takes the same branches.
//!
//! Only sweeps write it, and they never take away what they have not replaced: before another hash
//! stands there, or none, the port is marked as in use with any address for as long as any mark counts.
//! A flow with another address marks it so too. So no race can lose a flow, as none can lose a mark.

use core::{
    cell::UnsafeCell,
    sync::atomic::{Ordering, fence},
};

use crate::{
    frame::address::Address,
    ports::{bloom::BloomFilter, occupancy::Occupancy},
};

/// Which remote addresses a port is used with, as far as a hash of seven bits can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct PeerHash(u8);

impl PeerHash {
    /// None.
    pub const NONE: Self = Self(0);
    /// More than one, or any.
    pub const MANY: Self = Self(2);

    /// This address alone. Odd, and so neither of the above.
    #[inline(always)]
    pub fn of<A: Address>(remote: A, filter: &BloomFilter) -> Self {
        let hash = remote.hash(0, &filter.seeds);

        Self((hash >> 56) as u8 | 1)
    }

    /// Both together.
    #[must_use]
    pub const fn merge(self, others: Self) -> Self {
        match (self.0, others.0) {
            (0, _) => others,
            (_, 0) => self,
            (users, others) if users == others => self,
            _ => Self::MANY,
        }
    }
}

/// The single peer of a port, if it has one. Only the daemon's sweeps write it.
#[repr(transparent)]
pub struct SinglePeer(UnsafeCell<u8>);

impl SinglePeer {
    /// A port without a single peer.
    pub const fn none() -> Self {
        Self(UnsafeCell::new(PeerHash::NONE.0))
    }

    /// The hash of the peer, or none.
    #[inline(always)]
    pub fn load(&self) -> PeerHash {
        // SAFETY: the cell is a valid byte for as long as `self` lives, and a volatile read
        // tolerates that the daemon writes it.
        PeerHash(unsafe { self.0.get().read_volatile() })
    }

    /// Takes over what a complete sweep has `found` of the port, whose occupancy is marked for the
    /// `epoch` that is to begin wherever the single peer is not the whole answer.
    #[inline]
    pub fn update(&self, found: PeerHash, occupancy: &Occupancy, epoch: u8) {
        let before = self.load();
        if found == before {
            return;
        }
        let alone = if found == PeerHash::MANY {
            PeerHash::NONE
        } else {
            found
        };
        if before != PeerHash::NONE || alone == PeerHash::NONE {
            occupancy.mark(epoch);
            // A program that does not see the former hash must see the mark.
            fence(Ordering::Release);
        }
        // SAFETY: the cell is a valid byte for as long as `self` lives, and a store of a whole byte
        // cannot disturb its neighbours.
        unsafe { self.0.get().write_volatile(alone.0) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;

    use super::*;
    use crate::frame::address::{V4, V6};

    const ONE: PeerHash = PeerHash(7);
    const OTHER: PeerHash = PeerHash(9);

    #[test]
    fn one_is_neither_none_nor_many_and_mostly_not_another() {
        let filter = BloomFilter::new([
            0x9e37_79b9_7f4a_7c15,
            0xd1b5_4a32_d192_ed03,
            0x8cb9_2ba7_2f3d_8dd7,
        ]);
        let (mut ipv4, mut ipv6) = (HashSet::new(), HashSet::new());
        for last in 0..=u8::MAX {
            ipv4.insert(PeerHash::of(V4::from([198, 51, 100, last]), &filter).0);
            let mut address = [0; 16];
            address[0] = 0x20;
            address[15] = last;
            ipv6.insert(PeerHash::of(V6::from(address), &filter).0);
        }
        for sorts in [ipv4, ipv6] {
            assert!(sorts.iter().all(|one| one % 2 == 1));
            assert!(sorts.len() > 64, "{}", sorts.len());
        }
    }

    #[test]
    fn users_add_up() {
        assert_eq!(PeerHash::NONE.merge(ONE), ONE);
        assert_eq!(ONE.merge(PeerHash::NONE), ONE);
        assert_eq!(ONE.merge(ONE), ONE);
        assert_eq!(ONE.merge(OTHER), PeerHash::MANY);
        assert_eq!(PeerHash::MANY.merge(ONE), PeerHash::MANY);
    }

    /// A port is marked when its former peer is replaced, or when it has several.
    #[test]
    fn a_port_is_marked_wherever_its_single_peer_is_not_the_whole_answer() {
        for (before, found, after, is_marked) in [
            (PeerHash::NONE, PeerHash::NONE, PeerHash::NONE, false),
            (PeerHash::NONE, ONE, ONE, false),
            (PeerHash::NONE, PeerHash::MANY, PeerHash::NONE, true),
            (ONE, ONE, ONE, false),
            (ONE, OTHER, OTHER, true),
            (ONE, PeerHash::NONE, PeerHash::NONE, true),
            (ONE, PeerHash::MANY, PeerHash::NONE, true),
        ] {
            let single_peer = SinglePeer(UnsafeCell::new(before.0));
            let occupancy = Occupancy::new(0);
            single_peer.update(found, &occupancy, 5);
            assert_eq!(single_peer.load(), after, "{before:?} {found:?}");
            assert_eq!(occupancy.fresh(5), is_marked, "{before:?} {found:?}");
        }
    }
}
