//! Frames on a real interface, and what becomes of them inside the host.

use std::{
    ffi::CString,
    io,
    net::{Ipv6Addr, TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// How long to wait for what should not come.
pub const QUIET: Duration = Duration::from_millis(150);

/// How long a slow machine may take to make room for a frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// An interface, frame by frame.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// Opens `interface` of a host.
    pub fn open(host: &Namespace, interface: &str) -> Result<Self> {
        host.run(|| open(interface))
            .with_context(|| format!("open {interface}"))
    }

    /// Puts a frame on the wire. It must be as long as an Ethernet header.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let fd = self.0.as_raw_fd();
        let deadline = Instant::now() + PATIENCE;
        loop {
            // SAFETY: the buffer is as long as the call is told.
            let sent = unsafe { libc::send(fd, frame.as_ptr().cast(), frame.len(), 0) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            // The far end has no room yet, so it has not seen the frame.
            if error.raw_os_error() != Some(libc::ENOBUFS) || Instant::now() > deadline {
                return Err(error).context("send a frame");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The frames that come in until none has for so long.
    pub fn heard(&self, quiet: Duration) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut deadline = Instant::now() + quiet;
        while Instant::now() < deadline {
            match self.receive() {
                Some((frame, false)) => {
                    frames.push(frame);
                    deadline = Instant::now() + quiet;
                }
                Some((_, true)) => {}
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
        frames
    }

    /// How many TCP segments come in until nothing has for so long. Hosts that have just come up say
    /// other things unasked.
    pub fn segments_heard(&self, quiet: Duration) -> usize {
        const TCP: u8 = 6;

        let is_segment = |frame: &&Vec<u8>| match frame.get(12..14) {
            Some([0x08, 0x00]) => frame.get(23) == Some(&TCP),
            Some([0x86, 0xdd]) => frame.get(20) == Some(&TCP),
            _ => false,
        };
        self.heard(quiet).iter().filter(is_segment).count()
    }

    /// A frame, and whether it is one that this host has sent.
    fn receive(&self) -> Option<(Vec<u8>, bool)> {
        const OUTGOING: u8 = libc::PACKET_OUTGOING;

        let mut frame = vec![0; 65_536];
        // SAFETY: all zero bytes are a valid address, which the call may overwrite.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut from_length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: both buffers are as long as the call is told.
        let length = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                frame.as_mut_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut from_length,
            )
        };
        frame.truncate(usize::try_from(length).ok()?);
        Some((frame, from.sll_pkttype == OUTGOING))
    }
}

/// For socket options that few suites need.
impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn open(interface: &str) -> io::Result<Wire> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let name = CString::new(interface)?;
    // SAFETY: no memory is involved.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            i32::from(protocol),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the file descriptor was just opened, and nobody else has it.
    let wire = Wire(unsafe { OwnedFd::from_raw_fd(fd) });

    // SAFETY: the name ends in zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    // SAFETY: all zero bytes are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is as long as the call is told.
    if index == 0 || unsafe { libc::bind(fd, (&raw const address).cast(), length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(wire)
}

/// A UDP socket that hears everybody, over both families.
#[derive(Debug)]
pub struct Listener(UdpSocket);

impl Listener {
    /// Listens on a port of a host.
    pub fn new(host: &Namespace, port: u16) -> Result<Self> {
        let socket = host
            .run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
            .with_context(|| format!("listen on UDP port {port}"))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// The datagrams that were delivered until none has been for so long.
    pub fn delivered(&self, quiet: Duration) -> usize {
        let mut buffer = [0; 2048];
        count(quiet, || self.0.recv_from(&mut buffer).is_ok())
    }

    /// The socket itself, to send from.
    pub const fn socket(&self) -> &UdpSocket {
        &self.0
    }
}

/// A TCP socket that accepts everybody, over both families.
#[derive(Debug)]
pub struct Acceptor(TcpListener);

impl Acceptor {
    /// Listens on a port of a host.
    pub fn new(host: &Namespace, port: u16) -> Result<Self> {
        let socket = host
            .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
            .with_context(|| format!("listen on TCP port {port}"))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// The connections that were accepted until none has been for so long.
    pub fn accepted(&self, quiet: Duration) -> usize {
        count(quiet, || self.0.accept().is_ok())
    }
}

/// How often something has arrived until nothing has for so long.
pub fn count(quiet: Duration, mut arrived: impl FnMut() -> bool) -> usize {
    let mut total = 0;
    let mut deadline = Instant::now() + quiet;
    while Instant::now() < deadline {
        if arrived() {
            total += 1;
            deadline = Instant::now() + quiet;
        } else {
            thread::sleep(Duration::from_millis(2));
        }
    }
    total
}
