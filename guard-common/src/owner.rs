//! Ports that are used with one remote address alone.
//!
//! Most ports of a host with many connections have one each. For such a port the daemon's sweeps
//! leave a hash of the remote address beside the occupancy: strangers are told by the same look as
//! at a port that nobody uses, nearly all of them, and their drop takes the same branches.
//!
//! Only sweeps write it, and they never take away what they have not replaced: before another hash
//! stands there, or none, the port is marked as in use with anybody for as long as any mark counts.
//! A flow with somebody else marks it so too. So no race can lose a flow, as none can lose a mark.

use core::{
    cell::UnsafeCell,
    sync::atomic::{Ordering, fence},
};

use crate::{address::Address, filter::Filter, ports::Occupancy};

/// With whom a port is used, as far as a hash of seven bits can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Users(u8);

impl Users {
    /// With nobody.
    pub const NONE: Self = Self(0);
    /// With more than one, or with anybody.
    pub const MANY: Self = Self(2);

    /// With this address alone. Odd, and so neither of the above.
    #[inline(always)]
    pub fn one<A: Address>(remote: A, filter: &Filter) -> Self {
        let hash = remote.hash(0, &filter.seeds);

        Self((hash >> 56) as u8 | 1)
    }

    /// These, and others.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        match (self.0, others.0) {
            (0, _) => others,
            (_, 0) => self,
            (users, others) if users == others => self,
            _ => Self::MANY,
        }
    }
}

/// With whom alone a port is used, if with anybody. Nobody but the daemon's sweeps writes it.
#[repr(transparent)]
pub struct Owner(UnsafeCell<u8>);

impl Owner {
    /// A port of nobody's.
    pub const fn none() -> Self {
        Self(UnsafeCell::new(Users::NONE.0))
    }

    /// Who it is: one, or nobody.
    #[inline(always)]
    pub fn load(&self) -> Users {
        // SAFETY: the cell is a valid byte for as long as `self` lives, and a volatile read
        // tolerates that the daemon writes it.
        Users(unsafe { self.0.get().read_volatile() })
    }

    /// Takes over what a complete sweep has `found` of the port, whose occupancy is marked for the
    /// `epoch` that is to begin wherever its owner does not say all.
    #[inline]
    pub fn settle(&self, found: Users, occupancy: &Occupancy, epoch: u8) {
        let before = self.load();
        if found == before {
            return;
        }
        let alone = if found == Users::MANY {
            Users::NONE
        } else {
            found
        };
        if before != Users::NONE || alone == Users::NONE {
            occupancy.mark(epoch);
            // Whoever does not see the owner of before must see the mark.
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
    use crate::address::{V4, V6};

    const ONE: Users = Users(7);
    const OTHER: Users = Users(9);

    #[test]
    fn one_is_neither_none_nor_many_and_mostly_not_another() {
        let filter = Filter::new([
            0x9e37_79b9_7f4a_7c15,
            0xd1b5_4a32_d192_ed03,
            0x8cb9_2ba7_2f3d_8dd7,
        ]);
        let (mut ipv4, mut ipv6) = (HashSet::new(), HashSet::new());
        for last in 0..=u8::MAX {
            ipv4.insert(Users::one(V4::from([198, 51, 100, last]), &filter).0);
            let mut address = [0; 16];
            address[0] = 0x20;
            address[15] = last;
            ipv6.insert(Users::one(V6::from(address), &filter).0);
        }
        for sorts in [ipv4, ipv6] {
            assert!(sorts.iter().all(|one| one % 2 == 1));
            assert!(sorts.len() > 64, "{}", sorts.len());
        }
    }

    #[test]
    fn users_add_up() {
        assert_eq!(Users::NONE.and(ONE), ONE);
        assert_eq!(ONE.and(Users::NONE), ONE);
        assert_eq!(ONE.and(ONE), ONE);
        assert_eq!(ONE.and(OTHER), Users::MANY);
        assert_eq!(Users::MANY.and(ONE), Users::MANY);
    }

    /// What is marked is what was there before, or is more than an owner can say.
    #[test]
    fn a_port_is_marked_wherever_its_owner_does_not_say_all() {
        for (before, found, after, marked) in [
            (Users::NONE, Users::NONE, Users::NONE, false),
            (Users::NONE, ONE, ONE, false),
            (Users::NONE, Users::MANY, Users::NONE, true),
            (ONE, ONE, ONE, false),
            (ONE, OTHER, OTHER, true),
            (ONE, Users::NONE, Users::NONE, true),
            (ONE, Users::MANY, Users::NONE, true),
        ] {
            let owner = Owner(UnsafeCell::new(before.0));
            let occupancy = Occupancy::new(0);
            owner.settle(found, &occupancy, 5);
            assert_eq!(owner.load(), after, "{before:?} {found:?}");
            assert_eq!(occupancy.fresh(5), marked, "{before:?} {found:?}");
        }
    }
}
