//! Y01: the kernel's tunnels are exposed where they receive and while they do, and nothing else is
//! because no process is found that has it open.

use std::{
    fs, io,
    mem::{size_of, zeroed},
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    os::{
        fd::{AsRawFd, IntoRawFd, RawFd},
        unix::net::UnixDatagram,
    },
    ptr,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{self, DropNoFlow, PassExempt},
};
use guard_tests::{
    frames::udp,
    guard::Guard,
    netns::{Direct, Namespace},
    wire::{QUIET, Wire, count},
};
use socket2::{Domain, Socket, Type};

use crate::{FAMILIES, MODES, PATIENCE, RANGE};

const VXLAN: u16 = 4789;
const PORT: u16 = 40_000;

/// A socket that hears IPv6 alone.
fn of_ipv6(host: &Namespace, port: u16) -> Result<UdpSocket> {
    let socket = host.run(|| -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        socket.set_only_v6(true)?;
        socket.bind(&(std::net::SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).into())?;
        Ok(socket)
    })?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn delivered(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 2048];
    count(QUIET, || socket.recv_from(&mut buffer).is_ok())
}

/// Waits until frames to the port of the tunnel become of this.
fn becomes(guard: &Guard, wire: &Wire, family: Family, outcome: Outcome) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let before = guard.packets()?.of(outcome);
        wire.send(&udp(53, VXLAN).received(family))?;
        thread::sleep(Duration::from_millis(100));
        if guard.packets()?.of(outcome) > before {
            return Ok(());
        }
    }
    anyhow::bail!("{family:?} is not {outcome:?} in time: {}", guard.said())
}

#[test]
fn y01_a_tunnel_is_exposed_where_it_receives_while_it_does() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        host.sysctl(RANGE, "1024 65535")?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let other = of_ipv6(host, VXLAN)?;
        wire.send(&udp(53, VXLAN).received(Family::Ipv6))?;
        ensure!(delivered(&other) == 1, "{mode}: the control hears nothing");
        host.ip("link add vx type vxlan id 5 dstport 4789 remote 10.9.0.1 dev vg")?;
        set_up(host)?;
        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;

        // Of its own family alone, no matter who has the port of the other.
        let row = |what: &str| format!("Y01, {mode}, {what}");
        for (family, outcome) in [(Family::Ipv4, PassExempt), (Family::Ipv6, DropNoFlow)] {
            guard
                .expect([(outcome, 1)], || {
                    wire.send(&udp(53, VXLAN).received(family))
                })
                .with_context(|| row("up"))?;
        }
        ensure!(delivered(&other) == 0, "{}", row("the other family hears"));

        // Only while it has a socket.
        for (change, outcome) in [
            ("link set vx down", DropNoFlow),
            ("link set vx up", PassExempt),
            ("link del vx", DropNoFlow),
        ] {
            host.ip(change)?;
            becomes(&guard, &wire, Family::Ipv4, outcome).with_context(|| row(change))?;
        }
        let next = host.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, VXLAN)))?;
        next.set_nonblocking(true)?;
        guard.expect([(DropNoFlow, 1)], || {
            wire.send(&udp(53, VXLAN).received(Family::Ipv4))
        })?;
        ensure!(delivered(&next) == 0, "{}", row("the next one hears"));

        // One that comes while the guard is there, over the other family.
        drop((next, other));
        host.ip("link add vx type vxlan id 5 dstport 4789 remote fd09::1 dev vg")?;
        set_up(host)?;
        becomes(&guard, &wire, Family::Ipv6, PassExempt).with_context(|| row("IPv6"))?;
        becomes(&guard, &wire, Family::Ipv4, DropNoFlow).with_context(|| row("IPv6"))?;
    }
    Ok(())
}

/// Sets the tunnel up. A process that another test is just starting may have had a copy of the socket
/// that held its port.
fn set_up(host: &Namespace) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match host.ip("link set vx up") {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            done => return done,
        }
    }
}

/// Anyone who has a socket open that /proc does not show.
enum Hidden {
    Thread(Sender<()>, Option<JoinHandle<()>>),
    Process(libc::pid_t),
    Message(UnixDatagram, UnixDatagram),
}

