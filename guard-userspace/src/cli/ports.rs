//! `portguard ports`: how much of the port range is in use, towards whom, by whom, and when it runs out.

use std::{
    collections::HashMap,
    fmt,
    io::Write,
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use guard_common::frame::transport::Transport;
use serde::Serialize;

use crate::{
    base::{failure::Failure, text::plain},
    cli::{
        output::print,
        table::{Column, Table},
    },
    host::{
        port_use::{ByProtocol, Destination, PortUse},
        range::LocalPorts,
        socket_owners::{DescriptorWalk, OpenSocket, SocketOwner},
        sockets::{self, HostSocket},
    },
};

/// How long the processes that have sockets open are looked for.
const NAMING: Duration = Duration::from_secs(2);

/// Destinations and processes that are shown as text.
const SHOWN: usize = 20;

/// From this share on, `connect()` looks long for a port that is free.
const CROWDED: f64 = 0.5;

/// Changes whenever a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// Looks at the sockets of the calling thread's network namespace twice, `apart` from each other, and
/// prints what of the port range is in use. Blocks: call it outside a runtime.
///
/// # Errors
/// When the range or the sockets cannot be read, or nothing can be printed.
pub fn run(apart: Duration, json: bool) -> Result<(), Failure> {
    let local = LocalPorts::read(None)?;
    let began = Instant::now();
    let (earlier, _) = look(&local)?;
    thread::sleep(apart);
    let passed = began.elapsed();
    let (now, open) = look(&local)?;
    let report = Report::new(&now, (&earlier, passed), processes(open));

    print(|out| {
        if json {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        } else {
            write!(out, "{report}")
        }
    })
}

/// A socket of the range that a process may have open, and whether it has a destination.
type Open = (OpenSocket, Transport, bool);

fn look(local: &LocalPorts) -> anyhow::Result<(PortUse, Vec<Open>)> {
    let mut used = PortUse::new(local);
    let mut open = Vec::new();
    let mut add = |sockets: &[HostSocket]| {
        for socket in sockets
            .iter()
            .filter(|socket| local.range.contains(socket.local.port()))
        {
            used.add(socket);
            // A connection in TIME_WAIT belongs to no file any more.
            if socket.inode != 0 {
                let (inode, uid) = (socket.inode, socket.uid);
                open.push((
                    OpenSocket { inode, uid },
                    socket.transport,
                    socket.connected(),
                ));
            }
        }
    };
    let ports = [local.range];
    sockets::visit_connected_on(&ports, &sockets::ALL, |sockets| {
        add(sockets);
        ControlFlow::Continue(())
    })?;
    add(&sockets::waiting_on(&ports)?);

    Ok((used, open))
}

/// How many sockets of the range each process has, those with the most first.
fn processes(open: Vec<Open>) -> Vec<ProcessPorts> {
    let mut walk = DescriptorWalk::default();
    let mut found = walk.ask(open.iter().map(|(socket, ..)| *socket)).owners;
    found.extend(walk.go_on(NAMING).owners);
    let owners: HashMap<u32, SocketOwner> = found.into_iter().collect();
    let mut processes: HashMap<Option<i32>, ProcessPorts> = HashMap::new();
    for (socket, transport, connected) in open {
        let owner = owners.get(&socket.inode);
        let process = processes
            .entry(owner.and_then(SocketOwner::pid))
            .or_insert_with(|| ProcessPorts::of(owner));
        match transport {
            Transport::Tcp => process.tcp += 1,
            Transport::Udp | Transport::UdpLite => process.udp += 1,
        }
        process.without_destination += u32::from(!connected);
    }
    let mut processes: Vec<_> = processes.into_values().collect();
    processes.sort_by_key(|process| (u32::MAX - (process.tcp + process.udp), process.pid));

    processes
}

/// What a process has of the range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ProcessPorts {
    /// Its name, or null where none could be found.
    name: Option<String>,
    /// Its id.
    pid: Option<i32>,
    /// TCP sockets.
    tcp: u32,
    /// UDP and UDP-Lite sockets.
    udp: u32,
    /// Those of both without a destination: they keep their port from everybody else.
    without_destination: u32,
}

impl ProcessPorts {
    fn of(owner: Option<&SocketOwner>) -> Self {
        let (name, pid) = match owner {
            Some(SocketOwner::Process { pid, name }) => (Some(plain(name)), Some(*pid)),
            Some(SocketOwner::Unknown) | None => (None, None),
        };

        Self {
            name,
            pid,
            tcp: 0,
            udp: 0,
            without_destination: 0,
        }
    }
}

