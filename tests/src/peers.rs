//! Both ends of a conversation, held by one test.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{netns::Namespace, sent};

/// What the far end says.
const NEWS: &[u8; 4] = b"news";

/// A conversation in which the far end can speak first.
pub trait Talk {
    /// The far end speaks.
    fn speak(&mut self) -> io::Result<()>;

    /// Whether the near end has heard it, within so long.
    fn hears(&mut self, patience: Duration) -> bool;
}

/// How many near ends hear what their far ends say, all of which speak first.
pub fn alive(talks: &mut [impl Talk], patience: Duration) -> Result<usize> {
    for talk in &mut *talks {
        talk.speak().context("the far end speaks")?;
    }
    let deadline = Instant::now() + patience;
    let hears = |talk: &mut _| {
        let left = deadline.saturating_duration_since(Instant::now());
        Talk::hears(talk, left.max(Duration::from_millis(1)))
    };
    Ok(talks.iter_mut().map(hears).filter(|heard| *heard).count())
}

/// A TCP connection.
#[derive(Debug)]
pub struct Connection {
    /// The end that has asked for it.
    pub client: TcpStream,
    /// The end that was asked.
    pub server: TcpStream,
}

impl Connection {
    /// Connects `client` to `server`, so many times, each from a port of its own.
    pub fn open(
        client: &Namespace,
        server: &Namespace,
        address: impl Into<SocketAddr>,
        count: usize,
    ) -> Result<Vec<Self>> {
        let address = address.into();
        let listener = listen(server, address)?;
        client.run(|| {
            let connect = |_| Self::pair(&listener, || TcpStream::connect(address));
            (0..count).map(connect).collect()
        })
    }

    /// Connects once from `local`, which may have been in use a moment ago.
    pub fn open_from(
        local: SocketAddr,
        (client, server): (&Namespace, &Namespace),
        address: SocketAddr,
    ) -> Result<Self> {
        let listener = listen(server, address)?;
        client.run(|| Self::pair(&listener, || connect_from(local, address)))
    }

    /// Connects once where the server sees another address than the client's own.
    pub fn open_masqueraded(
        client: &Namespace,
        server: &Namespace,
        address: SocketAddr,
    ) -> Result<Self> {
        Self::open_masqueraded_from(0, (client, server), address)
    }

    /// As [`open_masqueraded`](Self::open_masqueraded), from a port of the client, or from any
    /// where it is 0.
    pub fn open_masqueraded_from(
        port: u16,
        (client, server): (&Namespace, &Namespace),
        address: SocketAddr,
    ) -> Result<Self> {
        let listener = listen(server, address)?;
        let local = SocketAddr::new(unspecified(address.ip()), port);
        let client = client.run(|| connect_from(local, address))?;
        let (server, from) = listener.accept()?;
        let own = client.local_addr()?;
        ensure!(from.ip() != own.ip(), "{from} is not masqueraded");
        Ok(Self { client, server })
    }

    /// Connects `client` to one address where `server` listens on another.
    pub fn open_translated(
        client: &Namespace,
        server: &Namespace,
        (asked, listening): (SocketAddr, SocketAddr),
    ) -> Result<Self> {
        let listener = listen(server, listening)?;
        let client = client
            .run(|| TcpStream::connect(asked))
            .with_context(|| format!("connect to {asked}"))?;
        let (server, _) = listener.accept()?;
        Ok(Self { client, server })
    }

    fn pair(
        listener: &TcpListener,
        connect: impl FnOnce() -> io::Result<TcpStream>,
    ) -> Result<Self> {
        let client = connect().context("connect")?;
        let (server, from) = listener.accept()?;
        ensure!(from == client.local_addr()?, "{from} is somebody else");
        Ok(Self { client, server })
    }
}

impl Talk for Connection {
    fn speak(&mut self) -> io::Result<()> {
        self.server.write_all(NEWS)
    }

    fn hears(&mut self, patience: Duration) -> bool {
        let mut heard = [0; NEWS.len()];
        let mut read = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(patience))?;
            stream.read_exact(&mut heard)
        };
        read(&mut self.client).is_ok() && heard == *NEWS
    }
}

/// Listens on a host.
fn listen(host: &Namespace, address: SocketAddr) -> Result<TcpListener> {
    bound(host, || TcpListener::bind(address)).with_context(|| format!("listen on {address}"))
}

