//! Tunnels that are devices, by rtnetlink. Constants are those of include/uapi/linux/if_link.h and,
//! for AMT, amt.h.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::{TunnelPort, other};
use crate::host::netlink::{
    self,
    message::{behind, each, ipv4, ipv6, request, u8, u16_be, u32},
};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;

/// Length of `struct ifinfomsg`, and where its index and flags are.
const HEADER: usize = 16;
const INDEX: usize = 4;
const FLAGS: usize = 8;
const IFF_UP: u32 = 1;

const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A tunnel that is up. One that is down has no socket, so its port is anybody's.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TunnelDevice {
    /// Its index.
    pub index: u32,
    /// Where it receives, as far as its link tells.
    pub ports: Vec<TunnelPort>,
    /// Whether WireGuard has to be asked for its port.
    pub is_wireguard: bool,
}

/// Every tunnel that is up.
pub fn list() -> io::Result<Vec<TunnelDevice>> {
    let mut devices = Vec::new();
    netlink::dump(
        &netlink::open(NETLINK_ROUTE)?,
        &request(RTM_GETLINK, &[0; HEADER]),
        |kind, payload| {
            if kind == RTM_NEWLINK {
                devices.extend(read(payload).map_err(other)?);
            }
            Ok(())
        },
    )?;

    Ok(devices)
}

