//! Settings with a grammar of their own: ports, prefixes, addresses, capacities.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::{Component, Path},
    str::FromStr,
};

use anyhow::{Context, bail, ensure};
use guard_common::frame::transport::Transport;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::host::range::{PortRange, parse_port};

/// Ports that unsolicited packets may reach: `PORT[-PORT]/tcp|udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Exposed {
    /// For which transport: TCP, or UDP, which takes UDP-Lite with it.
    pub transport: Transport,
    /// Which ports.
    pub ports: PortRange,
}

impl FromStr for Exposed {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        require_one(text)?;
        let Some((ports, protocol)) = text.split_once('/') else {
            bail!("{text:?} names no protocol; write {text}/tcp or {text}/udp");
        };
        let Some(transport) = transport(protocol) else {
            ensure!(
                transport(ports).is_none(),
                "{text:?} begins with the protocol; write {protocol}/{ports}"
            );
            bail!("{protocol:?} cannot be exposed; write tcp or udp");
        };
        if let Some((first, last)) = ports.split_once(':') {
            bail!("{text:?} is no range; write {first}-{last}/{protocol}");
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));

        Ok(Self {
            transport,
            ports: PortRange::new(parse_port(first)?, parse_port(last)?)?,
        })
    }
}

fn transport(text: &str) -> Option<Transport> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        _ => None,
    }
}

/// Refuses what stands for several values where one is expected.
fn require_one(text: &str) -> anyhow::Result<()> {
    if text.contains(',') {
        let each: Vec<_> = text.split(',').map(str::trim).collect();
        bail!(
            "{text:?} is more than one; give each by itself: {}",
            each.join(" and ")
        );
    }

    Ok(())
}

/// A port, as the remote one of what is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct PortNumber(NonZeroU16);

impl PortNumber {
    /// The number of the port.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<i64> for PortNumber {
    type Error = anyhow::Error;

    fn try_from(port: i64) -> anyhow::Result<Self> {
        u16::try_from(port)
            .ok()
            .and_then(NonZeroU16::new)
            .map(Self)
            .with_context(|| format!("{port} is no port; ports are 1 to 65535"))
    }
}

impl FromStr for PortNumber {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        require_one(text)?;

        i64::from(parse_port(text)?).try_into()
    }
}

