//! Y04, Y09: how soon a change is in force, and how few ports a client can do with.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv6Addr, TcpStream},
    os::fd::{AsRawFd, FromRawFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{Family, Outcome::PassKnownFlow};
use guard_tests::{
    clients::{Service, moves},
    frames::{P, udp},
    guard::Guard,
    kernel::Kernel,
    netns::Direct,
    wire::{Listener, Wire},
};

use crate::{MODES, RANGE};

/// How soon a change must be in force.
pub const SOON: Duration = Duration::from_millis(300);
/// How late it may be once in a while, on a busy machine.
const LATE: Duration = Duration::from_secs(2);

/// How long after a change of the range the last frame still went the old way.
pub fn lag(
    topology: &Direct,
    (wire, listener): (&Wire, &Listener),
    range: &str,
    opens: bool,
) -> Result<Duration> {
    let frame = udp(53, 40_000).received(Family::Ipv4);
    topology.guarded.sysctl(RANGE, range)?;
    let changed = Instant::now();
    let mut last = Duration::ZERO;
    // So many frames in a row must go the new way.
    let mut settled = 0;
    while settled < 20 {
        let sent = changed.elapsed();
        ensure!(sent < 2 * LATE, "{range} does not come into force");
        wire.send(&frame)?;
        let arrived = listener.delivered(Duration::from_millis(10)) == 1;
        if arrived == opens {
            settled += 1;
        } else {
            settled = 0;
            last = changed.elapsed();
        }
    }
    Ok(last)
}

#[test]
fn y04_a_change_is_soon_in_force() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let listener = Listener::new(&topology.guarded, 40_000)?;
        let flags = ["--xdp-mode", mode];
        let _guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        let mut lags = Vec::new();
        for round in 0..4 {
            // The changes are to fall into different parts of the guard's own rhythm.
            thread::sleep(Duration::from_millis(37 * round));
            lags.push(lag(&topology, (&wire, &listener), "50000 60999", true)?);
            lags.push(lag(&topology, (&wire, &listener), "32768 60999", false)?);
        }
        lags.sort_unstable();
        println!("Y04, {mode}: in force after {lags:?}");
        let late = lags.iter().filter(|lag| **lag > SOON).count();
        ensure!(
            late <= 1 && lags.iter().all(|lag| *lag < LATE),
            "Y04, {mode}: in force only after {lags:?}"
        );
    }
    Ok(())
}

/// Connects from a port that the kernel takes from 40000 to 40010, and returns the port.
fn connect_from_few(peer: IpAddr) -> io::Result<u16> {
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    let ports: u32 = 40_010 << 16 | 40_000;

    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the file descriptor was just opened, and nobody else has it.
    let mut stream = unsafe { TcpStream::from_raw_fd(fd) };
    let length = size_of_val(&ports) as libc::socklen_t;
    // SAFETY: the option is as long as the call is told.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const ports).cast(),
            length,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }

    let peer: Ipv6Addr = match peer {
        IpAddr::V4(peer) => peer.to_ipv6_mapped(),
        IpAddr::V6(peer) => peer,
    };
    // SAFETY: all zero bytes are a valid address.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    address.sin6_family = libc::AF_INET6 as u16;
    address.sin6_port = 80_u16.to_be();
    address.sin6_addr.s6_addr = peer.octets();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is as long as the call is told.
    let connected =
        unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) };
    if connected != 0 {
        return Err(io::Error::last_os_error());
    }
    // The server closes first: its end lingers, not ours.
    stream.read_to_end(&mut Vec::new())?;
    Ok(stream.local_addr()?.port())
}

#[test]
fn y09_eleven_ports_carry_a_thousand_connections() -> Result<()> {
    // https://git.kernel.org/torvalds/c/91d0b78c5177f3e42a4d8738af8ac19c3a90d002
    if Kernel::new(6, 3).is_missing("the option IP_LOCAL_PORT_RANGE") {
        return Ok(());
    }
    for mode in MODES {
        let topology = Direct::new()?;
        let _server = Service::new(&topology.peer, 80, |_| Ok(()))?;
        let flags = ["--xdp-mode", mode, "--no-rescue"];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        for peer in [IpAddr::V4(P.ipv4), IpAddr::V6(P.ipv6)] {
            let connect = || {
                topology.guarded.run(|| {
                    (0..1000)
                        .map(|_| connect_from_few(peer))
                        .collect::<io::Result<Vec<u16>>>()
                })
            };
            let ports = moves(&guard, &[PassKnownFlow], &[], || Ok(connect()?))
                .with_context(|| format!("Y09, {mode}, {peer}"))?;
            let right = ports.iter().all(|port| (40_000..=40_010).contains(port));
            ensure!(right, "Y09, {mode}, {peer}: other ports: {ports:?}");
        }
    }
    Ok(())
}