/// Reads one link, and returns it where it is a tunnel that is up.
pub fn read(payload: &[u8]) -> anyhow::Result<Option<TunnelDevice>> {
    let attributes = behind(payload, HEADER)?;
    if u32(&payload[FLAGS..])? & IFF_UP == 0 {
        return Ok(None);
    }
    let (mut kind, mut data) = (Vec::new(), Vec::new());
    each(attributes, |attribute, value| match attribute {
        IFLA_LINKINFO => each(value, |attribute, value| {
            match attribute {
                IFLA_INFO_KIND => kind = value.to_vec(),
                IFLA_INFO_DATA => data = value.to_vec(),
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    let kind = kind.strip_suffix(b"\0").unwrap_or(&kind);
    let device = TunnelDevice {
        index: u32(&payload[INDEX..])?,
        is_wireguard: kind == b"wireguard",
        ports: ports(kind, &data)?,
    };

    Ok((device.is_wireguard || !device.ports.is_empty()).then_some(device))
}

fn ports(kind: &[u8], data: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    match kind {
        b"vxlan" => vxlan(data),
        b"geneve" => geneve(data),
        b"bareudp" => bareudp(data),
        b"gtp" => gtp(data),
        b"amt" => amt(data),
        b"pfcp" => Ok(at_each("pfcp", PFCP, [ANY_V4])),
        _ => Ok(Vec::new()),
    }
}

fn at_each(
    kind: &'static str,
    port: u16,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Vec<TunnelPort> {
    addresses
        .into_iter()
        .filter_map(|address| TunnelPort::at(kind, port, address))
        .collect()
}

/// Of one family, or of both where each packet says where it goes.
fn families(ipv6: bool, both: bool) -> impl Iterator<Item = IpAddr> {
    let v4 = (both || !ipv6).then_some(ANY_V4);
    let v6 = (both || ipv6).then_some(ANY_V6);

    v4.into_iter().chain(v6)
}

/// `vxlan_open`, drivers/net/vxlan/vxlan_core.c: IPv6 where the device names an address of it.
fn vxlan(data: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const PORT: u16 = 15;
    const GROUP6: u16 = 16;
    const LOCAL6: u16 = 17;
    const COLLECT_METADATA: u16 = 25;
    let (mut port, mut is_v6, mut both) = (0, false, false);
    each(data, |kind, value| {
        match kind {
            PORT => port = u16_be(value)?,
            GROUP6 | LOCAL6 => is_v6 = true,
            COLLECT_METADATA => both = u8(value)? != 0,
            _ => {}
        }
        Ok(())
    })?;

    Ok(at_each("vxlan", port, families(is_v6, both)))
}

/// `geneve_open`, drivers/net/geneve.c.
fn geneve(data: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const PORT: u16 = 5;
    const COLLECT_METADATA: u16 = 6;
    const REMOTE6: u16 = 7;
    let (mut port, mut is_v6, mut both) = (0, false, false);
    each(data, |kind, value| {
        match kind {
            PORT => port = u16_be(value)?,
            // A flag without a value.
            COLLECT_METADATA => both = true,
            REMOTE6 => is_v6 = true,
            _ => {}
        }
        Ok(())
    })?;

    Ok(at_each("geneve", port, families(is_v6, both)))
}

/// `bareudp_create_sock`, drivers/net/bareudp.c: one socket for both families.
fn bareudp(data: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const PORT: u16 = 1;
    let mut port = 0;
    each(data, |kind, value| {
        if kind == PORT {
            port = u16_be(value)?;
        }
        Ok(())
    })?;

    Ok(at_each("bareudp", port, families(false, true)))
}

/// `gtp_create_sock`, drivers/net/gtp.c: the well-known ports, at the address the device names.
/// Where a program has made the sockets, they are at these ports too.
fn gtp(data: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const GTP0: u16 = 3386;
    const GTP1U: u16 = 2152;
    const LOCAL: u16 = 7;
    const LOCAL6: u16 = 8;
    let mut local = ANY_V4;
    each(data, |kind, value| {
        match kind {
            LOCAL => local = ipv4(value)?,
            LOCAL6 => local = ipv6(value)?,
            _ => {}
        }
        Ok(())
    })?;

    Ok([GTP0, GTP1U]
        .into_iter()
        .flat_map(|port| at_each("gtp", port, [local]))
        .collect())
}

/// A relay receives at the one port, and a gateway at the other: include/uapi/linux/amt.h.
fn amt(data: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const MODE: u16 = 1;
    const RELAY_PORT: u16 = 2;
    const GATEWAY_PORT: u16 = 3;
    const RELAY: u32 = 1;
    let (mut mode, mut relay, mut gateway) = (0, 0, 0);
    each(data, |kind, value| {
        match kind {
            MODE => mode = u32(value)?,
            RELAY_PORT => relay = u16_be(value)?,
            GATEWAY_PORT => gateway = u16_be(value)?,
            _ => {}
        }
        Ok(())
    })?;
    let port = if mode == RELAY { relay } else { gateway };

    Ok(at_each("amt", port, [ANY_V4]))
}

/// `PFCP_PORT`, include/net/pfcp.h.
const PFCP: u16 = 8805;

#[cfg(test)]
mod tests {
    use super::*;

    /// One attribute.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = value.len() as u16 + 4;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(kind: &str, up: bool, data: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[INDEX..INDEX + 4].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[FLAGS..FLAGS + 4].copy_from_slice(&u32::from(up).to_ne_bytes());
        let info = [
            attribute(IFLA_INFO_KIND, format!("{kind}\0").as_bytes()),
            attribute(IFLA_INFO_DATA, &data.concat()),
        ];
        bytes.extend(attribute(3, b"x0\0"));
        // As newer kernels write it, with the flag of what is nested.
        bytes.extend(attribute(IFLA_LINKINFO | 0x8000, &info.concat()));
        bytes
    }

    fn found(message: &[u8]) -> String {
        let device = read(message).expect("a link").unwrap_or_default();
        let ports: Vec<_> = device
            .ports
            .iter()
            .map(|port| std::net::SocketAddr::new(port.address, port.port).to_string())
            .collect();
        ports.join(" ")
    }

    #[test]
    fn where_tunnels_receive() {
        let port = |kind, port: u16| attribute(kind, &port.to_be_bytes());
        let v6 = [0xfd; 16];
        let table = [
            (
                "vxlan",
                link("vxlan", true, &[port(15, 4789)]),
                "0.0.0.0:4789",
            ),
            (
                "vxlan that is down",
                link("vxlan", false, &[port(15, 4789)]),
                "",
            ),
            (
                "vxlan over IPv6",
                link("vxlan", true, &[attribute(16, &v6), port(15, 4789)]),
                "[::]:4789",
            ),
            (
                "vxlan from an address of IPv6",
                link("vxlan", true, &[attribute(17, &v6), port(15, 8472)]),
                "[::]:8472",
            ),
            (
                "vxlan of flows",
                link("vxlan", true, &[port(15, 4789), attribute(25, &[1])]),
                "0.0.0.0:4789 [::]:4789",
            ),
            (
                "vxlan without metadata",
                link("vxlan", true, &[port(15, 4789), attribute(25, &[0])]),
                "0.0.0.0:4789",
            ),
            (
                "geneve",
                link("geneve", true, &[port(5, 6081)]),
                "0.0.0.0:6081",
            ),
            (
                "geneve over IPv6",
                link("geneve", true, &[attribute(7, &v6), port(5, 6081)]),
                "[::]:6081",
            ),
            (
                "geneve of flows",
                link("geneve", true, &[port(5, 6081), attribute(6, &[])]),
                "0.0.0.0:6081 [::]:6081",
            ),
            (
                "bareudp",
                link("bareudp", true, &[port(1, 6635)]),
                "0.0.0.0:6635 [::]:6635",
            ),
            ("gtp", link("gtp", true, &[]), "0.0.0.0:3386 0.0.0.0:2152"),
            (
                "gtp at an address",
                link("gtp", true, &[attribute(7, &[192, 0, 2, 1])]),
                "192.0.2.1:3386 192.0.2.1:2152",
            ),
            (
                "an AMT relay",
                link(
                    "amt",
                    true,
                    &[
                        attribute(1, &1_u32.to_ne_bytes()),
                        port(2, 2268),
                        port(3, 2269),
                    ],
                ),
                "0.0.0.0:2268",
            ),
            (
                "an AMT gateway",
                link(
                    "amt",
                    true,
                    &[
                        attribute(1, &0_u32.to_ne_bytes()),
                        port(2, 2268),
                        port(3, 2269),
                    ],
                ),
                "0.0.0.0:2269",
            ),
            ("pfcp", link("pfcp", true, &[]), "0.0.0.0:8805"),
            ("another kind", link("veth", true, &[port(15, 4789)]), ""),
            ("no port", link("vxlan", true, &[]), ""),
        ];
        for (name, message, expected) in table {
            assert_eq!(found(&message), expected, "{name}");
        }
        let device = read(&link("wireguard", true, &[])).expect("a link");
        let device = device.expect("WireGuard is to be asked");
        assert!(device.is_wireguard && device.index == 7 && device.ports.is_empty());
        assert_eq!(read(&link("wireguard", false, &[])).expect("a link"), None);
    }

    #[test]
    fn a_message_that_is_cut_is_an_error_or_nothing() {
        let whole = link("vxlan", true, &[attribute(15, &4789_u16.to_be_bytes())]);
        for length in 0..whole.len() {
            if let Ok(Some(device)) = read(&whole[..length]) {
                assert!(
                    device.ports.iter().all(|port| port.port == 4789),
                    "{length}"
                );
            }
        }
        assert!(read(&whole[..10]).is_err());
    }
}
