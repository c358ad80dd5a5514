//! How much of the port range is in use, towards whom, and when it runs out.
//!
//! `connect()` may use one local port towards many destinations (RFC 6056, section 3), so the range runs
//! out for each destination by itself. Two things take a port from all of them: a socket that waits on it,
//! and `bind()` to port 0 without `IP_BIND_ADDRESS_NO_PORT`, which asks for a port that no socket has
//! (`inet_csk_get_port` in the kernel's net/ipv4/inet_connection_sock.c).

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use guard_common::frame::transport::Transport;

use crate::host::{
    range::{LocalPorts, PortBitmap, PortRange},
    sockets::{HostSocket, SocketState},
};

/// Something counted once for TCP, and once for UDP and UDP-Lite together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByProtocol<T> {
    /// Of TCP.
    pub tcp: T,
    /// Of UDP and UDP-Lite.
    pub udp: T,
}

impl<T> ByProtocol<T> {
    fn of(&mut self, transport: Transport) -> &mut T {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp | Transport::UdpLite => &mut self.udp,
        }
    }
}

/// Towards whom a socket takes a port: its protocol, its own address, and the other end.
type Ends = (Transport, IpAddr, SocketAddr);

/// What the sockets of one look take of the range.
#[derive(Clone, Debug)]
pub struct PortUse {
    range: PortRange,
    usable: PortBitmap,
    in_use: ByProtocol<PortBitmap>,
    /// Ports on which a socket waits.
    waiting: ByProtocol<PortBitmap>,
    /// Ports of TCP connections that are over, and of which stray packets may come.
    time_wait: PortBitmap,
    destinations: Destinations,
    states: BTreeMap<&'static str, u64>,
}

/// The destinations towards which the most is in use, in bounded memory (Misra and Gries, "Finding
/// repeated elements", 1982): of those that do not find room the most frequent stay, and what they are
/// counted short by is at most the number of all sockets by [`MOST_DESTINATIONS`].
#[derive(Clone, Debug, Default)]
struct Destinations {
    counts: HashMap<Ends, u32>,
}

/// Destinations that are counted. With fewer than that the counts are exact.
const MOST_DESTINATIONS: usize = 4096;

impl Destinations {
    fn add(&mut self, ends: Ends) {
        if let Some(count) = self.counts.get_mut(&ends) {
            *count += 1;
        } else if self.counts.len() < MOST_DESTINATIONS {
            self.counts.insert(ends, 1);
        } else {
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }
}

/// One destination and how much of the range is in use towards it.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// The transport protocol.
    pub transport: Transport,
    /// The other end.
    pub remote: SocketAddr,
    /// Local ports in use towards it, from the local address that uses the most.
    pub used: u32,
    /// Ports that could be, those in use included.
    pub capacity: u32,
    /// Until none is left at the present rate, if ports are being taken.
    pub exhausted_in: Option<Duration>,
}

impl Destination {
    /// The share of what could be in use that is, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        f64::from(self.used) / f64::from(self.capacity.max(1))
    }
}

impl PortUse {
    /// Nothing in use of this host's range.
    pub fn new(local: &LocalPorts) -> Self {
        let mut usable = PortBitmap::default();
        usable.insert(local.range);
        for &reserved in &local.reserved {
            usable.remove(reserved);
        }

        Self {
            range: local.range,
            usable,
            in_use: ByProtocol::default(),
            waiting: ByProtocol::default(),
            time_wait: PortBitmap::default(),
            destinations: Destinations::default(),
            states: BTreeMap::new(),
        }
    }

    /// Counts one socket, if its port is of the range.
    pub fn add(&mut self, socket: &HostSocket) {
        let port = socket.local.port();
        if !self.range.contains(port) {
            return;
        }
        let (transport, both) = (socket.transport, PortRange::new(port, port));
        let Ok(one) = both else {
            return;
        };
        self.in_use.of(transport).insert(one);
        *self.states.entry(state(socket)).or_default() += 1;
        if transport == Transport::Tcp && socket.state == SocketState::TimeWait {
            self.time_wait.insert(one);
        }
        if socket.connected() {
            let ends = (transport, socket.local.ip(), socket.remote);
            self.destinations.add(ends);
        } else if socket.waits() {
            self.waiting.of(transport).insert(one);
        }
    }

    /// The range.
    pub fn range(&self) -> PortRange {
        self.range
    }

    /// Ports of the range that the kernel hands out.
    pub fn usable(&self) -> u32 {
        self.usable.count()
    }

