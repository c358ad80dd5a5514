//! Errors, genuine and forged.

use std::{io::ErrorKind, net::UdpSocket, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropIcmpUnrelated, PassIcmpOutside, PassIcmpRelated, PassNewFlow},
};
use guard_tests::{
    frames::{End, Error, FAR, Frame, G, P, icmp, icmp_error, tcp, udp},
    guard::Guard,
    netns::Direct,
    wire::{Listener, QUIET, Wire},
};

use super::{
    FAMILIES, MODES,
    kernel::{errors, forget_paths, has_small_path},
};

/// Forged errors of each kind.
const FORGED: u16 = 500;

#[test]
fn i02_a_closed_port_refuses_the_connection() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let refused = |family| {
            let [local, remote] = [G, P].map(|end| match family {
                Family::Ipv6 => std::net::IpAddr::from(end.ipv6),
                Family::Ipv4 | Family::Other => end.ipv4.into(),
            });
            topology.guarded.run(|| -> Result<()> {
                let socket = UdpSocket::bind((local, 0))?;
                socket.connect((remote, 9))?;
                socket.set_read_timeout(Some(Duration::from_secs(1)))?;
                socket.send(b"anybody there?")?;
                let error = socket.recv(&mut [0; 64]).err();
                let kind = error.context("somebody answers")?.kind();
                ensure!(kind == ErrorKind::ConnectionRefused, "{kind}");
                Ok(())
            })
        };
        for family in FAMILIES {
            refused(family).with_context(|| format!("{family:?}, without a guard"))?;
        }
        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        for family in FAMILIES {
            guard
                .expect([(PassNewFlow, 1), (PassIcmpRelated, 1)], || refused(family))
                .with_context(|| format!("{mode}, {family:?}"))?;
        }
    }
    Ok(())
}

/// Errors about what this host never sent, from all over the range and about many peers.
fn forged() -> Vec<Frame> {
    (0..FORGED)
        .flat_map(|number| {
            let [high, low] = number.to_be_bytes();
            let mut peer = FAR;
            peer.ipv4 = [198, 18, high, low].into();
            let local = 32_768 + number * 56;
            [
                icmp_error(Error::TooBig, udp(local, 53).to(peer)),
                icmp_error(Error::PortUnreachable, tcp(local, 443).to(peer)),
            ]
        })
        .collect()
}

#[test]
fn i03_forged_errors_do_nothing() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        // The kernel believes an error about a socket that could have sent what is quoted.
        let _resolver = Listener::new(host, 40_000)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let about_resolver = icmp_error(Error::TooBig, udp(40_000, 53)).from(FAR);
        let mut frames = forged();
        frames.push(about_resolver);
        let number = frames.len() as u64;
        let send = |family| {
            frames
                .iter()
                .try_for_each(|frame| wire.send(&frame.received(family)))
        };
        for family in FAMILIES {
            let before = errors(host, family)?;
            send(family)?;
            let heard = errors(host, family)? - before;
            ensure!(heard == number, "{family:?}: {heard} heard without a guard");
            ensure!(
                has_small_path(host, &address(&P, family))?,
                "{family:?}: nothing believed without a guard"
            );
        }

        forget_paths(host)?;
        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        for family in FAMILIES {
            let before = errors(host, family)?;
            guard
                .expect([(DropIcmpUnrelated, number)], || send(family))
                .with_context(|| format!("{mode}, {family:?}"))?;
            let heard = errors(host, family)? - before;
            ensure!(heard == 0, "{mode}, {family:?}: {heard} heard");
            ensure!(
                !has_small_path(host, &address(&P, family))?,
                "{mode}, {family:?}: believed"
            );
        }
    }
    Ok(())
}

/// A sender need guess nothing for it. Over IPv6 an echo reply may be too long for a link.
#[test]
fn a_forged_error_about_an_echo_reply_narrows_no_path() -> Result<()> {
    let about = icmp([0, 129], [0x9c, 0x40, 0, 53]);
    let error = icmp_error(Error::TooBig, about).from(FAR);
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let believed = |family| -> Result<bool> {
            forget_paths(host)?;
            wire.send(&error.received(family))?;
            thread::sleep(QUIET);
            has_small_path(host, &address(&P, family))
        };
        for family in FAMILIES {
            ensure!(believed(family)?, "{family:?}: not without a guard");
        }
        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        for (family, outcome) in [
            (Family::Ipv4, DropIcmpUnrelated),
            (Family::Ipv6, PassIcmpOutside),
        ] {
            guard
                .expect([(outcome, 1)], || {
                    let believed = believed(family)?;
                    ensure!(believed == (family == Family::Ipv6), "believed: {believed}");
                    Ok(())
                })
                .with_context(|| format!("{mode}, {family:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn i04_servers_hear_of_narrow_paths() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        let _server = Listener::new(host, 443)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        for family in FAMILIES {
            let name = || format!("{mode}, {family:?}");
            let before = errors(host, family)?;
            let frames = [
                icmp_error(Error::TooBig, udp(443, 50_000)).from(FAR),
                icmp_error(Error::TooBig, tcp(443, 50_000)),
                icmp_error(Error::PortUnreachable, tcp(443, 50_000)).from(FAR),
            ];
            guard
                .expect([(PassIcmpOutside, 3)], || {
                    frames
                        .iter()
                        .try_for_each(|frame| wire.send(&frame.received(family)))
                })
                .with_context(name)?;
            let heard = errors(host, family)? - before;
            ensure!(heard == 3, "{}: {heard} heard", name());
            ensure!(
                has_small_path(host, &address(&P, family))?,
                "{}: the server is not believed",
                name()
            );
        }
    }
    Ok(())
}

fn address(end: &End, family: Family) -> String {
    match family {
        Family::Ipv6 => end.ipv6.to_string(),
        Family::Ipv4 | Family::Other => end.ipv4.to_string(),
    }
}
