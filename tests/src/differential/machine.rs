//! A host like those that sessions describe: its interfaces send on in every way that one asks for,
//! and its sockets are those of [`places`].

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::places;
use crate::{netns::Namespace, peers};

/// A host of our own, on which the programs are loaded.
pub struct Machine {
    /// The host.
    pub namespace: Namespace,
}

impl Machine {
    /// Sets up the host: interfaces, addresses and routes.
    pub fn new() -> Result<Self> {
        let namespace = Namespace::new("fuzz")?;
        namespace.sysctl("net/ipv6/bindv6only", "1")?;
        namespace.sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        for (index, forwarding) in places::FORWARDING.iter().enumerate() {
            let (v4, v6) = forwarding.routing;
            let name = format!("v{index}");
            namespace.ip(&format!("link add {name} type veth peer name p{index}"))?;
            namespace.ip(&format!("link set {name} up"))?;
            namespace.ip(&format!("link set p{index} up"))?;
            let flag = |on: bool| if on { "1" } else { "0" };
            namespace.sysctl(&format!("net/ipv4/conf/{name}/forwarding"), flag(v4))?;
            namespace.sysctl(&format!("net/ipv6/conf/{name}/forwarding"), flag(v6))?;
        }
        for command in [
            "addr add 10.9.0.2/24 brd 10.9.0.255 dev v0",
            "addr add 10.9.0.22/32 dev v0",
            "addr add fd09::2/64 dev v0 nodad",
            "addr add fd09::22/128 dev v0 nodad",
            "route add 10.20.0.0/16 via 10.9.0.1",
            "route add 192.0.2.0/24 via 10.9.0.1",
            "-6 route add fd20::/32 via fd09::1",
            "-6 route add 2001:db8::/64 via fd09::1",
        ] {
            namespace.ip(command)?;
        }
        Ok(Self { namespace })
    }
}

/// Whatever keeps the host's sockets open.
#[derive(Default)]
pub struct Sockets {
    _datagrams: Vec<UdpSocket>,
    _listeners: Vec<TcpListener>,
    _streams: Vec<TcpStream>,
}

impl Sockets {
    /// Opens those of [`places`]. Must be called on the [`Machine`].
    pub fn open() -> Result<Self> {
        let mut sockets = Self::default();
        for (protocol, local) in places::LISTENERS {
            if i32::from(protocol) == libc::IPPROTO_TCP {
                let listener = TcpListener::bind(local);
                let listener = listener.with_context(|| format!("listen on {local:?}"))?;
                sockets._listeners.push(listener);
            } else {
                let socket = UdpSocket::bind(local);
                let socket = socket.with_context(|| format!("bind to {local:?}"))?;
                sockets._datagrams.push(socket);
            }
        }
        for (protocol, local, peer) in places::CONNECTED {
            if i32::from(protocol) == libc::IPPROTO_TCP {
                let stream = connect(local.into(), peer.into());
                let stream = stream.with_context(|| format!("connect to {peer:?}"))?;
                sockets._streams.push(stream);
            } else {
                let socket = UdpSocket::bind(local);
                let socket = socket.with_context(|| format!("bind to {local:?}"))?;
                socket.connect(peer)?;
                sockets._datagrams.push(socket);
            }
        }
        for listener in &sockets._listeners {
            listener.set_nonblocking(true)?;
            while let Ok((stream, _)) = listener.accept() {
                sockets._streams.push(stream);
            }
        }
        Ok(sockets)
    }
}

/// Connects as soon as there is a way: a busy kernel notes a while later that a link has come up,
/// and has no route to its addresses of IPv6 before.
fn connect(local: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    const PATIENCE: Duration = Duration::from_secs(10);

    let deadline = Instant::now() + PATIENCE;
    loop {
        match peers::connect_from(local, peer) {
            Err(error)
                if error.kind() == io::ErrorKind::NetworkUnreachable
                    || error.kind() == io::ErrorKind::HostUnreachable
                    || error.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                if Instant::now() > deadline {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(10));
            }
            connected => return connected,
        }
    }
}
