//! What goes through this host, from one host to another.

use crate::{
    address::Address,
    config::{Config, Device},
    key::{AddressKey, FlowKey},
    link::{self, LinkAddress},
    packet::Packet,
    parse::Tuple,
    tables::Tables,
};

/// Whether a received packet goes through this host to another. Broadcast, multicast and anycast
/// count as local, and so does whatever nothing clearly sends on.
#[inline(always)]
pub(crate) fn is_for_another<A: Address>(
    frame: &(impl Packet + ?Sized),
    tuple: &Tuple<A>,
    tables: &impl Tables,
) -> bool {
    let Some(device) = tables.device() else {
        return false;
    };
    device.forwards != 0
        && !tuple.local.is_own(device)
        && !tuple.local.ends_here()
        && !tables.is_local(&AddressKey::new(tuple.local))
        && goes_on(device, link::destination(frame), tuple, tables)
}

/// Whether what passes through is another host's, which would get the answers. It is this host's
/// where its source was translated to one of our addresses, and unless the routes clearly say
/// otherwise.
#[inline(always)]
pub(crate) fn is_of_another<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    !tables.is_local(&AddressKey::new(tuple.local))
        && tables.forwards(tuple.transport, A::FlowKey::new(tuple).sized())
}

/// Whether a sent frame comes from a guest behind the bridge, or from a container that has an
/// interface of its own above this one: neither sends by a link address of this host.
#[inline(always)]
pub(crate) fn is_carried(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> bool {
    tables.config().excuses() & Config::FORWARDS != 0
        && tables
            .device()
            .is_some_and(|device| device.forwards & Device::CARRIES != 0)
        && !is_own(link::source(frame), tables)
}

/// Whether the other host at `link` is the one that the packet is for, or from.
///
/// The routes alone cannot tell: for what a bridge carries there need not be one, and
/// `bpf_fib_lookup` answers as it does for what ends here.
#[inline(always)]
fn goes_on<A: Address>(
    device: &Device,
    link: Option<LinkAddress>,
    tuple: &Tuple<A>,
    tables: &impl Tables,
) -> bool {
    let ways = device.forwards;
    if ways & (Device::CARRIES | Device::SHARES) != 0 {
        let own = u32::from(is_own(link, tables));
        let group = link.map_or(0, LinkAddress::group_bit);
        // A group's frame reaches both this host and others. Where the host routes, it knows.
        let theirs = (group & !(ways / Device::ROUTES)) | (!group & !own);
        if (ways / Device::SHARES | ways / Device::CARRIES & theirs) & 1 != 0 {
            return true;
        }
    }

    tables.forwards(tuple.transport, A::FlowKey::new(tuple).sized())
}

#[inline(always)]
fn is_own(link: Option<LinkAddress>, tables: &impl Tables) -> bool {
    link.is_some_and(|link| tables.is_own_link(link))
}
