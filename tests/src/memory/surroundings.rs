//! What a guard finds around it.

use guard_common::{
    flow::key::{AddressKey, KernelPortKey, SizedKey},
    frame::{ethernet::MacAddress, transport::Transport},
    policy::datapath::{Locality, SocketMatch},
};

use crate::setup;

/// The host around a guard.
pub trait Surroundings {
    /// What the kernel has for a packet of this flow.
    fn socket(&self, transport: Transport, key: SizedKey<'_>) -> SocketMatch;

    /// Whether the user trusts this address.
    fn trusts(&self, address: &AddressKey) -> bool;

    /// Whether the kernel itself receives there.
    fn kernel_receives(&self, _port: &KernelPortKey) -> bool {
        false
    }

    /// What the daemon has told of this address. Without interfaces that forward, nobody asks.
    fn locality(&self, _address: &AddressKey) -> Locality {
        Locality::Local
    }

    /// Whether this is the address of a neighbour.
    fn is_neighbour(&self, address: &AddressKey) -> bool {
        setup::neighbours()
            .into_iter()
            .any(|prefix| setup::covers(prefix, address))
    }

    /// Whether this host has this link address, likewise.
    fn is_own_mac(&self, _address: MacAddress) -> bool {
        true
    }

    /// Whether the kernel's routes send this packet on.
    fn forwards(&self, _source: &AddressKey, _destination: &AddressKey) -> bool {
        false
    }
}

/// No socket is known, the usual prefixes are trusted, and nothing is sent on.
pub(super) struct Usual;

impl Surroundings for Usual {
    fn socket(&self, _transport: Transport, _key: SizedKey<'_>) -> SocketMatch {
        SocketMatch::None
    }

    fn trusts(&self, address: &AddressKey) -> bool {
        setup::trusted()
            .into_iter()
            .any(|prefix| setup::covers(prefix, address))
    }
}
