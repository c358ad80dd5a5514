//! Which entries concern the maps, and what they become there.

use std::collections::BTreeSet;

use guard_common::flow::Timer;

use super::*;
use crate::range::{GuardedPorts, LocalPorts, PortRange};

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
    let message = payload(&[tuple(2, TCP, end("10.9.0.1:80"), end("10.9.0.2:40000"))]);
    let tracked = read(ENTRY, &message)
        .expect("is well-formed")
        .expect("is of TCP");
    assert_eq!(tracked.tcp.flow(7).timer(), Timer::TcpEstablished);
}

#[test]
fn only_what_was_opened_here_counts() {
    let local = ["10.9.0.2/32", "10.9.0.255/32", "127.0.0.0/8", "fd09::2/128"];
    let addresses = LocalAddresses::from_iter(local.map(|net| net.parse().expect("is a prefix")));
    // name, where answers go, where they come from
    let table = [
        ("our own", "10.9.0.2:40000", "10.9.0.1:80", true),
        ("our own, IPv6", "[fd09::2]:40000", "[fd09::1]:80", true),
        ("a stranger's", "10.9.0.1:1234", "10.9.0.2:40000", false),
        (
            "a stranger's, IPv6",
            "[fd09::1]:1234",
            "[fd09::2]:40000",
            false,
        ),
        (
            "of one behind us, untranslated",
            "172.30.0.2:40000",
            "10.9.0.1:80",
            false,
        ),
        ("within the host", "10.9.0.2:40000", "10.9.0.2:80", false),
        ("over loopback", "127.0.0.1:40000", "127.0.0.1:80", false),
        (
            "a query to a group",
            "10.9.0.2:40000",
            "224.0.0.251:5353",
            false,
        ),
        (
            "a query to a group, IPv6",
            "[fd09::2]:40000",
            "[ff02::fb]:5353",
            false,
        ),
        (
            "a query to all",
            "10.9.0.2:40000",
            "255.255.255.255:67",
            false,
        ),
        (
            "a query to all of a network",
            "10.9.0.2:40000",
            "10.9.0.255:67",
            false,
        ),
    ];
    for (name, local, remote, ours) in table {
        let tracked = Tracked {
            transport: Transport::Udp,
            local: end(local),
            remote: end(remote),
            tcp: Tcp::default(),
        };
        assert_eq!(tracked.opened_here(&addresses), ours, "{name}");
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
        let tracked = Tracked {
            transport,
            local: SocketAddr::new([10, 9, 0, 2].into(), local),
            remote: SocketAddr::new([10, 9, 0, 1].into(), remote),
            tcp: Tcp::default(),
        };
        let found = seed::concerns(&tracked, &guarded, &unrecorded, &addresses);
        assert_eq!(found, expected, "{name}");
    }
}
