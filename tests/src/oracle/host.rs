//! A host with sockets that ask their peers, and what reaches them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
};

use anyhow::{Context, Result};
use guard_common::outcome::Family;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    batch::{self, Queue},
    encoding::Datagram,
    ends::{ASKING, CONNECTING, FAMILIES, LISTENING, PEER_PORT, PEERS, QUIET, peer_address},
    transport::SPREAD,
};
use crate::{frames::P, netns::Direct, wire::Wire};

/// Room for what is not yet looked at, in bytes.
const ROOM: i32 = 64 << 20;

/// How often what of each number was delivered.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    copies: BTreeMap<u32, u32>,
    /// Of datagrams that are too short for a number.
    pub unnumbered: u32,
}

impl Delivered {
    /// How often the one with this number was.
    pub fn copies(&self, id: u32) -> u32 {
        self.copies.get(&id).copied().unwrap_or(0)
    }

    fn add(&mut self, id: u32) {
        *self.copies.entry(id).or_default() += 1;
    }
}

/// One host.
#[derive(Debug)]
pub struct Host<'a> {
    topology: &'a Direct,
    wire: Wire,
    asking: Vec<(Family, UdpSocket)>,
    quiet: Vec<UdpSocket>,
    connecting: Vec<Socket>,
    listening: Vec<TcpListener>,
}

impl<'a> Host<'a> {
    /// Opens the sockets on the guarded end, which has asked nobody yet.
    pub fn new(topology: &'a Direct) -> Result<Self> {
        let host = &topology.guarded;
        for (setting, value) in [
            // Each family has sockets of its own.
            ("net/ipv6/bindv6only", "1"),
            // Answers to unsolicited senders leave no trace.
            ("net/ipv4/tcp_syncookies", "2"),
            // What is never completed takes no room from what is.
            ("net/ipv4/ipfrag_high_thresh", "67108864"),
            ("net/ipv6/ip6frag_high_thresh", "67108864"),
            ("net/ipv4/ipfrag_time", "5"),
            ("net/ipv6/ip6frag_time", "5"),
        ] {
            host.sysctl(setting, value)?;
        }
        host.ip(&format!("route add 10.10.0.0/16 via {}", P.ipv4))?;
        host.ip(&format!("-6 route add fd10::/64 via {}", P.ipv6))?;

        // Peers hear what they are asked, and say nothing by themselves.
        topology.peer.ip("route add blackhole 10.10.0.0/16")?;
        topology.peer.ip("-6 route add blackhole fd10::/64")?;

        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        const PACKET_IGNORE_OUTGOING: i32 = 23;
        batch::option(wire.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        batch::option(wire.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM)?;

        let mut opened = Self {
            topology,
            wire,
            asking: Vec::new(),
            quiet: Vec::new(),
            connecting: Vec::new(),
            listening: Vec::new(),
        };
        for family in FAMILIES {
            for of in [Datagram::Udp, Datagram::UdpLite] {
                let open = |port| host.run(|| datagrams(family, of, port));
                opened.asking.push((family, open(ASKING)?));
                opened.quiet.push(open(QUIET)?);
            }
            let listener = host.run(|| TcpListener::bind((unspecified(family), LISTENING)))?;
            opened.listening.push(listener);
        }
        Ok(opened)
    }

    /// Asks every peer, over UDP, UDP-Lite and TCP.
    pub fn ask(&mut self) -> Result<()> {
        self.connecting.clear();
        for (family, socket) in &self.asking {
            for peer in 0..PEERS {
                let remote = SocketAddr::new(peer_address(*family, peer), PEER_PORT);
                ask(socket, remote)?;
            }
        }
        for family in FAMILIES {
            for peer in 0..PEERS {
                let remote = SocketAddr::new(peer_address(family, peer), PEER_PORT);
                let local = SocketAddr::new(unspecified(family), CONNECTING + peer as u16);
                let connecting = self.topology.guarded.run(|| connect(local, remote))?;
                self.connecting.push(connecting);
            }
        }
        Ok(())
    }

    /// Puts all frames on the wire to this host.
    pub fn send(&self, frames: &[Vec<u8>]) -> Result<()> {
        batch::send(&self.wire, frames)
    }

    /// Adds what has been delivered since the last time: datagrams that sockets got, those that
    /// they were told are lost, and segments and echoes that the host has answered.
    pub fn collect(&self, delivered: &mut Delivered) {
        let asking = self.asking.iter().map(|(_, socket)| socket);
        for socket in asking.chain(&self.quiet) {
            for queue in [Queue::Errors, Queue::Data] {
                batch::receive(socket.as_fd(), queue, |datagram| {
                    match datagram.first_chunk() {
                        Some(id) => delivered.add(u32::from_be_bytes(*id)),
                        None => delivered.unnumbered += 1,
                    }
                });
            }
        }
        batch::receive(self.wire.as_fd(), Queue::Data, |frame| {
            if let Some(id) = answered(frame) {
                delivered.add(id);
            }
        });
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        Family::Ipv4 | Family::Other => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// A socket that hears of errors, too.
fn datagrams(family: Family, of: Datagram, port: u16) -> Result<UdpSocket> {
    let local = SocketAddr::new(unspecified(family), port);
    let protocol = Protocol::from(i32::from(of.protocol()));
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(protocol))?;
    socket.bind(&local.into())?;
    let errors = match family {
        Family::Ipv6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        Family::Ipv4 | Family::Other => (libc::IPPROTO_IP, libc::IP_RECVERR),
    };
    batch::option(socket.as_fd(), errors.0, errors.1, 1)?;
    batch::option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM)?;
    Ok(socket.into())
}

/// Sends a datagram. An error about an earlier one is told instead of sending, once each.
fn ask(socket: &UdpSocket, remote: SocketAddr) -> Result<()> {
    const ATTEMPTS: usize = 100;

    let mut attempts = (0..ATTEMPTS).map(|_| socket.send_to(b"?", remote));
    let sent = attempts.find_map(Result::ok);
    sent.with_context(|| format!("ask {remote}"))?;
    Ok(())
}

/// Sends a SYN, and does not wait for an answer.
fn connect(local: SocketAddr, remote: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(local),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    match socket.connect(&remote.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        result => {
            result.with_context(|| format!("connect {local} to {remote}"))?;
            anyhow::bail!("{remote} has answered")
        }
    }
}

/// The number of what this frame answers: of a segment, with a reset or an acceptance, or of an
/// echo request.
fn answered(frame: &[u8]) -> Option<u32> {
    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    const ICMPV6: u8 = 58;
    const REPLIES: [(u8, u8); 2] = [(ICMP, 0), (ICMPV6, 129)];
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;

    let (protocol, carried) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(*frame.get(14)? & 0xf) * 4;
            (*frame.get(23)?, frame.get(14 + header..)?)
        }
        [0x86, 0xdd] => (*frame.get(20)?, frame.get(54..)?),
        _ => return None,
    };
    let word = |at| {
        let bytes = carried.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    };
    if REPLIES.contains(&(protocol, *carried.first()?)) {
        return word(4);
    }
    let flags = *carried.get(13)? & (SYN | RST | ACK);
    match flags {
        _ if protocol != TCP => None,
        // What was refused had acknowledged something.
        RST => Some(word(4)? / SPREAD),
        _ if flags & ACK != 0 => Some(word(8)?.wrapping_sub(1) / SPREAD),
        // The host's own.
        _ => None,
    }
}