impl fmt::Display for PortNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where to listen: `ADDR:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let example = SocketAddr::from((Ipv4Addr::LOCALHOST, 9750));
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>()
            && !unbracketed(text)
        {
            bail!(
                "{text:?} names no port; write {}",
                SocketAddr::new(address, example.port())
            );
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            match text.parse::<u16>() {
                Ok(port) => bail!(
                    "{text:?} names no address; write {}",
                    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
                ),
                Err(_) => bail!("{text:?} names no address and port; write {example}"),
            }
        };
        let port = parse_port(port)?;
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match host {
            // A name, but everybody's hosts give it the same address.
            "localhost" => Ok(Self(local)),
            "" | "*" => bail!(
                "{text:?} names no address; write {local} for this host alone, {} for all",
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
            ),
            host => match host.parse::<IpAddr>() {
                Ok(address) => bail!(
                    "{text:?} wants brackets; write {}",
                    SocketAddr::new(address, port)
                ),
                Err(_) => bail!("{host:?} is no address; write that of this host, as in {local}"),
            },
        }
    }
}

/// Whether the last part of an IPv6 address may be meant for a port.
fn unbracketed(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        host.parse::<Ipv6Addr>().is_ok() && port.len() == 4 && port.parse::<u16>().is_ok()
    })
}

impl TryFrom<String> for Listen {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.ports.first(), self.ports.last());
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp | Transport::UdpLite => "udp",
        };
        if first == last {
            write!(f, "{first}/{transport}")
        } else {
            write!(f, "{first}-{last}/{transport}")
        }
    }
}

impl TryFrom<String> for Exposed {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<Exposed> for String {
    fn from(exposed: Exposed) -> Self {
        exposed.to_string()
    }
}

/// A network whose hosts pass the guard: `ADDRESS/LENGTH`, without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Trusted(pub IpNet);

impl FromStr for Trusted {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        require_one(text)?;
        if let Ok(address) = text.parse::<IpAddr>() {
            bail!(
                "{text} has no prefix length; write {}",
                IpNet::from(address)
            );
        }
        let prefix: IpNet = text.parse().with_context(|| {
            format!("{text:?} is no prefix; write ADDRESS/LENGTH, as in 192.0.2.0/24")
        })?;
        ensure!(
            prefix == prefix.trunc(),
            "{text} has host bits; write {}",
            prefix.trunc()
        );
        if let Some(ipv4) = mapped(prefix) {
            bail!("{text} stands for IPv4, whose packets have no such source; write {ipv4}");
        }

        Ok(Self(prefix))
    }
}

/// The IPv4 prefix that one of IPv4-mapped addresses (RFC 4291, section 2.5.5.2) stands for.
fn mapped(prefix: IpNet) -> Option<Ipv4Net> {
    const MAPPED: u8 = 96;

    let IpNet::V6(prefix) = prefix else {
        return None;
    };
    let address = prefix.addr().to_ipv4_mapped()?;
    let length = prefix.prefix_len().checked_sub(MAPPED)?;

    Ipv4Net::new(address, length).ok()
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Trusted {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

/// How many flows each flow map holds: a power of two from 1,024 to 16,777,216.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct MaxFlows(u32);

impl MaxFlows {
    const LEAST: u32 = 1 << 10;
    const MOST: u32 = 1 << 24;

    /// The number of flows.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for MaxFlows {
    fn default() -> Self {
        Self(65_536)
    }
}

impl TryFrom<u64> for MaxFlows {
    type Error = anyhow::Error;

    fn try_from(flows: u64) -> anyhow::Result<Self> {
        let (least, most) = (u64::from(Self::LEAST), u64::from(Self::MOST));
        ensure!(
            (least..=most).contains(&flows),
            "{flows} flows are out of bounds; write a power of two from {least} to {most}, as {}",
            if flows < least { least } else { most }
        );
        let above = flows.next_power_of_two();
        ensure!(
            flows == above,
            "{flows} is no power of two; the nearest are {} and {above}",
            above / 2
        );

        Ok(Self(u32::try_from(flows)?))
    }
}

impl FromStr for MaxFlows {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let flows: u64 = text
            .parse()
            .with_context(|| format!("{text:?} is no number of flows"))?;

        flows.try_into()
    }
}

impl fmt::Display for MaxFlows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a folder is named in one way alone: from the root, and never back up.
pub fn is_plain(folder: &Path) -> bool {
    folder.is_absolute()
        && folder
            .components()
            .all(|component| component != Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How the value reads back, or a part of the error.
    fn check<T: FromStr<Err = anyhow::Error> + fmt::Display>(table: &[(&str, Result<&str, &str>)]) {
        for &(text, expected) in table {
            match (text.parse::<T>(), expected) {
                (Ok(value), Ok(shown)) => assert_eq!(value.to_string(), shown, "{text:?}"),
                (Err(error), Err(part)) => {
                    assert!(format!("{error:#}").contains(part), "{text:?}: {error:#}");
                }
                (Ok(value), Err(part)) => panic!("{text:?}: got {value}, wanted {part:?}"),
                (Err(error), Ok(_)) => panic!("{text:?}: {error:#}"),
            }
        }
    }

    #[test]
    fn exposed_ports() {
        check::<Exposed>(&[
            ("2222/tcp", Ok("2222/tcp")),
            ("40000-40010/udp", Ok("40000-40010/udp")),
            ("40000-40000/udp", Ok("40000/udp")),
            ("2222", Err("write 2222/tcp or 2222/udp")),
            ("2222/sctp", Err("write tcp or udp")),
            ("2222/TCP", Ok("2222/tcp")),
            ("tcp/2222", Err("begins with the protocol; write 2222/tcp")),
            ("UDP/1-2", Err("write 1-2/UDP")),
            (
                "1/tcp,2/udp",
                Err("more than one; give each by itself: 1/tcp and 2/udp"),
            ),
            ("1:2/tcp", Err("is no range; write 1-2/tcp")),
            ("ssh/tcp", Err("\"ssh\" is no port")),
            ("0/tcp", Err("port 0 is no port")),
            ("65536/tcp", Err("ports are 1 to 65535")),
            ("10-9/tcp", Err("lower port first")),
            ("-9/tcp", Err("is no port")),
            ("+9/tcp", Err("is no port")),
            ("/tcp", Err("is no port")),
            ("", Err("names no protocol")),
        ]);
    }

    #[test]
    fn ports() {
        check::<PortNumber>(&[
            ("1", Ok("1")),
            ("65535", Ok("65535")),
            ("0", Err("0 is no port; ports are 1 to 65535")),
            ("65536", Err("\"65536\" is no port; ports are 1 to 65535")),
            ("-1", Err("ports are 1 to 65535")),
            ("4789,8472", Err("give each by itself: 4789 and 8472")),
        ]);
    }

    #[test]
    fn where_to_listen() {
        let table = [
            ("127.0.0.1:9750", Ok("127.0.0.1:9750")),
            ("[::]:9750", Ok("[::]:9750")),
            ("localhost:9750", Ok("127.0.0.1:9750")),
            ("9750", Err("names no address; write 127.0.0.1:9750")),
            (
                ":9750",
                Err("write 127.0.0.1:9750 for this host alone, [::]:9750 for all"),
            ),
            ("*:9750", Err("[::]:9750 for all")),
            ("10.0.0.1", Err("names no port; write 10.0.0.1:9750")),
            ("::1", Err("names no port; write [::1]:9750")),
            ("[::1]", Err("names no port; write [::1]:9750")),
            ("::1:9750", Err("wants brackets; write [::1]:9750")),
            (
                "guard.example:80",
                Err("\"guard.example\" is no address; write that of this host"),
            ),
            (
                "127.0.0.1:70000",
                Err("\"70000\" is no port; ports are 1 to 65535"),
            ),
            ("127.0.0.1:http", Err("\"http\" is no port")),
            (
                "metrics",
                Err("names no address and port; write 127.0.0.1:9750"),
            ),
            ("", Err("names no address and port")),
        ];
        for (text, expected) in table {
            match (text.parse::<Listen>(), expected) {
                (Ok(listen), Ok(shown)) => assert_eq!(listen.0.to_string(), shown, "{text:?}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{text:?}: {error}");
                }
                (got, _) => panic!("{text:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn trusted_prefixes() {
        check::<Trusted>(&[
            ("192.0.2.0/24", Ok("192.0.2.0/24")),
            ("2001:db8::/32", Ok("2001:db8::/32")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("192.0.2.1", Err("write 192.0.2.1/32")),
            ("2001:db8::1", Err("write 2001:db8::1/128")),
            ("192.0.2.1/24", Err("write 192.0.2.0/24")),
            ("192.0.2.0/33", Err("is no prefix")),
            ("office", Err("is no prefix")),
            ("::ffff:10.0.0.0/104", Err("write 10.0.0.0/8")),
            ("::ffff:0.0.0.0/96", Err("write 0.0.0.0/0")),
            ("::/0", Ok("::/0")),
            (
                "10.0.0.0/8,fd00::/8",
                Err("give each by itself: 10.0.0.0/8 and fd00::/8"),
            ),
        ]);
    }

    #[test]
    fn flow_capacities() {
        check::<MaxFlows>(&[
            ("1024", Ok("1024")),
            ("65536", Ok("65536")),
            ("16777216", Ok("16777216")),
            ("1023", Err("from 1024 to 16777216, as 1024")),
            ("0", Err("as 1024")),
            ("16777217", Err("as 16777216")),
            ("18446744073709551615", Err("as 16777216")),
            ("100000", Err("the nearest are 65536 and 131072")),
            ("-1", Err("is no number of flows")),
            ("64k", Err("is no number of flows")),
        ]);
    }
}
