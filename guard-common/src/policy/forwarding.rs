//! What goes through this host, from one host to another.

use crate::{
    abi::{device::Device, page::InForce},
    flow::key::AddressKey,
    frame::{
        address::Address,
        bytes::Packet,
        ethernet::{self, MacAddress},
        ip::Tuple,
        transport::Transport,
    },
    policy::datapath::{Datapath, Locality, RouteKey},
};

/// Whether a received packet goes through this host to another. Broadcast, multicast and anycast
/// count as local, and so does whatever nothing clearly sends on.
#[inline(always)]
pub(crate) fn is_not_local<A: Address>(
    frame: &(impl Packet + ?Sized),
    packet: &RouteKey<A>,
    datapath: &impl Datapath,
) -> bool {
    let Some(device) = datapath.device() else {
        return false;
    };
    if device.forwards == 0
        || device.is_own(packet.destination)
        || packet.destination.is_always_local()
    {
        return false;
    }

    match datapath.locality(&AddressKey::new(packet.destination)) {
        Locality::Local => false,
        // A packet that no mark leads to a socket is discarded by the kernel, or sent on.
        Locality::Diverted => true,
        Locality::Unknown => {
            is_bridged_or_routed(device, ethernet::destination(frame), packet, datapath)
        }
    }
}

/// Whether what passes through is another host's, which would get the answers. It is this host's
/// where its source was translated to one of our addresses, and unless the routes clearly say
/// otherwise.
#[inline(always)]
pub(crate) fn belongs_to_another_host<A: Address>(
    tuple: &Tuple<A>,
    datapath: &impl Datapath,
) -> bool {
    datapath.locality(&AddressKey::new(tuple.local)) != Locality::Local
        && datapath.forwards(&RouteKey::received(tuple, 0))
}

/// Whether a sent frame comes from a guest behind the bridge, or from a container that has an
/// interface of its own above this one: neither sends by a link address of this host. Link
/// addresses may be new to the daemon, and a guest's may carry what was translated to one of our
/// addresses: those tell that it is this host's all the same.
#[inline(always)]
pub(crate) fn is_bridged<A: Address>(
    frame: &(impl Packet + ?Sized),
    tuple: &Tuple<A>,
    datapath: &impl Datapath,
) -> bool {
    datapath.in_force().has(InForce::FORWARDS)
        && datapath
            .device()
            .is_some_and(|device| device.forwards & Device::BRIDGES != 0)
        && ethernet::source(frame).is_some_and(|link| !datapath.is_own_mac(link))
        && datapath.locality(&AddressKey::new(tuple.local)) != Locality::Local
}

/// Whether a received packet is for the other host at `link`.
///
/// The routes alone cannot tell: for what a bridge carries there need not be one, and
/// `bpf_fib_lookup` answers as it does for what ends here. A group's frame reaches both this host
/// and others, but not to end here over TCP (`tcp_v4_rcv`, net/ipv4/tcp_ipv4.c).
#[inline(always)]
fn is_bridged_or_routed<A: Address>(
    device: &Device,
    link: Option<MacAddress>,
    packet: &RouteKey<A>,
    datapath: &impl Datapath,
) -> bool {
    if device.forwards & Device::SHARES_MAC != 0 {
        return true;
    }
    if device.forwards & Device::BRIDGES != 0
        && link.is_some_and(|link| {
            if link.is_group() {
                packet.protocol == Transport::Tcp.number()
            } else {
                !datapath.is_own_mac(link)
            }
        })
    {
        return true;
    }

    datapath.forwards(packet)
}
