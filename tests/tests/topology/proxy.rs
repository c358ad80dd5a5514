//! A transparent proxy on a host that does not forward (H8).

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassNotLocal},
};
use guard_tests::{
    frames::{End, G, tcp},
    guard::Guard,
    netns::{Direct, Namespace},
    wire::{QUIET, Wire, count},
};

use super::{FAMILIES, MODES};

/// Where the firewall leads connections.
const PROXY: u16 = 8080;
/// What clients ask for: a port of the proxy's own range.
const ASKED: u16 = 45_000;
/// How long the daemon may take to hear of routes.
const PATIENCE: Duration = Duration::from_secs(5);

const RULES: &str = "table inet proxy { chain pre { type filter hook prerouting priority mangle; \
     ip daddr 198.51.100.0/24 meta l4proto tcp tproxy ip to :8080 meta mark set 7 accept; \
     ip6 daddr 2001:db8:7::/64 meta l4proto tcp tproxy ip6 to :8080 meta mark set 7 accept; }; }";

fn asked(family: Family) -> SocketAddr {
    let address: IpAddr = match family {
        Family::Ipv6 => "2001:db8:7::9".parse(),
        Family::Ipv4 | Family::Other => "198.51.100.9".parse(),
    }
    .expect("is an address");
    (address, ASKED).into()
}

fn rule(host: &Namespace, what: &str) -> Result<()> {
    for family in ["-4", "-6"] {
        host.ip(&format!("{family} rule {what} fwmark 7 lookup 100"))?;
        host.ip(&format!(
            "{family} route {what} local default dev lo table 100"
        ))?;
    }
    Ok(())
}

/// A listener that takes connections to any address, in both families.
fn proxy(host: &Namespace) -> Result<[OwnedFd; 2]> {
    host.run(|| {
        let open = |family: libc::c_int, level: libc::c_int, transparent: libc::c_int| {
            let one: libc::c_int = 1;
            // SAFETY: no memory is involved.
            let fd = unsafe {
                libc::socket(
                    family,
                    libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                    0,
                )
            };
            ensure!(fd >= 0, "socket: {}", io::Error::last_os_error());
            // SAFETY: the file descriptor was just opened, and nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            for (level, option) in [
                (libc::SOL_SOCKET, libc::SO_REUSEADDR),
                (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
                (level, transparent),
            ] {
                // SAFETY: the value is as long as the call is told. The option of the other family
                // is refused.
                unsafe {
                    libc::setsockopt(fd, level, option, (&raw const one).cast(), 4);
                }
            }
            // SAFETY: all zero bytes are the unspecified address.
            let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            address.sin6_family = family as libc::sa_family_t;
            address.sin6_port = PROXY.to_be();
            let length = if family == libc::AF_INET { 16 } else { 28 };
            // SAFETY: family and port are where both kinds of address have them.
            let bound = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
            // SAFETY: no memory is involved.
            let listens = bound == 0 && unsafe { libc::listen(fd, 16) } == 0;
            ensure!(listens, "listen: {}", io::Error::last_os_error());
            Ok(socket)
        };
        Ok([
            open(libc::AF_INET, libc::SOL_IP, libc::IP_TRANSPARENT)?,
            open(libc::AF_INET6, libc::SOL_IPV6, libc::IPV6_TRANSPARENT)?,
        ])
    })
}

#[test]
fn h8_clients_of_a_transparent_proxy_are_served() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        host.sysctl("net/ipv4/ip_forward", "0")?;
        peer.ip("route add 198.51.100.0/24 via 10.9.0.2")?;
        peer.ip("-6 route add 2001:db8:7::/64 via fd09::2")?;
        let status = host.command("nft").arg(RULES).status().context("nft")?;
        ensure!(status.success(), "nft takes no {RULES}");
        rule(host, "add")?;
        let listeners = proxy(host)?;
        let served = |family| {
            let client = peer
                .run(|| TcpStream::connect_timeout(&asked(family), Duration::from_millis(1_500)));
            // Anyone who is served is told so by the address that was asked.
            client.is_ok_and(|client| client.peer_addr().is_ok_and(|one| one == asked(family)))
        };
        for family in FAMILIES {
            ensure!(served(family), "{family:?}: not without a guard");
        }

        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        let wire = Wire::open(peer, topology.peer_interface())?;
        for family in FAMILIES {
            let before = guard.packets()?;
            ensure!(served(family), "{mode}, {family:?}: cut off");
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(PassNotLocal) >= 1, "{mode}, {family:?}:{moved}");
            // This host's own ports are guarded all the same.
            guard.expect([(DropNoFlow, 1)], || {
                wire.send(&tcp(443, ASKED).syn().to(G).received(family))
            })?;
        }

        // Without the routes nothing leads such packets here.
        rule(host, "del")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = guard.packets()?;
            let frame = tcp(443, ASKED).syn().to(elsewhere());
            wire.send(&frame.received(Family::Ipv4))?;
            count(QUIET, || false);
            if guard.packets()?.since(&before).of(DropNoFlow) == 1 {
                break;
            }
            ensure!(Instant::now() < deadline, "{mode}: still a proxy");
            thread::sleep(Duration::from_millis(50));
        }
        drop(listeners);
    }
    Ok(())
}

/// Another host, by way of this one.
fn elsewhere() -> End {
    End {
        ipv4: std::net::Ipv4Addr::new(198, 51, 100, 9),
        ..G
    }
}
