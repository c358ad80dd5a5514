//! The flows of a host: everything on the way has seen what was sent.
//!
//! Two kinds. Answers come to one socket that has sent to many, so that anyone who lets them in has
//! many flows to tell apart. Ports in use are one flow each: through portguard, unless its
//! [`Terms`](crate::contender::Terms) say otherwise, with a connected socket behind every one,
//! because that is what a rescue asks for; through the others with frames of a raw socket, which
//! conntrack cannot tell from those, because sockets of many namespaces share the kernel's tables
//! and would slow down each other's look-ups.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    frames::{G, P, tcp, udp},
    netns::Direct,
};

use super::holder::{Holder, Transport};

/// Flows of each kind.
pub const FLOWS: u32 = 10_000;
/// The first local port in use.
pub const FLOW_PORT: u16 = 40_000;
/// The remote port of ports in use.
pub const SERVICE: u16 = 443;
/// The local port that answers come to.
pub const ANSWERED_PORT: u16 = 39_000;
/// The first remote port that answers.
pub const ANSWERING_PORT: u16 = 20_000;

/// Live flows of one family, for as long as this lives.
pub struct Population {
    _answered: UdpSocket,
    _sockets: Option<Sockets>,
}

impl Population {
    /// Lets the guarded host of a contender open its flows.
    pub fn new(hosts: &Direct, family: Family, with_sockets: bool) -> Result<Self> {
        let answered = answered(hosts, family).context("ask for answers")?;
        let sockets = if with_sockets {
            Some(Sockets::open(hosts, family)?)
        } else {
            hosts
                .guarded
                .run(send_raw)
                .context("send by a raw socket")?;
            None
        };
        Ok(Self {
            _answered: answered,
            _sockets: sockets,
        })
    }
}

/// A socket that has asked on many ports. Nobody reads the answers, so it has room for few.
fn answered(hosts: &Direct, family: Family) -> io::Result<UdpSocket> {
    let local = SocketAddr::new(G.address(family), ANSWERED_PORT);
    let socket = hosts.guarded.run(|| UdpSocket::bind(local))?;
    least_buffer(&socket)?;
    for port in (ANSWERING_PORT..).take(FLOWS as usize) {
        // The peer's host may say that nobody is there, which is not what was asked.
        let _ = socket.send_to(b"query", (P.address(family), port));
    }
    Ok(socket)
}

/// A connected UDP socket and a TCP connection on every port in use.
struct Sockets {
    _holders: [Holder; 2],
    /// Takes what is sent, or each datagram is answered by an error.
    _sink: UdpSocket,
    /// Nobody takes the connections off its hands, which needs no file.
    _listener: TcpListener,
}

impl Sockets {
    fn open(hosts: &Direct, family: Family) -> Result<Self> {
        const BACKLOG: i32 = 65_535;

        hosts
            .peer
            .sysctl("net/core/somaxconn", &BACKLOG.to_string())?;
        let service = SocketAddr::new(P.address(family), SERVICE);
        let sink = hosts.peer.run(|| UdpSocket::bind(service))?;
        least_buffer(&sink)?;
        let listener = hosts.peer.run(|| TcpListener::bind(service))?;
        // SAFETY: no memory is involved.
        let heard = unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) };
        ensure!(heard == 0, "listen: {}", io::Error::last_os_error());
        let holder = |transport| Holder::start(hosts, transport, family);
        let mut holders = [holder(Transport::Udp)?, holder(Transport::Tcp)?];
        holders.iter_mut().try_for_each(Holder::wait)?;
        Ok(Self {
            _holders: holders,
            _sink: sink,
            _listener: listener,
        })
    }
}

/// Sends a datagram and a SYN from every port in use, as IPv4, through the host's own stack.
fn send_raw() -> io::Result<()> {
    const ETHERNET: usize = 14;

    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the file descriptor was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let to = address(P.ipv4);
    for port in (FLOW_PORT..).take(FLOWS as usize) {
        for frame in [udp(port, SERVICE), tcp(port, SERVICE).syn()] {
            let packet = &frame.sent(Family::Ipv4)[ETHERNET..];
            // SAFETY: the packet and the address are as long as the call is told.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    packet.as_ptr().cast(),
                    packet.len(),
                    0,
                    (&raw const to).cast(),
                    size_of_val(&to) as libc::socklen_t,
                )
            };
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

fn address(ip: Ipv4Addr) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(ip.octets()),
        },
        sin_zero: [0; 8],
    }
}

/// Leaves a socket room for one datagram or two.
pub fn least_buffer(socket: &UdpSocket) -> io::Result<()> {
    let least: libc::c_int = 0;
    // SAFETY: the option is as long as the call is told.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const least).cast(),
            size_of_val(&least) as libc::socklen_t,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
