//! What goes through this host, from one host to another.

use crate::{
    address::Address,
    config::{Config, Device},
    key::AddressKey,
    link::{self, LinkAddress},
    packet::Packet,
    parse::{Transport, Tuple},
    route::RouteKey,
    tables::{Locality, Tables},
};

/// Whether a received packet goes through this host to another. Broadcast, multicast and anycast
/// count as local, and so does whatever nothing clearly sends on.
#[inline(always)]
pub(crate) fn is_for_another<A: Address>(
    frame: &(impl Packet + ?Sized),
    packet: &RouteKey<A>,
    tables: &impl Tables,
) -> bool {
    let Some(device) = tables.device() else {
        return false;
    };
    if device.forwards == 0 || packet.destination.is_own(device) || packet.destination.ends_here() {
        return false;
    }

    match tables.locality(&AddressKey::new(packet.destination)) {
        Locality::Here => false,
        // A packet that no mark leads to a socket is discarded by the kernel, or sent on.
        Locality::Diverted => true,
        Locality::Untold => goes_on(device, link::destination(frame), packet, tables),
    }
}

/// Whether what passes through is another host's, which would get the answers. It is this host's
/// where its source was translated to one of our addresses, and unless the routes clearly say
/// otherwise.
#[inline(always)]
pub(crate) fn is_of_another<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    tables.locality(&AddressKey::new(tuple.local)) != Locality::Here
        && tables.forwards(&RouteKey::received(tuple, 0))
}

/// Whether a sent frame comes from a guest behind the bridge, or from a container that has an
/// interface of its own above this one: neither sends by a link address of this host. Link
/// addresses may be new to the daemon, and a guest's may carry what was translated to one of our
/// addresses: those tell that it is this host's all the same.
#[inline(always)]
pub(crate) fn is_carried<A: Address>(
    frame: &(impl Packet + ?Sized),
    tuple: &Tuple<A>,
    tables: &impl Tables,
) -> bool {
    tables.config().excuses() & Config::FORWARDS != 0
        && tables
            .device()
            .is_some_and(|device| device.forwards & Device::CARRIES != 0)
        && link::source(frame).is_some_and(|link| !tables.is_own_link(link))
        && tables.locality(&AddressKey::new(tuple.local)) != Locality::Here
}

/// Whether a received packet is for the other host at `link`.
///
/// The routes alone cannot tell: for what a bridge carries there need not be one, and
/// `bpf_fib_lookup` answers as it does for what ends here. A group's frame reaches both this host
/// and others, but not to end here over TCP (`tcp_v4_rcv`, net/ipv4/tcp_ipv4.c).
#[inline(always)]
fn goes_on<A: Address>(
    device: &Device,
    link: Option<LinkAddress>,
    packet: &RouteKey<A>,
    tables: &impl Tables,
) -> bool {
    if device.forwards & Device::SHARES != 0 {
        return true;
    }
    if device.forwards & Device::CARRIES != 0
        && link.is_some_and(|link| {
            if link.is_group() {
                packet.protocol == Transport::Tcp.number()
            } else {
                !tables.is_own_link(link)
            }
        })
    {
        return true;
    }

    tables.forwards(packet)
}
