//! Queries to groups, which anybody on the link may answer: mDNS and SSDP.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow},
};
use guard_tests::{
    frames::{End, FAR, G, MDNS, N, P, SSDP, udp},
    peers::unspecified,
};

use super::{FAMILIES, Lab, MODES, PORT, delivered};

/// Longer than a timer of two seconds.
const EXPIRED: Duration = Duration::from_millis(3_000);

/// Where a query to the group goes, out of the guarded interface.
fn group(lab: &Lab, group: &End, family: Family, port: u16) -> Result<SocketAddr> {
    // SAFETY: the name ends in zero.
    let index = lab
        .topology
        .guarded
        .run(|| unsafe { libc::if_nametoindex(c"vg".as_ptr()) });
    ensure!(index > 0, "no interface");
    Ok(match group.address(family) {
        IpAddr::V4(address) => (address, port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, index).into(),
    })
}

/// The address that this host asks the group from: over IPv6 one that means nothing elsewhere.
fn asks_from(lab: &Lab, query: SocketAddr) -> Result<End> {
    let probe = lab
        .topology
        .guarded
        .run(|| UdpSocket::bind((unspecified(query.ip()), 0)))?;
    probe.connect(query)?;
    Ok(match probe.local_addr()?.ip() {
        IpAddr::V4(ipv4) => End { ipv4, ..G },
        IpAddr::V6(ipv6) => End { ipv6, ..G },
    })
}

/// A neighbour, by its address on the link.
fn on_link(end: End) -> End {
    let [.., last] = end.ipv6.octets();
    End {
        ipv6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()),
        ..end
    }
}

fn routed(lab: &Lab) -> Result<()> {
    let host = &lab.topology.guarded;
    host.ip("route add 224.0.0.0/4 dev vg")
        .context("a route for groups")
}

#[test]
fn d03_every_responder_on_the_link_is_heard() -> Result<()> {
    for mode in MODES {
        let lab = Lab::new()?;
        routed(&lab)?;
        let guard = lab.guard(mode, &["--timeout", "multicast=2"])?;
        for family in FAMILIES {
            let socket = lab.socket(family, PORT)?;
            let query = group(&lab, &MDNS, family, 5353)?;
            let asks = asks_from(&lab, query)?;
            let answer = |end| udp(5353, PORT).from(on_link(end)).to(asks);
            let answers = [answer(P), answer(N)];
            let send = || -> Result<()> {
                answers
                    .iter()
                    .try_for_each(|frame| lab.wire.send(&frame.received(family)))
            };
            guard.expect([(DropNoFlow, 2)], send)?;
            guard.expect([(PassNewFlow, 1)], || {
                socket.send_to(b"_http._tcp.local", query)?;
                Ok(())
            })?;
            guard
                .expect([(PassKnownFlow, 2)], send)
                .with_context(|| format!("{mode}, {family:?}"))?;
            ensure!(delivered(&socket) == 2, "{mode}, {family:?}: answers");
            // Nobody behind a router has heard the query.
            guard.expect([(DropNoFlow, 1)], || {
                lab.wire
                    .send(&udp(5353, PORT).from(FAR).to(asks).received(family))
            })?;
            thread::sleep(EXPIRED);
            guard.expect([(DropNoFlow, 2)], send)?;
            ensure!(delivered(&socket) == 0, "{mode}, {family:?}: too late");
        }
    }
    Ok(())
}

#[test]
fn d04_ssdp_answers_come_from_any_port() -> Result<()> {
    for mode in MODES {
        let lab = Lab::new()?;
        routed(&lab)?;
        let guard = lab.guard(mode, &[])?;
        for family in FAMILIES {
            let socket = lab.socket(family, PORT)?;
            let search = group(&lab, &SSDP, family, 1900)?;
            guard.expect([(PassNewFlow, 1)], || {
                socket.send_to(b"M-SEARCH * HTTP/1.1", search)?;
                Ok(())
            })?;
            guard.expect([(PassKnownFlow, 2), (DropNoFlow, 1)], || {
                for frame in [
                    udp(1900, PORT).from(N),
                    udp(51_234, PORT).from(N),
                    // Only the port that has asked.
                    udp(1900, PORT + 1).from(N),
                ] {
                    lab.wire.send(&frame.received(family))?;
                }
                Ok(())
            })?;
            ensure!(delivered(&socket) == 2, "{mode}, {family:?}: answers");
        }
    }
    Ok(())
}
