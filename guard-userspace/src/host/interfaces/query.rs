//! Asks the kernel for interfaces, over rtnetlink.

use std::{net::IpAddr, sync::mpsc, thread};

use anyhow::Context;
use aya::programs::loaded_programs;
use futures_util::{Stream, StreamExt, TryStreamExt, future::ready};
use guard_common::frame::ethernet::MacAddress;
use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, Prop, XdpAttached},
};
use rtnetlink::{Handle, MulticastGroup};

use super::{Counted, Interface, Statistics, XdpProgram, pick, readable::Readable, routes};
use crate::{base::failure::Failure, host::hooks::XdpHook};

/// Opens an rtnetlink connection into the calling thread's network namespace.
///
/// Must be called in a tokio runtime, which then carries the connection until every clone of the
/// handle is dropped.
///
/// # Errors
/// When the kernel refuses the socket.
pub fn connect() -> anyhow::Result<Handle> {
    let (connection, handle, _) =
        rtnetlink::new_connection_with_socket::<Readable>().context("rtnetlink: open a socket")?;
    tokio::spawn(connection);

    Ok(handle)
}

/// As [`connect`], with the questions asked by a thread of their own: while the kernel changes its
/// interfaces, questions about them have to wait, for seconds where a driver is slow.
///
/// # Errors
/// When the kernel refuses the socket, or starts no thread.
pub fn connect_aside() -> anyhow::Result<Handle> {
    let (told, handle) = mpsc::channel();
    let ask = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(told.send(Err(error.into()))),
        };
        runtime.block_on(async {
            let connected = rtnetlink::new_connection_with_socket::<Readable>()
                .context("rtnetlink: open a socket");
            match connected {
                Ok((connection, handle, _)) => {
                    // The caller waits for it.
                    drop(told.send(Ok(handle)));
                    connection.await;
                }
                Err(error) => drop(told.send(Err(error))),
            }
        });
    };
    thread::Builder::new()
        .name("rtnetlink".to_owned())
        .spawn(ask)
        .context("start a thread that asks about interfaces")?;

    handle
        .recv()
        .context("the thread that asks about interfaces has ended")?
}

/// Tells when links, addresses, routes to this host or to neighbours, rules or filters of the calling thread's network
/// namespace change: a message each, whatever it says.
///
/// # Errors
/// When the kernel refuses the socket.
pub fn changes() -> anyhow::Result<impl Stream<Item = ()>> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Tc,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ];
    let (connection, _, messages) =
        rtnetlink::new_multicast_connection_with_socket::<Readable>(&groups)
            .context("rtnetlink: listen for changes")?;
    tokio::spawn(connection);

    Ok(messages.filter_map(|(message, _)| ready(concerns_us(&message).then_some(()))))
}

/// Routers learn of routes without end, hardly any of which lead here or to neighbours.
fn concerns_us(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => routes::concerns_us(route),
        _ => true,
    }
}

/// Every interface of the namespace, in the order of their indices.
///
/// # Errors
/// When the kernel refuses to list links or addresses.
pub async fn list(netlink: &Handle) -> anyhow::Result<Vec<Interface>> {
    let links: Vec<_> = netlink
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .context("rtnetlink: list links")?;
    let addresses: Vec<_> = netlink
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .context("rtnetlink: list addresses")?;

    let mut interfaces: Vec<_> = links.iter().map(interface).collect();
    interfaces.sort_by_key(|interface| interface.index);
    for (index, address) in addresses.iter().filter_map(own_address) {
        if let Ok(place) = interfaces.binary_search_by_key(&index, |interface| interface.index) {
            interfaces[place].addresses.push(address);
        }
    }

    Ok(interfaces)
}

/// The interface called `name`.
///
/// # Errors
/// When there is none, naming those there are: exit code 69.
pub async fn find(netlink: &Handle, name: &str) -> Result<Interface, Failure> {
    pick(&list(netlink).await?, name)
}

