//! Rules that choose a route by the type of service, or by who sends an ICMP error.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd,
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropIcmpUnrelated, DropNoFlow, PassNotLocal},
};
use guard_tests::{
    frames::{End, Error, FAR, G, icmp_error, udp},
    guard::Guard,
    peers::unspecified,
    wire::{Listener, QUIET, Wire},
};

use super::{FAMILIES, MODES, behind::Behind};

/// The class that leads here what others send on, and the one that sends on what nobody does.
const HERE: libc::c_int = 0x10;
const FORWARDED: libc::c_int = 0x08;

const fn end(number: u8) -> End {
    End {
        ipv4: Ipv4Addr::new(10, 20, number, 9),
        ipv6: Ipv6Addr::new(0xfd20, 0, number as u16, 0, 0, 0, 0, 9),
        ..G
    }
}

/// Delivered here by its class, and sent on without.
const BY_CLASS: End = end(1);
/// Sent on by its class, and unreachable without.
const AWAY: End = end(2);
/// Delivered here if the peer sends it, and sent on otherwise.
const BY_SENDER: End = end(3);

fn set_up(behind: &Behind) -> Result<()> {
    let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
    for (family, address, prefix, via, sender) in [
        ("-4", "10.20.", "16", "10.9.5.2", "10.9.0.1"),
        ("-6", "fd20:0:", "32", "fd05::2", "fd09::1"),
    ] {
        let one = |number: u8| match family {
            "-4" => format!("{address}{number}.9/32"),
            _ => format!("{address}{number}::9/128"),
        };
        let all = match family {
            "-4" => format!("10.20.0.0/{prefix}"),
            _ => format!("fd20::/{prefix}"),
        };
        for command in [
            format!("route add {all} via {via} dev gc"),
            format!("route add unreachable {}", one(2)),
            format!("rule add tos {HERE:#x} lookup 71"),
            format!("route add local {} dev lo table 71", one(1)),
            format!("rule add tos {FORWARDED:#x} lookup 72"),
            format!("route add {} via {via} dev gc table 72", one(2)),
            format!("rule add from {sender} lookup 73"),
            format!("route add local {} dev lo table 73", one(3)),
        ] {
            host.ip(&format!("{family} {command}"))?;
        }
        let gateway = if family == "-4" {
            "10.9.0.2"
        } else {
            "fd09::2"
        };
        peer.ip(&format!("{family} route add {all} via {gateway}"))?;
    }
    Ok(())
}

fn class(socket: &UdpSocket, family: Family, class: libc::c_int) -> Result<()> {
    let (level, option) = match family {
        Family::Ipv6 => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        Family::Ipv4 | Family::Other => (libc::IPPROTO_IP, libc::IP_TOS),
    };
    // SAFETY: the value is as long as the call is told.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const class).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    ensure!(set == 0, "class: {}", io::Error::last_os_error());
    Ok(())
}

#[test]
fn routes_are_asked_as_the_kernel_asks_them() -> Result<()> {
    const PORT: u16 = 45_000;

    for mode in MODES {
        let behind = Behind::routed()?;
        set_up(&behind)?;
        let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
        let listener = Listener::new(host, PORT)?;
        let container = Wire::open(&behind.container, "vc")?;
        let wire = Wire::open(peer, behind.topology.peer_interface())?;
        let send = |family, to: IpAddr, number| -> Result<()> {
            peer.run(|| -> Result<()> {
                let socket = UdpSocket::bind((unspecified(to), 0))?;
                class(&socket, family, number)?;
                socket.send_to(b"who is it for?", (to, PORT))?;
                Ok(())
            })
        };
        let arrives = |family| -> Result<usize> {
            send(family, BY_CLASS.address(family), HERE)?;
            Ok(listener.delivered(QUIET))
        };
        let is_forwarded = |family| -> Result<bool> {
            container.heard(std::time::Duration::from_millis(20));
            send(family, AWAY.address(family), FORWARDED)?;
            let heard = container.heard(QUIET);
            Ok(heard.iter().any(|frame| frame.ends_with(b"who is it for?")))
        };
        for family in FAMILIES {
            ensure!(
                arrives(family)? == 1,
                "{family:?}: not here without a guard"
            );
            ensure!(
                is_forwarded(family)?,
                "{family:?}: not sent on without a guard"
            );
        }

        let guard = Guard::start(host, behind.topology.interface(), &["--xdp-mode", mode])?;
        for family in FAMILIES {
            let name = || format!("{mode}, {family:?}");
            guard.expect([(DropNoFlow, 1)], || {
                ensure!(arrives(family)? == 0, "{}: delivered", name());
                Ok(())
            })?;
            guard.expect([(PassNotLocal, 1)], || {
                ensure!(is_forwarded(family)?, "{}: cut off", name());
                Ok(())
            })?;
            // An error goes where its own sender and destination lead it.
            let about = udp(40_000, 443).from(BY_SENDER).to(FAR);
            let error = icmp_error(Error::PortUnreachable, about).to(BY_SENDER);
            guard.expect([(DropIcmpUnrelated, 1)], || {
                wire.send(&error.received(family))
            })?;
            guard.expect([(PassNotLocal, 1)], || {
                wire.send(&error.clone().from(FAR).received(family))
            })?;
        }
    }
    Ok(())
}
