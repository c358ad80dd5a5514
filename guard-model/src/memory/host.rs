//! The host around a guard: its sockets, its addresses and its routes.

use guard_common::{
    flow::key::{AddressKey, KernelPortKey, SizedKey},
    frame::{ethernet::MacAddress, transport::Transport},
    policy::datapath::{Locality, SocketMatch},
};

use crate::setup;

/// The host around a guard. Without more it has no sockets, trusts the usual prefixes and forwards
/// nothing.
pub trait Host {
    /// What the kernel has for a packet of this flow.
    fn socket(&self, _transport: Transport, _key: SizedKey<'_>) -> SocketMatch {
        SocketMatch::None
    }

    /// Whether the user trusts this address.
    fn trusts(&self, address: &AddressKey) -> bool {
        setup::trusted()
            .into_iter()
            .any(|prefix| setup::covers(prefix, address))
    }

    /// Whether the kernel itself receives there.
    fn kernel_receives(&self, _port: &KernelPortKey) -> bool {
        false
    }

    /// What the daemon has written about this address. It is read only where an interface forwards.
    fn locality(&self, _address: &AddressKey) -> Locality {
        Locality::Local
    }

    /// Whether this is the address of a neighbour.
    fn is_neighbour(&self, address: &AddressKey) -> bool {
        setup::neighbours()
            .into_iter()
            .any(|prefix| setup::covers(prefix, address))
    }

    /// Whether this host has this MAC address, likewise.
    fn is_own_mac(&self, _address: MacAddress) -> bool {
        true
    }

    /// Whether the kernel's routes forward this packet.
    fn forwards(&self, _source: &AddressKey, _destination: &AddressKey) -> bool {
        false
    }
}

/// A host as it is without more.
pub(super) struct Usual;

impl Host for Usual {}