/// Binds a socket on a host. Where somebody was bound a moment ago, a program that another test is
/// just starting may still hold the socket, until it has become that program.
pub fn bound<S: Send>(
    host: &Namespace,
    bind: impl Fn() -> io::Result<S> + Send + Sync,
) -> io::Result<S> {
    const PATIENCE: Duration = Duration::from_secs(2);

    let deadline = Instant::now() + PATIENCE;
    loop {
        match host.run(&bind) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            bound => return bound,
        }
    }
}

/// Connects a TCP socket that is bound to `local`.
pub fn connect_from(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    use std::os::fd::FromRawFd;

    let family = match local {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the file descriptor was just opened, and nobody else has it.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    let on: libc::c_int = 1;
    // SAFETY: the option is as long as the call is told.
    unsafe {
        let length = size_of_val(&on) as libc::socklen_t;
        let option = libc::SO_REUSEADDR;
        libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const on).cast(), length);
    }
    bind(&stream, local)?;
    let (address, length) = raw(remote);
    // SAFETY: the address is at least as long as the call is told.
    if unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stream)
}

/// Binds a socket.
pub fn bind(socket: &impl AsRawFd, local: SocketAddr) -> io::Result<()> {
    let (address, length) = raw(local);
    // SAFETY: the address is at least as long as the call is told.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// An address as system calls take it.
fn raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zero bytes are a valid address.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = (&raw mut storage).cast::<libc::sockaddr_in>();
            // SAFETY: the storage is large and aligned enough for any address.
            unsafe {
                (*raw).sin_family = libc::AF_INET as u16;
                (*raw).sin_port = v4.port().to_be();
                (*raw).sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            }
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = (&raw mut storage).cast::<libc::sockaddr_in6>();
            // SAFETY: as above.
            unsafe {
                (*raw).sin6_family = libc::AF_INET6 as u16;
                (*raw).sin6_port = v6.port().to_be();
                (*raw).sin6_addr.s6_addr = v6.ip().octets();
                (*raw).sin6_scope_id = v6.scope_id();
            }
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// Two UDP sockets.
#[derive(Debug)]
pub struct Exchange {
    /// The end that has asked.
    pub client: UdpSocket,
    /// The end that was asked.
    pub server: UdpSocket,
    peer: SocketAddr,
}

impl Exchange {
    /// Asks `server` at `address` so many times, each time from a socket of its own, which is
    /// connected or hears everybody.
    pub fn open(
        client: &Namespace,
        server: &Namespace,
        address: impl Into<SocketAddr>,
        connected: bool,
        count: usize,
    ) -> Result<Vec<Self>> {
        let address = address.into();

        Self::open_translated(client, server, (address, address), connected, count)
    }

    /// As [`open`](Self::open), where `server` is bound to another address than it is asked at.
    pub fn open_translated(
        client: &Namespace,
        server: &Namespace,
        (address, listening): (SocketAddr, SocketAddr),
        connected: bool,
        count: usize,
    ) -> Result<Vec<Self>> {
        let server = bound(server, || UdpSocket::bind(listening))
            .with_context(|| format!("listen on {listening}"))?;
        server.set_read_timeout(Some(Duration::from_secs(2)))?;
        sent::hear_of_losses(&server)?;
        client.run(|| {
            let ask = |_| {
                let client = UdpSocket::bind((unspecified(address.ip()), 0))?;
                if connected {
                    client.connect(address)?;
                    client.send(b"query")?;
                } else {
                    client.send_to(b"query", address)?;
                }
                let (_, peer) = server.recv_from(&mut [0; 16]).context("no query")?;
                Ok(Self {
                    client,
                    server: server.try_clone()?,
                    peer,
                })
            };
            (0..count).map(ask).collect()
        })
    }
}

impl Exchange {
    /// The client, as the server sees it.
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl Talk for Exchange {
    fn speak(&mut self) -> io::Result<()> {
        sent::send(&self.server, NEWS, self.peer)
    }

    fn hears(&mut self, patience: Duration) -> bool {
        let mut heard = [0; NEWS.len()];
        let mut read = |socket: &UdpSocket| {
            socket.set_read_timeout(Some(patience))?;
            socket.recv(&mut heard)
        };
        read(&self.client).is_ok() && heard == *NEWS
    }
}

/// The address that stands for all of a family.
pub const fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

impl Talk for Box<dyn Talk + Send> {
    fn speak(&mut self) -> io::Result<()> {
        (**self).speak()
    }

    fn hears(&mut self, patience: Duration) -> bool {
        (**self).hears(patience)
    }
}