    /// Ports of the range that some socket has.
    pub fn in_use(&self) -> ByProtocol<u32> {
        ByProtocol {
            tcp: self.in_use.tcp.count(),
            udp: self.in_use.udp.count(),
        }
    }

    /// Ports of the range that no socket has and that the kernel hands out.
    pub fn available(&self) -> ByProtocol<u32> {
        ByProtocol {
            tcp: self.usable_but_for(&self.in_use.tcp),
            udp: self.usable_but_for(&self.in_use.udp),
        }
    }

    /// Sockets with a port of the range by their state, such as `time_wait`.
    pub fn states(&self) -> &BTreeMap<&'static str, u64> {
        &self.states
    }

    /// The destinations, those first towards which the most is in use. `before` is an earlier look, and
    /// how long ago that was.
    pub fn destinations(&self, before: Option<(&Self, Duration)>) -> Vec<Destination> {
        self.destinations_since(before.map(|(earlier, ago)| (&earlier.destinations, ago)))
    }

    fn destinations_since(&self, before: Option<(&Destinations, Duration)>) -> Vec<Destination> {
        let available = self.available();
        let connectable = self.usable_but_for(&self.waiting.tcp);
        // Of several local addresses the one that is nearest to its end.
        let mut busiest: HashMap<(Transport, SocketAddr), (u32, Ends)> = HashMap::new();
        for (&ends, &used) in &self.destinations.counts {
            let most = busiest.entry((ends.0, ends.2)).or_insert((used, ends));
            if (used, ends) > *most {
                *most = (used, ends);
            }
        }
        let mut destinations: Vec<_> = busiest
            .into_iter()
            .map(|((transport, remote), (used, ends))| {
                let capacity = match transport {
                    Transport::Tcp => connectable,
                    // A UDP socket has its port for itself.
                    Transport::Udp | Transport::UdpLite => used + available.udp,
                };
                Destination {
                    transport,
                    remote,
                    used,
                    capacity: capacity.max(used),
                    exhausted_in: before.and_then(|(earlier, ago)| {
                        let former = earlier.counts.get(&ends).copied().unwrap_or_default();
                        exhausted_in(former, used, capacity.saturating_sub(used), ago)
                    }),
                }
            })
            .collect();
        destinations.sort_by(|one, other| {
            other
                .ratio()
                .total_cmp(&one.ratio())
                .then_with(|| (one.transport, one.remote).cmp(&(other.transport, other.remote)))
        });

        destinations
    }

    fn summary(&self, before: Option<(&Destinations, Duration)>) -> PortSummary {
        let mut busiest = ByProtocol::<f64>::default();
        let mut exhausted_in = ByProtocol::<Option<Duration>>::default();
        for to in self.destinations_since(before) {
            let most = busiest.of(to.transport);
            *most = most.max(to.ratio());
            let soonest = exhausted_in.of(to.transport);
            *soonest = [*soonest, to.exhausted_in].into_iter().flatten().min();
        }
        let range = u32::from(self.range.last()) - u32::from(self.range.first()) + 1;

        PortSummary {
            available: self.available(),
            in_use: self.in_use(),
            listening: ByProtocol {
                tcp: self.waiting.tcp.count(),
                udp: self.waiting.udp.count(),
            },
            time_wait: self.time_wait.count(),
            reserved: range - self.usable(),
            busiest,
            exhausted_in,
        }
    }

    fn usable_but_for(&self, taken: &PortBitmap) -> u32 {
        let mut left = self.usable.clone();
        left.remove_all(taken);

        left.count()
    }
}

/// What of the range is in use, in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PortSummary {
    /// Ports that the kernel hands out and no socket has.
    pub available: ByProtocol<u32>,
    /// Ports that some socket has.
    pub in_use: ByProtocol<u32>,
    /// Those of them on which a socket waits for packets of any peer.
    pub listening: ByProtocol<u32>,
    /// Those of them on which a TCP connection is over and waits for stray packets.
    pub time_wait: u32,
    /// Ports of the range that the kernel does not hand out.
    pub reserved: u32,
    /// The share of the range that is in use towards the busiest destination, from 0 to 1.
    pub busiest: ByProtocol<f64>,
    /// Until the first destination has no port left, at the rate of the last minutes.
    pub exhausted_in: ByProtocol<Option<Duration>>,
}

/// Looks again and again at what of the range is in use.
#[derive(Debug, Default)]
pub struct PortWatch {
    /// The destinations of the look that rates are computed from, and when that was.
    base: Option<(Instant, Destinations)>,
    /// Those of the one that will be next.
    next: Option<(Instant, Destinations)>,
}

