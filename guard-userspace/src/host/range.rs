//! The local port range of the kernel, and which of its ports are guarded.

mod bitmap;
mod sysctl;

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use anyhow::{Context, bail, ensure};
use guard_common::{frame::transport::Transport, ports::class::FIRST_KERNEL_PORT};
use serde::{Deserialize, Serialize};

use self::sysctl::Sysctl;
pub use self::{
    bitmap::PortBitmap,
    sysctl::{LOCAL_PORT_RANGE, LOCAL_RESERVED_PORTS, parse_range, parse_reserved},
};

/// Ports from `first` to `last`, both included; never empty and never holding port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// A range of ports.
    ///
    /// # Errors
    /// When `first` is 0 or above `last`.
    pub fn new(first: u16, last: u16) -> anyhow::Result<Self> {
        ensure!(first != 0, "port 0 is no port; the first is 1");
        ensure!(
            first <= last,
            "range {first}-{last} is empty; write the lower port first"
        );

        Ok(Self { first, last })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port, which is part of the range.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Every port of the range, in order.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl FromStr for PortRange {
    type Err = anyhow::Error;

    /// Parses `FIRST-LAST`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((first, last)) = text.split_once('-') else {
            let ports: Vec<_> = text
                .split(|letter: char| letter.is_whitespace() || [':', ','].contains(&letter))
                .filter(|part| !part.is_empty())
                .collect();
            match ports[..] {
                [first, last] => bail!("{text:?} is no range; write {first}-{last}"),
                _ => bail!("{text:?} is no range; write FIRST-LAST, as in 32768-60999"),
            }
        };

        Self::new(parse_port(first)?, parse_port(last)?)
    }
}

impl TryFrom<String> for PortRange {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Parses a port of 0 to 65535, in digits only.
pub(crate) fn parse_port(text: &str) -> anyhow::Result<u16> {
    // `u16::from_str` also takes a leading plus.
    ensure!(
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
        "{text:?} is no port; ports are 1 to 65535"
    );

    text.parse()
        .with_context(|| format!("{text:?} is no port; ports are 1 to 65535"))
}

/// What the kernel says about local ports in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalPorts {
    /// Where the kernel takes ports of outgoing connections from; rules IPv6 too.
    pub range: PortRange,
    /// Ports it leaves out, in order; those outside `range` included.
    pub reserved: Vec<PortRange>,
}

impl LocalPorts {
    /// Reads the range and the reserved ports of the calling thread's network namespace.
    ///
    /// The range is not read when it is `fixed` by the user.
    ///
    /// # Errors
    /// When a sysctl cannot be read or is not understood; names the file, its text and a remedy.
    pub fn read(fixed: Option<PortRange>) -> anyhow::Result<Self> {
        LocalFiles::open()?.read(fixed)
    }
}

/// The sysctls of one network namespace, which stay open: to follow them takes no descriptor that
/// others may have used up.
#[derive(Debug)]
pub struct LocalFiles {
    range: Sysctl,
    reserved: Sysctl,
}

impl LocalFiles {
    /// Opens those of the calling thread's network namespace.
    ///
    /// # Errors
    /// When one cannot be opened; names it.
    pub fn open() -> anyhow::Result<Self> {
        Ok(Self {
            range: Sysctl::open(LOCAL_PORT_RANGE)?,
            reserved: Sysctl::open(LOCAL_RESERVED_PORTS)?,
        })
    }

    /// Reads them, but for a range that is `fixed` by the user.
    ///
    /// # Errors
    /// When one cannot be read or is not understood; names the file, its text and a remedy.
    pub fn read(&self, fixed: Option<PortRange>) -> anyhow::Result<LocalPorts> {
        let range = match fixed {
            Some(range) => range,
            None => self.range.read(parse_range)?,
        };

        Ok(LocalPorts {
            range,
            reserved: self.reserved.read(parse_reserved)?,
        })
    }
}

/// The ports that are guarded, for each transport: the range less the reserved less the exposed.
///
/// A port that is reserved is so for every transport, an exposed one for its own.
/// UDP-Lite goes with UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedPorts {
    range: PortRange,
    tcp: PortBitmap,
    udp: PortBitmap,
    kernel: BTreeSet<(u16, IpAddr)>,
}

impl GuardedPorts {
    /// Works out which ports are guarded.
    pub fn new(
        local: &LocalPorts,
        exposed: impl IntoIterator<Item = (Transport, PortRange)>,
    ) -> Self {
        let mut ports = PortBitmap::default();
        ports.insert(local.range);
        for &reserved in &local.reserved {
            ports.remove(reserved);
        }

        let mut guarded = Self {
            range: local.range,
            tcp: ports.clone(),
            udp: ports,
            kernel: BTreeSet::new(),
        };
        for (transport, exposed) in exposed {
            match transport {
                Transport::Tcp => guarded.tcp.remove(exposed),
                Transport::Udp | Transport::UdpLite => guarded.udp.remove(exposed),
            }
        }
        guarded
    }

    /// The same ports, but for UDP at these addresses, where the kernel itself receives. Those that
    /// are not guarded are left out.
    #[must_use]
    pub fn but_for_kernel(mut self, ends: impl IntoIterator<Item = (u16, IpAddr)>) -> Self {
        self.kernel = ends
            .into_iter()
            .filter(|(port, _)| usize::from(*port) >= FIRST_KERNEL_PORT && self.udp.contains(*port))
            .collect();

        self
    }

    /// Where the kernel itself receives on guarded ports.
    pub fn kernel(&self) -> &BTreeSet<(u16, IpAddr)> {
        &self.kernel
    }

    /// Those of these ports that are not guarded by `other`, if there are any.
    pub fn without(&self, other: &Self) -> Option<Self> {
        let mut added = self.clone();
        added.tcp.remove_all(&other.tcp);
        added.udp.remove_all(&other.udp);
        let empty = added.tcp.is_empty() && added.udp.is_empty();

        (!empty).then_some(added)
    }

    /// Ports of the range that are not guarded for every protocol and at every address.
    pub fn exempt_ports(&self) -> PortBitmap {
        let mut exempt = PortBitmap::default();
        exempt.insert(self.range);
        let mut guarded = self.tcp.clone();
        guarded.retain_all(&self.udp);
        exempt.remove_all(&guarded);
        exempt.insert_all(&self.kernel.iter().map(|(port, _)| *port).collect());

        exempt
    }

    /// The range the guarded ports are taken from.
    pub fn range(&self) -> PortRange {
        self.range
    }

    /// Whether an unsolicited sender's packet to `port` is dropped.
    pub fn guarded(&self, transport: Transport, port: u16) -> bool {
        self.bitmap(transport).contains(port)
    }

    /// Whether `port` lies in the range and is left alone, because it is reserved or exposed.
    pub fn exempt(&self, transport: Transport, port: u16) -> bool {
        self.range.contains(port) && !self.guarded(transport, port)
    }

    /// Some ranges that hold all of them, for whatever transport, and more where there would be too
    /// many.
    pub fn ranges(&self) -> Vec<PortRange> {
        const MOST: usize = 32;
        let mut all = self.tcp.clone();
        all.insert_all(&self.udp);
        let runs = all.runs();
        match (runs.first(), runs.last()) {
            (Some(first), Some(last)) if runs.len() > MOST => vec![PortRange {
                first: first.first,
                last: last.last,
            }],
            _ => runs,
        }
    }

    /// The guarded ports of `transport` as a bitmap.
    pub fn bitmap(&self, transport: Transport) -> &PortBitmap {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Udp | Transport::UdpLite => &self.udp,
        }
    }
}

#[cfg(test)]
mod tests;