/// The interface with this index, and what it has counted. Nothing where there is none.
///
/// # Errors
/// When the kernel refuses, or counts nothing.
pub async fn look(netlink: &Handle, index: u32) -> Counted {
    let answer: Result<Option<LinkMessage>, _> = netlink
        .link()
        .get()
        .match_index(index)
        .execute()
        .try_next()
        .await;
    let link = match answer {
        Ok(Some(link)) => link,
        Ok(None) => return Ok(None),
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => {
            return Ok(None);
        }
        Err(error) => return Err(error).context("rtnetlink: look at a link"),
    };
    let statistics = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counts) => Some(Statistics {
                received: counts.rx_packets,
                sent: counts.tx_packets,
            }),
            _ => None,
        });

    Ok(Some((
        interface(&link),
        statistics.context("rtnetlink: a link without statistics")?,
    )))
}

/// The name of the BPF program `id`, where the caller may see it and it has one.
pub fn program_name(id: u32) -> Option<String> {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
}

pub(super) fn interface(link: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        altnames: Vec::new(),
        mac: None,
        link_type: link.header.link_layer_type.into(),
        kind: None,
        up: link.header.flags.contains(LinkFlags::Up),
        promiscuous: false,
        mtu: 0,
        max_mtu: None,
        addresses: Vec::new(),
        controller: None,
        lower: None,
        xdp: Vec::new(),
    };
    let mut elsewhere = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::PropList(properties) => interface.altnames = altnames(properties),
            LinkAttribute::Address(address) => {
                interface.mac = address.as_slice().try_into().ok().map(MacAddress::new);
            }
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::MaxMtu(mtu) => interface.max_mtu = Some(*mtu).filter(|mtu| *mtu > 0),
            LinkAttribute::Promiscuity(count) => interface.promiscuous = *count != 0,
            LinkAttribute::LinkInfo(infos) => interface.kind = kind(infos),
            LinkAttribute::Controller(index) => interface.controller = Some(*index),
            LinkAttribute::Link(index) => interface.lower = Some(*index),
            LinkAttribute::Xdp(attributes) => interface.xdp = programs(attributes),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            _ => {}
        }
    }
    // A veth names its peer, which it does not sit on, and both may be in other namespaces, where
    // the same index is another interface.
    if elsewhere || interface.kind.as_deref() == Some("veth") {
        interface.lower = None;
    }

    interface
}

fn altnames(properties: &[Prop]) -> Vec<String> {
    properties
        .iter()
        .filter_map(|property| match property {
            Prop::AltIfName(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn programs(attributes: &[LinkXdp]) -> Vec<XdpProgram> {
    let mut programs: Vec<XdpProgram> = attributes
        .iter()
        .filter_map(|attribute| {
            let (hook, id) = match attribute {
                LinkXdp::DrvProgId(id) => (Some(XdpHook::Native), *id),
                LinkXdp::SkbProgId(id) => (Some(XdpHook::Generic), *id),
                LinkXdp::HwProgId(id) => (None, *id),
                _ => return None,
            };
            Some(XdpProgram { hook, id })
        })
        .collect();
    if programs.is_empty() {
        programs.extend(lone_program(attributes));
    }

    programs
}

/// The program of a kernel that names the mode and the id separately.
fn lone_program(attributes: &[LinkXdp]) -> Option<XdpProgram> {
    let id = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    })?;
    let hook = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(Some(XdpHook::Native)),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Some(XdpHook::Generic)),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(None),
        _ => None,
    })?;

    Some(XdpProgram { hook, id })
}

/// The index of an interface and one of its own addresses. One that another host may have first is
/// not its own yet, or never (RFC 4862, section 5.4), unless it is used before that is known.
pub(super) fn own_address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let flags = message.header.flags;
    if flags.contains(AddressHeaderFlags::Tentative)
        && !flags.contains(AddressHeaderFlags::Optimistic)
    {
        return None;
    }
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(own) => local = Some(*own),
            AddressAttribute::Address(either) => address = Some(*either),
            _ => {}
        }
    }
    // On a point-to-point link the address is the peer's, and only the local one is the host's;
    // IPv6 gives a local one there alone.
    let own: IpAddr = local.or(address)?;

    Some((
        message.header.index,
        IpNet::new(own, message.header.prefix_len).ok()?,
    ))
}
