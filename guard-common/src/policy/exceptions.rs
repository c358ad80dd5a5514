//! What is asked before a packet that answers nothing is dropped.

use crate::{
    abi::page::InForce,
    flow::key::{AddressKey, FlowAddress, FlowKey, KernelPortKey},
    frame::{address::Address, bytes::Packet, ip::Tuple},
    outcome::{Outcome, Tally},
    policy::{
        datapath::{Datapath, RouteKey, SocketMatch},
        forwarding::is_not_local,
    },
};

/// Why a packet that answers nothing passes all the same: it is none of this host's business, or
/// the user trusts the sender. Neither is asked where it cannot apply.
#[inline(always)]
pub(crate) fn exception<A: Address>(
    frame: &(impl Packet + ?Sized),
    packet: &RouteKey<A>,
    datapath: &impl Datapath,
) -> Option<Outcome> {
    let in_force = datapath.in_force();
    if in_force.has(InForce::FORWARDS) && is_not_local(frame, packet, datapath) {
        return Some(Outcome::PassNotLocal);
    }
    if in_force.has(InForce::SOURCES) && datapath.trusts(&AddressKey::new(packet.source)) {
        return Some(Outcome::PassTrusted);
    }

    None
}

/// Whether a packet is for a port and an address at which the kernel itself receives: a tunnel's,
/// which takes packets of any peer.
#[inline(always)]
pub(crate) fn is_for_kernel<A: Address>(
    tuple: &Tuple<A>,
    port: usize,
    datapath: &impl Datapath,
) -> bool {
    let at = |address: A| datapath.kernel_receives(&KernelPortKey::new(address, tuple.local_port));

    datapath.in_force().has(InForce::KERNEL_PORTS)
        && datapath.guarded().kernel_receives(tuple.transport, port)
        && (at(A::UNSPECIFIED) || at(tuple.local))
}

/// In monitor mode the packet passes, and the socket that takes it would not have had it.
#[inline(always)]
pub(crate) fn count_would_drop<A: FlowAddress>(tuple: &Tuple<A>, datapath: &impl Datapath) {
    match datapath.socket(tuple.transport, A::FlowKey::new(tuple).sized()) {
        SocketMatch::None => {}
        SocketMatch::Connected => datapath.tally(Tally::WouldDropConnected),
        SocketMatch::Listener => datapath.tally(Tally::WouldDropListener),
    }
}
