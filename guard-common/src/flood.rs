//! What a flood is made of, told from everything else by two look-ups.

use crate::{
    address::Address,
    outcome::{Direction, Judged, Outcome},
    owner::Users,
    packet::Packet,
    parse::Transport,
    plain::{Plain, Start},
    tables::{Tables, Use},
    wire::{VlanTag, ether_type},
};

/// What is known of a packet's local port, and of whom it is used with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Port {
    /// Guarded and not in use with the sender, and there is nothing else to ask: the packet is lost.
    Free,
    /// Guarded and in use with the sender, and there is nothing to ask but what is known of the flow.
    Busy,
    /// Nothing: it is not in the window.
    Unknown,
}

/// Asks no more than the window, and whom the port is in use with. These are the last questions that
/// a flood reaches.
#[inline(always)]
pub(crate) fn ask_window<A: Address>(plain: Plain<A>, tables: &impl Tables) -> Port {
    let port = tables.index(plain.local_port(Direction::Ingress));
    if !tables.config().window().contains(port) {
        Port::Unknown
    } else if in_use(plain.transport, plain.source, port, tables) {
        Port::Busy
    } else {
        Port::Free
    }
}

/// The judgement of a packet behind one VLAN tag to a free port. `None` says nothing about a frame.
#[inline(always)]
pub(crate) fn lost_behind_tag(
    frame: &(impl Packet + ?Sized),
    tables: &impl Tables,
) -> Option<Judged> {
    let start = Start::<VlanTag>::read(frame)?;
    let carried = start.carried();
    if carried == ether_type::IPV4 {
        let plain = start.ipv4()?;
        (ask_window(plain, tables) == Port::Free).then_some(lost(plain))
    } else if carried == ether_type::IPV6 {
        let plain = start.ipv6(frame)?;
        (ask_window(plain, tables) == Port::Free).then_some(lost(plain))
    } else {
        None
    }
}

/// The judgement of a packet to a free port.
#[inline(always)]
pub(crate) fn lost<A: Address>(plain: Plain<A>) -> Judged {
    Judged {
        outcome: Outcome::DropNoFlow,
        family: A::FAMILY,
        protocol: plain.transport.label(),
    }
}

/// Whether a port may be used with this remote address.
#[inline(always)]
pub(crate) fn in_use<A: Address>(
    transport: Transport,
    remote: A,
    port: usize,
    tables: &impl Tables,
) -> bool {
    let purpose = Use::flow(transport);
    if marked(purpose, port, tables) {
        return true;
    }
    let filter = tables.config().filter();
    let owner = tables
        .owner(purpose, port)
        .map_or(Users::NONE, |owner| owner.load());

    // A free port's owner is not told from another's: where some ports are free and some are not,
    // no processor would guess the branch.
    owner == Users::one(remote, &filter) || !filter.reach.decides() && owner != Users::NONE
}

/// Whether a port may be used with anybody.
#[inline(always)]
pub(crate) fn marked(purpose: Use, port: usize, tables: &impl Tables) -> bool {
    let epoch = tables.config().epoch() as u8;
    tables
        .occupancy(purpose, port)
        .is_some_and(|occupancy| occupancy.fresh(epoch))
}
