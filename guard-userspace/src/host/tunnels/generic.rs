//! Tunnels that only generic netlink knows: WireGuard, L2TP, FOU and GUE, TIPC, and what IPVS
//! receives from others of its kind. Constants are those of include/uapi/linux/genetlink.h,
//! wireguard.h, l2tp.h, fou.h, tipc_netlink.h and ip_vs.h.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Context;
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{TunnelPort, other};
use crate::host::netlink::{
    self,
    message::{attribute, behind, each, ipv4, ipv6, request, u8, u16, u16_be, u32},
};

/// `GENL_ID_CTRL`: the family of families.
const CONTROL: u16 = 16;
/// Length of `struct genlmsghdr`: a command, a version and nothing.
const HEADER: usize = 4;
/// All these families are of this version.
const VERSION: u8 = 1;

const GET_FAMILY: u8 = 3;
const WIREGUARD_GET_DEVICE: u8 = 0;
const WIREGUARD_DEVICE_INDEX: u16 = 1;
const L2TP_TUNNEL_GET: u8 = 4;
const FOU_GET: u8 = 3;
const TIPC_BEARER_GET: u8 = 4;
const IPVS_GET_DAEMON: u8 = 11;

/// How to ask a family, and how to read each message of its answer.
type Question = (&'static str, u8, Reader);
/// Reads where something receives.
pub type Reader = fn(&[u8]) -> anyhow::Result<Vec<TunnelPort>>;

/// Families that are asked once for all they have.
const QUESTIONS: [Question; 4] = [
    ("l2tp", L2TP_TUNNEL_GET, l2tp),
    ("fou", FOU_GET, fou),
    ("TIPCv2", TIPC_BEARER_GET, tipc),
    ("IPVS", IPVS_GET_DAEMON, ipvs),
];

/// All that reads answers.
#[cfg(any(test, fuzzing))]
pub const READERS: [Reader; 6] = [l2tp, fou, tipc, ipvs, wireguard, |payload| {
    family(payload).map(|_| Vec::new())
}];

/// Asks every family that the kernel has, and WireGuard for the devices with these indices.
///
/// # Errors
/// When the kernel refuses.
pub fn list(wireguard_devices: impl Iterator<Item = u32>) -> anyhow::Result<Vec<TunnelPort>> {
    // By name, the kernel would load the module of a family that it does not have.
    let mut families = HashMap::new();
    ask(CONTROL, GET_FAMILY, &[], |payload| {
        families.extend(family(payload)?);
        Ok(())
    })
    .context("generic netlink: list families")?;

    let mut ports = Vec::new();
    for (name, command, read) in QUESTIONS {
        if let Some(&id) = families.get(name) {
            ask(id, command, &[], |payload| {
                ports.extend(read(payload)?);
                Ok(())
            })
            .with_context(|| format!("{name}: list tunnels"))?;
        }
    }
    if let Some(&id) = families.get("wireguard") {
        for index in wireguard_devices {
            let by_index = attribute(WIREGUARD_DEVICE_INDEX, &index.to_ne_bytes());
            let answered = ask(id, WIREGUARD_GET_DEVICE, &by_index, |payload| {
                ports.extend(wireguard(payload)?);
                Ok(())
            });
            match answered {
                // It was deleted meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                answered => answered.context("WireGuard: ask for a port")?,
            }
        }
    }

    Ok(ports)
}

fn ask(
    family: u16,
    command: u8,
    attributes: &[u8],
    mut read: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> io::Result<()> {
    let payload = [&[command, VERSION, 0, 0], attributes].concat();
    netlink::dump(
        &netlink::open(NETLINK_GENERIC)?,
        &request(family, &payload),
        |kind, payload| {
            if kind != family {
                return Ok(());
            }
            read(payload).map_err(other)
        },
    )
}

/// The name of a family and its number.
fn family(payload: &[u8]) -> anyhow::Result<Option<(String, u16)>> {
    const ID: u16 = 1;
    const NAME: u16 = 2;
    let (mut id, mut name) = (None, None);
    each(behind(payload, HEADER)?, |kind, value| {
        match kind {
            ID => id = Some(u16(value)?),
            NAME => {
                name = Some(
                    String::from_utf8_lossy(value)
                        .trim_end_matches('\0')
                        .to_owned(),
                );
            }
            _ => {}
        }
        Ok(())
    })?;

    Ok(name.zip(id))
}

fn both_families(kind: &'static str, port: u16) -> Vec<TunnelPort> {
    [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ]
    .into_iter()
    .flat_map(|address| TunnelPort::at(kind, port, address))
    .collect()
}

/// A device receives at all addresses of both families. Keys are in the answer too, and are not
/// looked at.
fn wireguard(payload: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const LISTEN_PORT: u16 = 6;
    let mut port = 0;
    each(behind(payload, HEADER)?, |kind, value| {
        if kind == LISTEN_PORT {
            port = u16(value)?;
        }
        Ok(())
    })?;

    Ok(both_families("wireguard", port))
}

fn l2tp(payload: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const ENCAP_TYPE: u16 = 2;
    const IP_SADDR: u16 = 24;
    const UDP_SPORT: u16 = 26;
    const IP6_SADDR: u16 = 31;
    const UDP: u16 = 0;
    let (mut encapsulation, mut port, mut address) = (UDP, 0, None);
    each(behind(payload, HEADER)?, |kind, value| {
        match kind {
            ENCAP_TYPE => encapsulation = u16(value)?,
            UDP_SPORT => port = u16(value)?,
            IP_SADDR => address = Some(ipv4(value)?),
            IP6_SADDR => address = Some(ipv6(value)?),
            _ => {}
        }
        Ok(())
    })?;
    if encapsulation != UDP {
        return Ok(Vec::new());
    }

    Ok(address
        .and_then(|address| TunnelPort::at("l2tp", port, address))
        .into_iter()
        .collect())
}

fn fou(payload: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const PORT: u16 = 1;
    const FAMILY: u16 = 2;
    const LOCAL_V4: u16 = 6;
    const LOCAL_V6: u16 = 7;
    let (mut port, mut family, mut local) = (0, 0, None);
    each(behind(payload, HEADER)?, |kind, value| {
        match kind {
            PORT => port = u16_be(value)?,
            FAMILY => family = u8(value)?,
            LOCAL_V4 => local = Some(ipv4(value)?),
            LOCAL_V6 => local = Some(ipv6(value)?),
            _ => {}
        }
        Ok(())
    })?;
    let any: IpAddr = if libc::c_int::from(family) == libc::AF_INET6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };

    Ok(TunnelPort::at("fou", port, local.unwrap_or(any))
        .into_iter()
        .collect())
}

/// A bearer over UDP names its end as a `struct sockaddr_in` or `sockaddr_in6`.
fn tipc(payload: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const BEARER: u16 = 1;
    const UDP_OPTIONS: u16 = 4;
    const LOCAL: u16 = 1;
    let mut ports = Vec::new();
    each(behind(payload, HEADER)?, |kind, value| match kind {
        BEARER => each(value, |kind, value| match kind {
            UDP_OPTIONS => each(value, |kind, value| {
                if kind == LOCAL {
                    ports.extend(socket_address("tipc", value)?);
                }
                Ok(())
            }),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;

    Ok(ports)
}

fn socket_address(kind: &'static str, value: &[u8]) -> anyhow::Result<Option<TunnelPort>> {
    let family = libc::c_int::from(u16(value)?);
    let port = u16_be(behind(value, 2)?)?;
    let address = match family {
        libc::AF_INET => ipv4(behind(value, 4)?)?,
        libc::AF_INET6 => ipv6(behind(value, 8)?)?,
        _ => return Ok(None),
    };

    Ok(TunnelPort::at(kind, port, address))
}

/// A backup receives what is sent to a group, at one port a thread.
fn ipvs(payload: &[u8]) -> anyhow::Result<Vec<TunnelPort>> {
    const DAEMON: u16 = 3;
    const STATE: u16 = 1;
    const GROUP: u16 = 5;
    const GROUP6: u16 = 6;
    const PORT: u16 = 7;
    const BACKUP: u32 = 2;
    let (mut state, mut group, mut first) = (0, None, 0);
    each(behind(payload, HEADER)?, |kind, value| match kind {
        DAEMON => each(value, |kind, value| {
            match kind {
                STATE => state = u32(value)?,
                GROUP => group = Some(ipv4(value)?),
                GROUP6 => group = Some(ipv6(value)?),
                PORT => first = u16(value)?,
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    let Some(group) = group.filter(|_| state & BACKUP != 0) else {
        return Ok(Vec::new());
    };
    let threads: u16 = fs::read_to_string("/proc/sys/net/ipv4/vs/sync_ports")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1);

    Ok((0..threads.clamp(1, 64))
        .filter_map(|thread| TunnelPort::at("ipvs", first.checked_add(thread)?, group))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; HEADER], attributes.concat()].concat()
    }

    fn found(read: Reader, attributes: &[Vec<u8>]) -> String {
        let ports = read(&message(attributes)).expect("a message");
        let ports: Vec<_> = ports
            .iter()
            .map(|port| SocketAddr::new(port.address, port.port).to_string())
            .collect();
        ports.join(" ")
    }

    #[test]
    fn where_tunnels_receive() {
        let number = |kind, number: u16| attribute(kind, &number.to_ne_bytes());
        let port = |kind, port: u16| attribute(kind, &port.to_be_bytes());
        let v6 = [&[0xfd][..], &[0; 14], &[1]].concat();
        let end = [
            &2_u16.to_ne_bytes()[..],
            &6118_u16.to_be_bytes(),
            &[192, 0, 2, 1],
            &[0; 8],
        ];
        let end6 = [
            &10_u16.to_ne_bytes()[..],
            &6118_u16.to_be_bytes(),
            &[0; 4],
            &v6,
            &[0; 4],
        ];
        let bearer = |end: &[&[u8]]| attribute(1, &attribute(4, &attribute(1, &end.concat())));
        let daemon = |state: u32| {
            let group = attribute(5, &[224, 0, 0, 81]);
            attribute(
                3,
                &[attribute(1, &state.to_ne_bytes()), group, number(7, 8848)].concat(),
            )
        };
        let table: [(&str, Reader, Vec<Vec<u8>>, &str); 14] = [
            (
                "WireGuard",
                wireguard,
                vec![attribute(3, &[7; 32]), number(6, 51820)],
                "0.0.0.0:51820 [::]:51820",
            ),
            (
                "the rest of a long answer",
                wireguard,
                vec![attribute(8, &[])],
                "",
            ),
            (
                "L2TP",
                l2tp,
                vec![
                    number(2, 0),
                    attribute(24, &[192, 0, 2, 1]),
                    number(26, 1701),
                ],
                "192.0.2.1:1701",
            ),
            (
                "L2TP over IPv6",
                l2tp,
                vec![number(2, 0), attribute(31, &v6), number(26, 1701)],
                "[fd00::1]:1701",
            ),
            (
                "L2TP without UDP",
                l2tp,
                vec![number(2, 1), attribute(24, &[192, 0, 2, 1])],
                "",
            ),
            ("L2TP without an address", l2tp, vec![number(26, 1701)], ""),
            (
                "FOU",
                fou,
                vec![port(1, 5555), attribute(2, &[2])],
                "0.0.0.0:5555",
            ),
            (
                "FOU over IPv6",
                fou,
                vec![port(1, 5555), attribute(2, &[10])],
                "[::]:5555",
            ),
            (
                "FOU at an address",
                fou,
                vec![
                    port(1, 5555),
                    attribute(2, &[2]),
                    attribute(6, &[192, 0, 2, 1]),
                ],
                "192.0.2.1:5555",
            ),
            ("TIPC", tipc, vec![bearer(&end)], "192.0.2.1:6118"),
            (
                "TIPC over IPv6",
                tipc,
                vec![bearer(&end6)],
                "[fd00::1]:6118",
            ),
            (
                "TIPC over Ethernet",
                tipc,
                vec![attribute(1, &attribute(1, b"eth:e0\0"))],
                "",
            ),
            ("an IPVS backup", ipvs, vec![daemon(2)], "224.0.0.81:8848"),
            ("an IPVS master", ipvs, vec![daemon(1)], ""),
        ];
        for (name, read, attributes, expected) in table {
            assert_eq!(found(read, &attributes), expected, "{name}");
        }
    }

    #[test]
    fn families_by_name() {
        let bytes = message(&[attribute(2, b"fou\0"), attribute(1, &33_u16.to_ne_bytes())]);
        assert_eq!(
            family(&bytes).expect("a family"),
            Some(("fou".to_owned(), 33))
        );
        assert_eq!(family(&message(&[])).expect("none"), None);
        // Those of this kernel can be listed by everybody.
        assert!(list(std::iter::empty()).is_ok());
    }

    #[test]
    fn messages_that_are_cut_are_no_panic() {
        let whole = message(&[
            attribute(1, &attribute(4, &attribute(1, &[2; 28]))),
            attribute(3, &attribute(1, &[2; 4])),
            attribute(6, &[1; 4]),
        ]);
        for length in 0..whole.len() {
            for read in READERS {
                let _ = read(&whole[..length]);
            }
        }
    }
}
