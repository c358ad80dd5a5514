//! Which entries concern the maps, and what they become there.

use std::collections::BTreeSet;

use guard_common::flow::timer::Timer;

use super::*;
use crate::host::range::{GuardedPorts, LocalPorts, PortRange};

#[test]
fn states_and_timers() {
    // The kernel's number, flags of the opener and of the other side, FIN out and in, RST, timer.
    let first = 4;
    let table = [
        ("SYN_SENT", 1, 0, 0, (0, 0, 0), Timer::TcpSyn),
        ("SYN_RECV", 2, 0, 0, (0, 0, 0), Timer::TcpEstablished),
        ("ESTABLISHED", 3, 0, 0, (0, 0, 0), Timer::TcpEstablished),
        (
            "FIN_WAIT, ours",
            4,
            first,
            0,
            (1, 0, 0),
            Timer::TcpEstablished,
        ),
        (
            "FIN_WAIT, theirs",
            4,
            0,
            first,
            (0, 1, 0),
            Timer::TcpEstablished,
        ),
        (
            "CLOSE_WAIT, ours",
            5,
            first,
            0,
            (1, 0, 0),
            Timer::TcpEstablished,
        ),
        (
            "CLOSE_WAIT, theirs",
            5,
            0,
            first,
            (0, 1, 0),
            Timer::TcpEstablished,
        ),
        ("LAST_ACK", 6, first, 0, (1, 1, 0), Timer::TcpTransitory),
        ("TIME_WAIT", 7, 0, first, (1, 1, 0), Timer::TcpTransitory),
        ("CLOSE", 8, 0, 0, (0, 0, 1), Timer::TcpTransitory),
        ("SYN_SENT2", 9, 0, 0, (0, 0, 0), Timer::TcpEstablished),
        (
            "one of the future",
            77,
            0,
            0,
            (0, 0, 0),
            Timer::TcpEstablished,
        ),
    ];
    for (name, number, original, reply, marks, timer) in table {
        let message = payload(&[
            tuple(1, TCP, end("10.9.0.2:40000"), end("10.9.0.1:80")),
            tuple(2, TCP, end("10.9.0.1:80"), end("10.9.0.2:40000")),
            protoinfo(number, original | 0x23, reply | 0x23),
        ]);
        let tracked = read(ENTRY, &message).expect("is well-formed");
        let flow = tracked.expect("is of TCP").tcp.flow(7);
        assert_eq!((flow.fin_out, flow.fin_in, flow.reset), marks, "{name}");
        assert_eq!((flow.timer(), flow.last_seen), (timer, 7), "{name}");
    }
}

/// What a flow table has taken over has no timeout and no state.
#[test]
fn an_offloaded_connection_is_open() {
    let message = payload(&[
        tuple(1, TCP, end("10.9.0.2:40000"), end("10.9.0.1:80")),
        tuple(2, TCP, end("10.9.0.1:80"), end("10.9.0.2:40000")),
    ]);
    let tracked = read(ENTRY, &message)
        .expect("is well-formed")
        .expect("is of TCP");
    assert_eq!(tracked.tcp.flow(7).timer(), Timer::TcpEstablished);
}

