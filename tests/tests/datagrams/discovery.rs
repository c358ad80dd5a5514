//! Queries to groups, which anybody on the link may answer: mDNS and SSDP.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    thread,
    time::{Duration, Instant},
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

/// An address of its own may say nothing of the link, as that of a lease of DHCPv6 does, and be one of
/// many.
#[test]
fn neighbours_are_those_that_routes_lead_to() -> Result<()> {
    /// By the tenth address of the interface.
    const TENTH: End = End {
        ipv4: std::net::Ipv4Addr::new(10, 10, 9, 3),
        ipv6: Ipv6Addr::new(0xfd10, 9, 0, 0, 0, 0, 0, 3),
        ..N
    };

    for mode in MODES {
        let lab = Lab::new()?;
        let host = &lab.topology.guarded;
        for command in [
            "addr del 10.9.0.2/24 dev vg",
            "addr add 10.9.0.2/32 dev vg",
            "route add 10.9.0.0/24 dev vg src 10.9.0.2",
            "addr del fd09::2/64 dev vg",
            "addr add fd09::2/128 dev vg nodad",
            "-6 route add fd09::/64 dev vg",
        ] {
            host.ip(command)?;
        }
        routed(&lab)?;
        for number in 1..=9 {
            host.ip(&format!("addr add 10.10.{number}.2/24 dev vg"))?;
            host.ip(&format!("addr add fd10:{number}::2/64 dev vg nodad"))?;
        }
        let guard = lab.guard(mode, &[])?;
        for family in FAMILIES {
            let socket = lab.socket(family, PORT)?;
            let query = group(&lab, &MDNS, family, 5353)?;
            let asks = asks_from(&lab, query)?;
            guard.expect([(PassNewFlow, 1)], || {
                socket.send_to(b"_http._tcp.local", query)?;
                Ok(())
            })?;
            let answer = |end| -> Result<()> {
                let answer = udp(5353, PORT).from(end).to(asks);
                lab.wire.send(&answer.received(family))
            };
            for neighbour in [N, TENTH] {
                guard
                    .expect([(PassKnownFlow, 1)], || answer(neighbour))
                    .with_context(|| format!("{mode}, {family:?}, {neighbour:?}"))?;
            }
            // Nobody behind a router is one, until a route without a gateway says so.
            guard.expect([(DropNoFlow, 1)], || answer(FAR))?;
            let prefix = match family {
                Family::Ipv6 => "2001:db8::/64",
                Family::Ipv4 | Family::Other => "192.0.2.0/24",
            };
            host.ip(&format!("route add {prefix} dev vg"))?;
            let deadline = Instant::now() + EXPIRED;
            loop {
                let before = guard.packets()?;
                answer(FAR)?;
                thread::sleep(Duration::from_millis(50));
                if guard.packets()?.since(&before).of(PassKnownFlow) == 1 {
                    break;
                }
                ensure!(
                    Instant::now() < deadline,
                    "{mode}, {family:?}: no neighbour"
                );
            }
        }
    }
    Ok(())
}

/// A router of the whole internet has so many routes that to read them takes a while: it is done
/// aside, and seldom.
#[test]
fn many_routes_are_read_at_leisure() -> Result<()> {
    const MANY: u32 = 300_000;
    const MEASURED: Duration = Duration::from_secs(6);

    let lab = Lab::new()?;
    let host = &lab.topology.guarded;
    routed(&lab)?;
    let routes: String = (0..MANY)
        .map(|number| {
            let net = std::net::Ipv4Addr::from(0x2000_0000 + (number << 8));
            format!("route add {net}/24 via 10.9.0.1 dev vg\n")
        })
        .collect();
    let scratch = guard_tests::scratch::Scratch::new()?;
    let batch = scratch.write("routes", routes.as_bytes())?;
    guard_tests::clients::run(host, &format!("ip -batch {}", batch.display()))?;
    let guard = lab.guard("native", &[])?;
    // Also one of a routing daemon says who is a neighbour.
    host.ip("route add 192.0.2.0/24 dev vg proto bird")?;
    let socket = lab.socket(Family::Ipv4, PORT)?;
    let query = group(&lab, &MDNS, Family::Ipv4, 5353)?;
    let far = udp(5353, PORT).from(FAR).received(Family::Ipv4);
    let since = Instant::now();
    loop {
        socket.send_to(b"_http._tcp.local", query)?;
        lab.wire.send(&far)?;
        if delivered(&socket) > 0 {
            break;
        }
        ensure!(
            since.elapsed() < Duration::from_secs(240),
            "no neighbour: {}",
            guard.said()
        );
        thread::sleep(Duration::from_millis(100));
    }

    let before = used(guard.pid())?;
    thread::sleep(MEASURED);
    let share = (used(guard.pid())? - before).as_secs_f64() / MEASURED.as_secs_f64();
    ensure!(share < 0.06, "{share} of a processor");
    Ok(())
}

/// How much of a processor a process has used.
fn used(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// A member of a group that it sends to hears itself, whatever its address looks like in generic mode,
/// where it comes back without an Ethernet header.
#[test]
fn a_host_hears_what_it_sends_to_its_own_group() -> Result<()> {
    const ADDRESSES: [&str; 3] = ["8.0.0.2", "134.221.0.2", "10.9.0.2"];
    const ADDRESSES_V6: [&str; 3] = ["2001:db8:800::2", "2001:db8:86dd::2", "fd09::2"];

    for mode in [None, Some("native"), Some("generic")] {
        let lab = Lab::new()?;
        routed(&lab)?;
        let host = &lab.topology.guarded;
        for address in &ADDRESSES[..2] {
            host.ip(&format!("addr add {address}/24 dev vg"))?;
        }
        for address in &ADDRESSES_V6[..2] {
            host.ip(&format!("addr add {address}/64 dev vg nodad"))?;
        }
        let _guard = mode.map(|mode| lab.guard(mode, &[])).transpose()?;
        for family in FAMILIES {
            let socket = lab.socket(family, PORT)?;
            let mut to = group(&lab, &SSDP, family, PORT)?;
            let addresses = match to {
                SocketAddr::V4(to) => {
                    for address in ADDRESSES {
                        socket.join_multicast_v4(to.ip(), &address.parse()?).ok();
                    }
                    ADDRESSES
                }
                SocketAddr::V6(to) => {
                    socket.join_multicast_v6(to.ip(), to.scope_id())?;
                    ADDRESSES_V6
                }
            };
            for address in addresses {
                let address: IpAddr = address.parse()?;
                let sender = host.run(|| UdpSocket::bind((address, 0)))?;
                sender.send_to(b"to all of us", to)?;
                let heard = delivered(&socket);
                ensure!(heard == 1, "{mode:?}, from {address}: {heard} heard");
            }
            if family == Family::Ipv4 {
                let sender = host.run(|| UdpSocket::bind(("8.0.0.2", 0)))?;
                sender.set_broadcast(true)?;
                to = "8.0.0.255:40000".parse()?;
                sender.send_to(b"to all of us", to)?;
                ensure!(delivered(&socket) == 1, "{mode:?}, a broadcast");
            }
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