impl PortWatch {
    /// How long is between the looks that a rate is computed from, at least, once there were enough.
    const WINDOW: Duration = Duration::from_secs(60);

    /// Looks at these sockets, which were listed `now`.
    pub fn look(
        &mut self,
        local: &LocalPorts,
        sockets: &[HostSocket],
        now: Instant,
    ) -> PortSummary {
        let mut used = PortUse::new(local);
        for socket in sockets {
            used.add(socket);
        }
        let earlier = self.base.as_ref().or(self.next.as_ref());
        let earlier = earlier.map(|(then, destinations)| (destinations, now.duration_since(*then)));
        let summary = used.summary(earlier);
        match &self.next {
            Some((then, _)) if now.duration_since(*then) < Self::WINDOW => {}
            Some(_) | None => self.base = self.next.replace((now, used.destinations)),
        }

        summary
    }
}

/// Until `left` more are in use, if what was `former` has become `used` in this time.
fn exhausted_in(former: u32, used: u32, left: u32, time: Duration) -> Option<Duration> {
    let taken = used.checked_sub(former).filter(|taken| *taken > 0)?;

    Some(time.mul_f64(f64::from(left) / f64::from(taken)))
}

/// The name of a socket's state: for TCP the kernel's, in lower case.
fn state(socket: &HostSocket) -> &'static str {
    match (socket.transport, socket.state) {
        (Transport::Tcp, SocketState::Established) => "established",
        (Transport::Tcp, SocketState::SynSent) => "syn_sent",
        (Transport::Tcp, SocketState::SynReceived) => "syn_received",
        (Transport::Tcp, SocketState::FinWait1) => "fin_wait_1",
        (Transport::Tcp, SocketState::FinWait2) => "fin_wait_2",
        (Transport::Tcp, SocketState::TimeWait) => "time_wait",
        (Transport::Tcp, SocketState::Close) => "close",
        (Transport::Tcp, SocketState::CloseWait) => "close_wait",
        (Transport::Tcp, SocketState::LastAck) => "last_ack",
        (Transport::Tcp, SocketState::Listen) => "listen",
        (Transport::Tcp, SocketState::Closing) => "closing",
        (Transport::Udp | Transport::UdpLite, SocketState::Established) => "udp_connected",
        (Transport::Udp | Transport::UdpLite, _) => "udp_unconnected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: (u16, u16) = (40_000, 40_009);

    fn local(reserved: &[(u16, u16)]) -> LocalPorts {
        let range = |(first, last)| PortRange::new(first, last).expect("a range");
        LocalPorts {
            range: range(RANGE),
            reserved: reserved.iter().copied().map(range).collect(),
        }
    }

    fn socket(transport: Transport, state: SocketState, local: &str, remote: &str) -> HostSocket {
        HostSocket {
            transport,
            local: local.parse().expect("an end"),
            remote: remote.parse().expect("an end"),
            state,
            device: 0,
            ipv6_only: false,
            inode: 0,
            uid: 0,
        }
    }

    fn tcp(local: &str, remote: &str) -> HostSocket {
        socket(Transport::Tcp, SocketState::Established, local, remote)
    }

    fn used(local: &LocalPorts, sockets: &[HostSocket]) -> PortUse {
        let mut used = PortUse::new(local);
        for socket in sockets {
            used.add(socket);
        }
        used
    }

    #[test]
    fn one_port_serves_many_destinations() {
        let web = ["192.0.2.1:443", "192.0.2.2:443", "[2001:db8::1]:443"];
        let sockets: Vec<_> = web
            .iter()
            .map(|remote| {
                let local = if remote.starts_with('[') {
                    "[2001:db8::5]:40001"
                } else {
                    "10.0.0.5:40001"
                };
                tcp(local, remote)
            })
            .collect();
        let used = used(&local(&[(40_008, 40_020)]), &sockets);
        assert_eq!(used.usable(), 8);
        assert_eq!(used.in_use(), ByProtocol { tcp: 1, udp: 0 });
        assert_eq!(used.available(), ByProtocol { tcp: 7, udp: 8 });
        let destinations = used.destinations(None);
        assert_eq!(destinations.len(), 3);
        for destination in destinations {
            assert_eq!((destination.used, destination.capacity), (1, 8));
        }
        assert_eq!(used.states()["established"], 3);
    }

    #[test]
    fn what_waits_is_left_to_no_destination_and_udp_shares_nothing() {
        let sockets = [
            socket(
                Transport::Tcp,
                SocketState::Listen,
                "0.0.0.0:40000",
                "0.0.0.0:0",
            ),
            socket(Transport::Tcp, SocketState::Listen, "[::]:40000", "[::]:0"),
            tcp("10.0.0.5:40001", "192.0.2.1:443"),
            tcp("10.0.0.5:40002", "192.0.2.1:443"),
            tcp("10.0.0.6:40001", "192.0.2.1:443"),
            socket(
                Transport::Udp,
                SocketState::Close,
                "0.0.0.0:40003",
                "0.0.0.0:0",
            ),
            socket(
                Transport::Udp,
                SocketState::Established,
                "10.0.0.5:40004",
                "192.0.2.1:53",
            ),
            tcp("10.0.0.5:22", "192.0.2.9:50000"),
        ];
        let used = used(&local(&[]), &sockets);
        assert_eq!(used.in_use(), ByProtocol { tcp: 3, udp: 2 });
        let shown: Vec<_> = used
            .destinations(None)
            .iter()
            .map(|to| (to.transport, to.remote.port(), to.used, to.capacity))
            .collect();
        assert_eq!(
            shown,
            [(Transport::Tcp, 443, 2, 9), (Transport::Udp, 53, 1, 9),]
        );
        assert_eq!(used.states()["listen"], 2);
        assert_eq!(used.states()["udp_unconnected"], 1);
    }

    #[test]
    fn rates_are_those_of_the_last_minutes() {
        let local = local(&[]);
        let of = |count: u16| -> Vec<_> {
            (0..count)
                .map(|index| tcp(&format!("10.0.0.5:{}", RANGE.0 + index), "192.0.2.1:443"))
                .collect()
        };
        let mut watch = PortWatch::default();
        let began = Instant::now();
        // seconds, sockets, seconds until there is none left
        let table = [
            (0, 0, None),
            (20, 1, Some(180)),
            (50, 2, Some(200)),
            (70, 2, Some(280)),
            (100, 4, Some(150)),
            (140, 4, Some(210)),
            (210, 4, Some(420)),
            (230, 10, Some(0)),
        ];
        for (second, count, due) in table {
            let now = began + Duration::from_secs(second);
            let summary = watch.look(&local, &of(count), now);
            let left = summary.exhausted_in.tcp.map(|time| time.as_secs());
            assert_eq!(left, due, "{second} s");
            assert_eq!(summary.busiest.tcp, f64::from(count) / 10.0);
            assert_eq!(summary.exhausted_in.udp, None);
            assert_eq!(summary.in_use.tcp, u32::from(count));
            assert_eq!((summary.reserved, summary.available.udp), (0, 10));
        }
    }

    #[test]
    fn the_busiest_of_very_many_destinations_is_found() {
        let mut local = local(&[]);
        local.range = PortRange::new(1024, u16::MAX).expect("a range");
        let mut used = PortUse::new(&local);
        for round in 0..20_000u32 {
            let other = std::net::Ipv4Addr::from(0x0a00_0000 | round);
            used.add(&tcp("10.0.0.5:40001", &format!("{other}:443")));
            if round % 2 == 0 {
                let port = 2000 + round / 2;
                used.add(&tcp(&format!("10.0.0.5:{port}"), "192.0.2.1:443"));
            }
        }
        let busiest = &used.destinations(None)[0];
        assert_eq!(busiest.remote, "192.0.2.1:443".parse().expect("an end"));
        let short = 30_000 / MOST_DESTINATIONS as u32;
        assert!(
            (10_000 - short..=10_000).contains(&busiest.used),
            "{busiest:?}"
        );
        assert!(used.destinations.counts.len() <= MOST_DESTINATIONS);
    }

    #[test]
    fn a_destination_runs_out_when_its_ports_are_taken_and_not_else() {
        let of = |count: u16| -> Vec<_> {
            (0..count)
                .map(|index| tcp(&format!("10.0.0.5:{}", RANGE.0 + index), "192.0.2.1:443"))
                .collect()
        };
        let local = local(&[]);
        let second = Duration::from_secs(1);
        // before, now, seconds
        let table = [
            (2, 4, Some(3.0)),
            (4, 4, None),
            (5, 4, None),
            (0, 1, Some(9.0)),
            (8, 10, Some(0.0)),
        ];
        for (before, now, due) in table {
            let (earlier, later) = (used(&local, &of(before)), used(&local, &of(now)));
            let found = later.destinations(Some((&earlier, second)));
            let seconds = found[0].exhausted_in.map(|time| time.as_secs_f64());
            assert_eq!(seconds, due, "{before} {now}");
        }
    }
}
