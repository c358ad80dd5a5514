//! What is asked before a packet that answers nothing is dropped.

use crate::{
    address::Address,
    config::Config,
    key::{AddressKey, FlowKey, KernelPortKey},
    onward::is_for_another,
    outcome::Outcome,
    packet::Packet,
    parse::Tuple,
    route::RouteKey,
    tables::{Socket, Tables, Tally},
};

/// Why a packet that answers nothing passes all the same: it is none of this host's business, or
/// the user trusts the sender. Neither is asked where it cannot apply.
#[inline(always)]
pub(crate) fn excuse<A: Address>(
    frame: &(impl Packet + ?Sized),
    packet: &RouteKey<A>,
    tables: &impl Tables,
) -> Option<Outcome> {
    let excuses = tables.config().excuses();
    if excuses & Config::FORWARDS != 0 && is_for_another(frame, packet, tables) {
        return Some(Outcome::PassNotLocal);
    }
    if excuses & Config::TRUSTS != 0 && tables.trusts(&AddressKey::new(packet.source)) {
        return Some(Outcome::PassTrusted);
    }

    None
}

/// Whether a packet is for a port and an address at which the kernel itself receives: a tunnel's,
/// which hears every peer.
#[inline(always)]
pub(crate) fn is_for_kernel<A: Address>(
    tuple: &Tuple<A>,
    port: usize,
    tables: &impl Tables,
) -> bool {
    let at = |address: A| tables.kernel_receives(&KernelPortKey::new(address, tuple.local_port));

    tables.config().excuses() & Config::KERNEL_PORTS != 0
        && tables.guarded().kernel_receives(tuple.transport, port)
        && (at(A::UNSPECIFIED) || at(tuple.local))
}

/// In monitor mode the packet passes, and whoever takes it would have lost it.
#[inline(always)]
pub(crate) fn tally_would_drop<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) {
    match tables.socket(tuple.transport, A::FlowKey::new(tuple).sized()) {
        Socket::None => {}
        Socket::Connected => tables.tally(Tally::WouldDropConnected),
        Socket::Listener => tables.tally(Tally::WouldDropListener),
    }
}
