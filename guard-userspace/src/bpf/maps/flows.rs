//! The flow maps, as user space walks them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context, anyhow, bail};
use aya::maps::{MapData, MapInfo};
use guard_common::{
    flow::{
        key::{FlowKey, FlowKeyV4, FlowKeyV6},
        state::Flow,
        timer::Timeouts,
    },
    frame::{
        address::{Address, V4, V6},
        ip::Tuple,
        transport::Transport,
    },
    outcome::{Family, Protocol},
};

use crate::bpf::{pins::Pins, syscalls};

/// The flow maps, whose capacity is `--max-flows`, by name, family and protocol.
pub const FLOW_MAPS: [(&str, Family, Protocol); 4] = [
    ("flows_tcp4", Family::Ipv4, Protocol::Tcp),
    ("flows_udp4", Family::Ipv4, Protocol::Udp),
    ("flows_tcp6", Family::Ipv6, Protocol::Tcp),
    ("flows_udp6", Family::Ipv6, Protocol::Udp),
];

/// Whether a map is one of them.
pub fn is_flow_map(name: &str) -> bool {
    FLOW_MAPS.iter().any(|(flow_map, _, _)| *flow_map == name)
}

/// One flow map.
#[derive(Debug)]
pub struct FlowMap {
    /// IPv4 or IPv6.
    pub family: Family,
    /// TCP, or UDP together with UDP-Lite.
    pub protocol: Protocol,
    /// Entries there is room for.
    pub capacity: u32,
    name: &'static str,
    map: Entries,
}

/// The map itself, by the family of its keys.
#[derive(Debug)]
enum Entries {
    V4(syscalls::HashMap<FlowKeyV4, Flow>),
    V6(syscalls::HashMap<FlowKeyV6, Flow>),
}

impl Entries {
    fn new(family: Family, map: MapData) -> io::Result<Self> {
        Ok(match family {
            Family::Ipv4 | Family::Other => Self::V4(syscalls::HashMap::new(map)?),
            Family::Ipv6 => Self::V6(syscalls::HashMap::new(map)?),
        })
    }

    fn foreign(&self, entry: &FlowEntry) -> anyhow::Error {
        let family = match self {
            Self::V4(_) => "IPv4",
            Self::V6(_) => "IPv6",
        };

        anyhow!("{} and {}: not of {family}", entry.local, entry.remote)
    }

    const fn data(&self) -> &MapData {
        match self {
            Self::V4(map) => map.data(),
            Self::V6(map) => map.data(),
        }
    }
}

/// One entry of a flow map, in user space's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowEntry {
    /// The transport protocol.
    pub transport: Transport,
    /// This host's end.
    pub local: SocketAddr,
    /// The peer's end; zero where any may answer.
    pub remote: SocketAddr,
    /// What is remembered.
    pub flow: Flow,
}

impl FlowMap {
    /// Opens all four from their pins.
    ///
    /// # Errors
    /// Names the map that is missing.
    pub fn open_all(pins: &Pins) -> anyhow::Result<Vec<Self>> {
        FLOW_MAPS
            .into_iter()
            .map(|(name, family, protocol)| {
                let path = pins.map(name);
                let info = MapInfo::from_pin(&path)
                    .with_context(|| format!("{}: cannot be opened", path.display()))?;
                Ok(Self {
                    name,
                    family,
                    protocol,
                    capacity: info.max_entries(),
                    map: Entries::new(family, super::open(&path)?)
                        .with_context(|| path.display().to_string())?,
                })
            })
            .collect()
    }

    /// The map of the same flows that is pinned elsewhere, unless it holds them in another form.
    pub fn counterpart(&self, pins: &Pins) -> Option<Self> {
        let info = super::alike(self.name, &self.map.data().info().ok()?, pins)?;

        Some(Self {
            capacity: info.max_entries(),
            map: Entries::new(self.family, super::open(&pins.map(self.name)).ok()?).ok()?,
            ..*self
        })
    }