#[test]
fn only_what_was_opened_here_counts() {
    let local = ["10.9.0.2/32", "10.9.0.255/32", "127.0.0.0/8", "fd09::2/128"];
    let addresses = LocalAddresses::from_iter(local.map(|net| net.parse().expect("is a prefix")));
    let ours = (true, true);
    let outside = (true, false);
    let others = (false, false);
    let (host, host6) = ("10.9.0.2:40000", "[fd09::2]:40000");
    let (peer, peer6) = ("10.9.0.1:80", "[fd09::1]:80");
    let (service, service6) = ("10.96.0.1:80", "[fd96::1]:80");
    let (container, container6) = ("172.30.0.2:40000", "[fd30::2]:40000");
    // name, the first packet's source and destination, where answers go and come from, whether they are
    // answers to this host, and whether nobody outside is behind it
    let table = [
        ("our own", [host, peer], [host, peer], ours),
        ("our own, IPv6", [host6, peer6], [host6, peer6], ours),
        ("to a service", [host, service], [host, peer], ours),
        (
            "to a service, IPv6",
            [host6, service6],
            [host6, peer6],
            ours,
        ),
        (
            "from another port",
            [host, peer],
            ["10.9.0.2:50000", peer],
            ours,
        ),
        (
            "to a service of our address",
            [host, "10.9.0.2:80"],
            [host, peer],
            ours,
        ),
        (
            "from loopback",
            ["127.0.0.1:40000", peer],
            [host, peer],
            ours,
        ),
        (
            "as somebody else",
            [host, peer],
            ["192.0.2.9:40000", peer],
            ours,
        ),
        ("a container's", [container, peer], [host, peer], ours),
        (
            "a container's, IPv6",
            [container6, peer6],
            [host6, peer6],
            ours,
        ),
        (
            "a container's to a service",
            [container, service],
            [host, peer],
            ours,
        ),
        // This host hands it on in its own name.
        (
            "through us",
            ["10.9.0.7:5000", "10.9.0.2:80"],
            [host, peer],
            outside,
        ),
        (
            "an unsolicited sender's",
            ["10.9.0.1:1234", host],
            ["10.9.0.1:1234", host],
            others,
        ),
        (
            "an unsolicited sender's, IPv6",
            ["[fd09::1]:1234", host6],
            ["[fd09::1]:1234", host6],
            others,
        ),
        (
            "an unsolicited sender's to a container",
            ["10.9.0.1:1234", host],
            ["10.9.0.1:1234", container],
            others,
        ),
        (
            "of one behind us, untranslated",
            [container, peer],
            [container, peer],
            others,
        ),
        (
            "of one behind us, to a pool that nobody holds",
            [container, peer],
            ["192.0.2.9:40000", peer],
            ours,
        ),
        (
            "through us, to a pool that nobody holds",
            [container, "10.9.0.2:80"],
            ["192.0.2.9:40000", peer],
            outside,
        ),
        (
            "to a pool that the routes lead on",
            [container, peer],
            ["198.51.100.9:40000", peer],
            others,
        ),
        (
            "an unsolicited sender's from such a pool",
            ["192.0.2.9:1234", host],
            ["192.0.2.9:1234", container],
            others,
        ),
        (
            "within the host",
            [host, "10.9.0.2:80"],
            [host, "10.9.0.2:80"],
            others,
        ),
        (
            "to a service here",
            [host, service],
            [host, "10.9.0.2:80"],
            others,
        ),
        (
            "over loopback",
            ["127.0.0.1:40000", "127.0.0.1:80"],
            ["127.0.0.1:40000", "127.0.0.1:80"],
            others,
        ),
        (
            "a query to a group",
            [host, "224.0.0.251:5353"],
            [host, "224.0.0.251:5353"],
            others,
        ),
        (
            "a query to a group, IPv6",
            [host6, "[ff02::fb]:5353"],
            [host6, "[ff02::fb]:5353"],
            others,
        ),
        (
            "a query to all",
            [host, "255.255.255.255:67"],
            [host, "255.255.255.255:67"],
            others,
        ),
        (
            "a query to all of a network",
            [host, "10.9.0.255:67"],
            [host, "10.9.0.255:67"],
            others,
        ),
    ];
    let pool = "192.0.2.0/24".parse::<ipnet::IpNet>().expect("is a prefix");
    let forwarded = |address: IpAddr| !pool.contains(&address);
    for (name, [opener, asked], [local, remote], expected) in table {
        let tracked = Tracked {
            opener: end(opener),
            asked: end(asked),
            ..tracked(Transport::Udp, end(local), end(remote))
        };
        let found = (
            tracked.opened_here(&addresses, forwarded),
            tracked.opened_inside(&addresses, forwarded),
        );
        assert_eq!(found, expected, "{name}");
        let translated = [opener, asked] != [local, remote] && [opener, asked] != [remote, local];
        assert!(!translated || tracked.is_translated(), "{name}");
    }
    let plain = tracked(Transport::Tcp, end(host), end(peer));
    assert!(!plain.is_translated());
}

#[test]
fn what_is_over_needs_no_flow() {
    let table = [
        (ConntrackState::SynSent, true),
        (ConntrackState::Open, true),
        (ConntrackState::HalfClosed, true),
        (ConntrackState::Closed, false),
        (ConntrackState::Reset, false),
    ];
    for (state, goes_on) in table {
        let tracked = Tracked {
            tcp: ConntrackTcp {
                state,
                ..ConntrackTcp::default()
            },
            ..tracked(Transport::Tcp, end("10.9.0.2:40000"), end("10.9.0.1:80"))
        };
        assert_eq!(tracked.goes_on(), goes_on, "{state:?}");
    }
}

/// A connection that nothing translates.
fn tracked(transport: Transport, local: SocketAddr, remote: SocketAddr) -> Tracked {
    Tracked {
        transport,
        opener: local,
        asked: remote,
        local,
        remote,
        answered: true,
        tcp: ConntrackTcp::default(),
    }
}

#[test]
fn only_guarded_ports_and_recorded_peers_concern_the_maps() {
    let local = LocalPorts {
        range: PortRange::new(32_768, 60_999).expect("is a range"),
        reserved: vec![PortRange::new(45_000, 45_000).expect("is a range")],
    };
    let exposed = PortRange::new(46_000, 46_000).expect("is a range");
    let guarded = GuardedPorts::new(&local, [(Transport::Tcp, exposed)]);
    let addresses = LocalAddresses::from_iter(["10.9.0.2/32".parse().expect("is a prefix")]);
    let unrecorded = BTreeSet::from([4_789]);
    let table = [
        ("in the range", Transport::Udp, 40_000, 53, true),
        ("its first port", Transport::Tcp, 32_768, 80, true),
        ("below it", Transport::Tcp, 32_767, 80, false),
        ("reserved", Transport::Udp, 45_000, 53, false),
        ("exposed", Transport::Tcp, 46_000, 80, false),
        ("exposed for TCP alone", Transport::Udp, 46_000, 53, true),
        ("a tunnel's", Transport::Udp, 40_000, 4_789, false),
        ("TCP to that port", Transport::Tcp, 40_000, 4_789, true),
    ];
    for (name, transport, local, remote, expected) in table {
        let tracked = tracked(
            transport,
            SocketAddr::new([10, 9, 0, 2].into(), local),
            SocketAddr::new([10, 9, 0, 1].into(), remote),
        );
        let found = crate::guard::seed::conntrack::concerns(
            &tracked,
            &guarded,
            &unrecorded,
            &addresses,
            |_| true,
        );
        assert_eq!(found, expected, "{name}");
    }
}