/// What is printed.
#[derive(Clone, Debug, Serialize)]
struct Report {
    schema_version: u32,
    range: RangeJson,
    /// Ports that the kernel hands out and no socket has.
    available: Counts,
    /// Ports that some socket has.
    in_use: Counts,
    destinations: Vec<DestinationJson>,
    /// Sockets by state.
    states: HashMap<&'static str, u64>,
    processes: Vec<ProcessPorts>,
    #[serde(skip)]
    usable: u32,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct RangeJson {
    first: u16,
    last: u16,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Counts {
    tcp: u32,
    udp: u32,
}

impl From<ByProtocol<u32>> for Counts {
    fn from(counts: ByProtocol<u32>) -> Self {
        Self {
            tcp: counts.tcp,
            udp: counts.udp,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct DestinationJson {
    protocol: &'static str,
    remote: String,
    used: u32,
    capacity: u32,
    ratio: f64,
    exhausted_in_seconds: Option<f64>,
}

impl From<Destination> for DestinationJson {
    fn from(to: Destination) -> Self {
        Self {
            protocol: protocol(to.transport),
            remote: to.remote.to_string(),
            used: to.used,
            capacity: to.capacity,
            ratio: to.ratio(),
            exhausted_in_seconds: to.exhausted_in.map(|time| time.as_secs_f64()),
        }
    }
}

const fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::UdpLite => "udplite",
    }
}

impl Report {
    fn new(now: &PortUse, earlier: (&PortUse, Duration), processes: Vec<ProcessPorts>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            range: RangeJson {
                first: now.range().first(),
                last: now.range().last(),
            },
            available: now.available().into(),
            in_use: now.in_use().into(),
            destinations: now
                .destinations(Some(earlier))
                .into_iter()
                .map(DestinationJson::from)
                .collect(),
            states: now
                .states()
                .iter()
                .map(|(name, count)| (*name, *count))
                .collect(),
            processes,
            usable: now.usable(),
        }
    }

    /// What somebody has to do something about.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for to in self.destinations.iter().filter(|to| to.ratio >= CROWDED) {
            let what = if to.used >= to.capacity {
                "has no port left"
            } else {
                "looks long for a free port"
            };
            warnings.push(format!(
                "connect() to {}/{} {what}: {} of {} are in use towards it; widen \
                 net.ipv4.ip_local_port_range, keep connections open for longer, or use more local \
                 addresses",
                to.remote, to.protocol, to.used, to.capacity
            ));
        }
        for (name, left) in [("TCP", self.available.tcp), ("UDP", self.available.udp)] {
            if f64::from(left) <= f64::from(self.usable) * (1.0 - 0.95) {
                warnings.push(format!(
                    "bind() to {name} port 0 finds {left} free ports: nearly every port has a socket; \
                     programs that bind before they connect need IP_BIND_ADDRESS_NO_PORT"
                ));
            }
        }

        warnings
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RangeJson { first, last } = self.range;
        writeln!(
            f,
            "range {first}-{last}, of which the kernel hands out {}",
            self.usable
        )?;
        writeln!(
            f,
            "in use: {} ports by TCP, {} by UDP; free: {} for TCP, {} for UDP",
            self.in_use.tcp, self.in_use.udp, self.available.tcp, self.available.udp
        )?;
        let mut states: Vec<_> = self.states.iter().collect();
        states.sort();
        if !states.is_empty() {
            let states: Vec<_> = states
                .into_iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            writeln!(f, "sockets: {}", states.join(", "))?;
        }
        if !self.destinations.is_empty() {
            let rows = self.destinations.iter().take(SHOWN).map(|to| {
                [
                    format!("{}/{}", to.remote, to.protocol),
                    to.used.to_string(),
                    to.capacity.to_string(),
                    format!("{:.1} %", to.ratio * 100.0),
                    to.exhausted_in_seconds
                        .map_or("-".to_owned(), |seconds| format!("{seconds:.0} s")),
                ]
            });
            let columns = [
                Column::Left("destination"),
                Column::Right("ports in use"),
                Column::Right("of"),
                Column::Right("share"),
                Column::Right("runs out in"),
            ];
            write!(f, "\n{}", Table { columns, rows })?;
            more(f, self.destinations.len())?;
        }
        if !self.processes.is_empty() {
            let rows = self.processes.iter().take(SHOWN).map(|process| {
                [
                    process
                        .name
                        .clone()
                        .unwrap_or_else(|| "unknown process".to_owned()),
                    process.pid.map_or("-".to_owned(), |pid| pid.to_string()),
                    process.tcp.to_string(),
                    process.udp.to_string(),
                    process.without_destination.to_string(),
                ]
            });
            let columns = [
                Column::Left("process"),
                Column::Right("pid"),
                Column::Right("TCP"),
                Column::Right("UDP"),
                Column::Right("without a destination"),
            ];
            write!(f, "\n{}", Table { columns, rows })?;
            more(f, self.processes.len())?;
        }
        let warnings = self.warnings();
        if !warnings.is_empty() {
            writeln!(f)?;
        }
        for warning in warnings {
            writeln!(f, "warning: {warning}")?;
        }

        Ok(())
    }
}

/// Says how many rows are left out.
fn more(f: &mut fmt::Formatter<'_>, rows: usize) -> fmt::Result {
    match rows.saturating_sub(SHOWN) {
        0 => Ok(()),
        left => writeln!(f, "and {left} more; --json shows all"),
    }
}