    /// Calls `visit` with every entry, expired ones too.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn walk(&self, mut visit: impl FnMut(FlowEntry)) -> anyhow::Result<()> {
        match &self.map {
            Entries::V4(map) => map.walk(|key, flow| {
                let ends = (key.local, key.local_port, key.remote, key.remote_port);
                visit(entry(key.protocol, ends, ip_v4, *flow));
            }),
            Entries::V6(map) => map.walk(|key, flow| {
                let ends = (key.local, key.local_port, key.remote, key.remote_port);
                visit(entry(key.protocol, ends, ip_v6, *flow));
            }),
        }
        .context("flows: cannot be read")
    }

    /// Whether flows of this transport between such ends live here.
    pub fn holds(&self, transport: Transport, local: SocketAddr) -> bool {
        let family = if local.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        };

        self.family == family && (self.protocol == Protocol::Tcp) == (transport == Transport::Tcp)
    }

    /// Puts in a flow that is not there yet, and returns whether it was not.
    ///
    /// # Errors
    /// When the kernel refuses, or the ends are of two families.
    pub fn insert(&self, entry: &FlowEntry) -> anyhow::Result<bool> {
        match (&self.map, Key::of(entry)?) {
            (Entries::V4(map), Key::V4(key)) => map.insert_new(&key, &entry.flow),
            (Entries::V6(map), Key::V6(key)) => map.insert_new(&key, &entry.flow),
            (map, _) => return Err(map.foreign(entry)),
        }
        .context("flows: cannot be written")
    }

    /// What is remembered of the flow between the ends of `entry`. Does not count as use of it.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn find(&self, entry: &FlowEntry) -> anyhow::Result<Option<Flow>> {
        match (&self.map, Key::of(entry)?) {
            (Entries::V4(map), Key::V4(key)) => map.lookup(&key),
            (Entries::V6(map), Key::V6(key)) => map.lookup(&key),
            (map, _) => return Err(map.foreign(entry)),
        }
        .context("flows: cannot be read")
    }

    /// Replaces what is remembered of a flow, and returns whether anything was. May cost another
    /// flow its entry when the map is full.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn replace(&self, entry: &FlowEntry) -> anyhow::Result<bool> {
        match (&self.map, Key::of(entry)?) {
            (Entries::V4(map), Key::V4(key)) => map.replace(&key, &entry.flow),
            (Entries::V6(map), Key::V6(key)) => map.replace(&key, &entry.flow),
            (map, _) => return Err(map.foreign(entry)),
        }
        .context("flows: cannot be written")
    }

    /// Puts in a flow that is known elsewhere, unless it was seen here as late as there.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn merge(&self, entry: &FlowEntry) -> anyhow::Result<()> {
        if self.insert(entry)? {
            return Ok(());
        }
        let stale = self
            .find(entry)?
            .is_some_and(|here| here.last_seen < entry.flow.last_seen);
        if stale {
            self.replace(entry)?;
        }

        Ok(())
    }

    /// Puts in a flow that is not there, or has expired at `now`, and returns whether that was so.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn restore(
        &self,
        entry: &FlowEntry,
        now: u32,
        timeouts: &Timeouts,
    ) -> anyhow::Result<bool> {
        if self.insert(entry)? {
            return Ok(true);
        }
        match self.find(entry)? {
            Some(flow) if !flow.alive(now, timeouts) => self.replace(entry),
            Some(_) | None => Ok(false),
        }
    }

    /// Takes a flow out, and returns what was remembered of it in that moment.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and before Linux 5.14.
    pub fn take(&self, entry: &FlowEntry) -> anyhow::Result<Option<Flow>> {
        match (&self.map, Key::of(entry)?) {
            (Entries::V4(map), Key::V4(key)) => map.take(&key),
            (Entries::V6(map), Key::V6(key)) => map.take(&key),
            (map, _) => return Err(map.foreign(entry)),
        }
        .context("flows: cannot be taken out")
    }

    /// How many entries have not expired at `now`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn live(&self, now: u32, timeouts: &Timeouts) -> anyhow::Result<u64> {
        let mut live = 0;
        self.walk(|entry| live += u64::from(entry.flow.alive(now, timeouts)))?;

        Ok(live)
    }
}

/// What a flow is looked up by.
enum Key {
    V4(FlowKeyV4),
    V6(FlowKeyV6),
}

impl Key {
    fn of(entry: &FlowEntry) -> anyhow::Result<Self> {
        match ends(entry) {
            Some(FlowEnds::V4(tuple)) => Ok(Self::V4(FlowKeyV4::new(&tuple))),
            Some(FlowEnds::V6(tuple)) => Ok(Self::V6(FlowKeyV6::new(&tuple))),
            None => bail!("{} and {}: of two families", entry.local, entry.remote),
        }
    }
}

/// Both ends of a flow, of either family.
pub(super) enum FlowEnds {
    /// Of IPv4.
    V4(Tuple<V4>),
    /// Of IPv6.
    V6(Tuple<V6>),
}

/// Both ends as the programs see them; `None` when they are of two families.
pub(super) fn ends(entry: &FlowEntry) -> Option<FlowEnds> {
    match (entry.local.ip(), entry.remote.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let ends = (V4::from(local.octets()), V4::from(remote.octets()));
            Some(FlowEnds::V4(tuple(entry, ends)))
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let ends = (V6::from(local.octets()), V6::from(remote.octets()));
            Some(FlowEnds::V6(tuple(entry, ends)))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn tuple<A>(entry: &FlowEntry, (local, remote): (A, A)) -> Tuple<A> {
    Tuple {
        transport: entry.transport,
        local,
        remote,
        local_port: entry.local.port().to_be(),
        remote_port: entry.remote.port().to_be(),
    }
}

fn entry<A: Address>(
    protocol: u32,
    (local, local_port, remote, remote_port): (A, u16, A, u16),
    ip: fn(A) -> IpAddr,
    flow: Flow,
) -> FlowEntry {
    FlowEntry {
        // Only these three are ever recorded.
        transport: Transport::from_number(protocol as u8).unwrap_or(Transport::Udp),
        local: SocketAddr::new(ip(local), u16::from_be(local_port)),
        remote: SocketAddr::new(ip(remote), u16::from_be(remote_port)),
        flow,
    }
}

fn ip_v4(address: V4) -> IpAddr {
    Ipv4Addr::from(<[u8; 4]>::from(address)).into()
}

fn ip_v6(address: V6) -> IpAddr {
    Ipv6Addr::from(<[u8; 16]>::from(address)).into()
}