impl Hidden {
    /// In a thread with descriptors of its own.
    fn in_a_thread(host: &Namespace) -> Result<Self> {
        let (release, released) = channel();
        let (open, opened) = channel();
        let thread = host.run(|| {
            // Its network namespace is that of the thread that starts it.
            thread::spawn(move || {
                // SAFETY: the thread has no descriptors that others wait for it to close.
                let apart = unsafe { libc::unshare(libc::CLONE_FILES) };
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT));
                let _ = open.send(apart == 0 && socket.is_ok());
                let _ = released.recv();
            })
        });
        ensure!(opened.recv()?, "the thread has no socket of its own");
        Ok(Self::Thread(release, Some(thread)))
    }

    /// In a process whose first thread has ended.
    fn in_a_process(host: &Namespace) -> Result<Self> {
        extern "C" fn wait(_: *mut libc::c_void) -> libc::c_int {
            loop {
                // SAFETY: it waits, and touches nothing.
                unsafe { libc::pause() };
            }
        }
        const STACK: usize = 64 * 1024;
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD;
        let mut stack = vec![0u8; STACK];
        let child = host.run(|| {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
            // SAFETY: the child makes system calls alone, on a stack that is its own copy.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: as above; the stack is aligned as every allocation of that size is.
                unsafe {
                    let top = stack.as_mut_ptr().add(STACK).cast();
                    libc::clone(wait, top, flags, ptr::null_mut());
                    libc::syscall(libc::SYS_exit, 0);
                }
            }
            drop(socket);
            if child < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(child)
        })?;
        let hidden = Self::Process(child);
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_to_string(format!("/proc/{child}/stat"))?.contains(") Z ") {
            ensure!(Instant::now() < deadline, "the first thread does not end");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(hidden)
    }

    /// In a message that nobody has received.
    fn in_a_message(host: &Namespace) -> Result<Self> {
        let (from, to) = UnixDatagram::pair()?;
        let socket = host.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))?;
        let fd = socket.into_raw_fd();
        let sent = send_descriptor(&from, fd);
        // SAFETY: nobody else closes it.
        unsafe { libc::close(fd) };
        sent?;
        Ok(Self::Message(from, to))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        match self {
            Self::Thread(release, thread) => {
                let _ = release.send(());
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            // SAFETY: no memory is involved, and the process is this one's child.
            Self::Process(child) => unsafe {
                libc::kill(*child, libc::SIGKILL);
                libc::waitpid(*child, ptr::null_mut(), 0);
            },
            Self::Message(from, to) => {
                let _ = from.shutdown(std::net::Shutdown::Both);
                let _ = to.shutdown(std::net::Shutdown::Both);
            }
        }
    }
}

fn send_descriptor(socket: &UnixDatagram, fd: RawFd) -> io::Result<()> {
    let mut byte = 0u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = [0u64; 8];
    // SAFETY: all zero bytes are a message header; what it points to outlives the call, and there
    // is room for the control message.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        if libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Bytes that wait in the sockets of a port.
fn waiting(host: &Namespace) -> Result<u64> {
    let table = host.run(|| fs::read_to_string("/proc/thread-self/net/udp6"))?;
    let end = format!(":{PORT:04X}");
    let mut bytes = 0;
    for line in table.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        let (Some(local), Some(queues)) = (words.get(1), words.get(4)) else {
            continue;
        };
        if local.ends_with(&end) {
            let received = queues.split(':').nth(1).context("no queue")?;
            bytes += u64::from_str_radix(received, 16)?;
        }
    }
    Ok(bytes)
}

#[test]
fn y01_a_socket_that_no_process_is_seen_to_have_stays_guarded() -> Result<()> {
    type Way = fn(&Namespace) -> Result<Hidden>;
    let ways: [(&str, Way); 3] = [
        ("a thread", Hidden::in_a_thread),
        ("a process", Hidden::in_a_process),
        ("a message", Hidden::in_a_message),
    ];
    for mode in MODES {
        for (name, open) in ways {
            let topology = Direct::new()?;
            let host = &topology.guarded;
            let hidden = open(host).with_context(|| format!("{mode}, {name}"))?;
            let wire = Wire::open(&topology.peer, topology.peer_interface())?;
            for family in FAMILIES {
                let before = waiting(host)?;
                wire.send(&udp(53, PORT).received(family))?;
                thread::sleep(QUIET);
                let arrives = waiting(host)? > before;
                ensure!(arrives, "{mode}, {name}, {family:?}: nothing arrives");
            }
            let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
            // The names of listeners may come a little later.
            thread::sleep(Duration::from_secs(1));
            let before = waiting(host)?;
            for family in FAMILIES {
                guard
                    .expect([(DropNoFlow, 1)], || {
                        wire.send(&udp(53, PORT).received(family))
                    })
                    .with_context(|| format!("Y01, {mode}, {name}"))?;
            }
            ensure!(waiting(host)? == before, "{mode}, {name}: it hears");
            let said = guard.said();
            ensure!(!said.contains("left open"), "{mode}, {name}: {said}");
            drop(hidden);
        }
    }
    Ok(())
}
