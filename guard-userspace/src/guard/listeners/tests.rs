use super::*;
use crate::host::range::LocalPorts;

pub(super) fn guarded() -> GuardedPorts {
    let range = PortRange::new(1024, 65535).expect("a range");
    let exposed = PortRange::new(8080, 8080).expect("a range");
    let local = LocalPorts {
        range,
        reserved: vec![PortRange::new(9000, 9000).expect("a range")],
    };

    GuardedPorts::new(&local, [(Transport::Tcp, exposed)])
}

fn socket(transport: Transport, local: &str, remote: &str, state: SocketState) -> HostSocket {
    HostSocket {
        transport,
        local: local.parse().expect(local),
        remote: remote.parse().expect(remote),
        state,
        device: 0,
        ipv6_only: false,
        inode: 1,
        uid: 0,
    }
}

pub(super) fn tcp(local: &str) -> HostSocket {
    socket(Transport::Tcp, local, "0.0.0.0:0", SocketState::Listen)
}

pub(super) fn udp(local: &str) -> HostSocket {
    socket(Transport::Udp, local, "0.0.0.0:0", SocketState::Close)
}

fn connection(local: &str, remote: &str) -> HostSocket {
    socket(Transport::Tcp, local, remote, SocketState::Established)
}

#[test]
fn what_listens_on_guarded_ports() {
    let table: [(&str, &[HostSocket], &[&str]); 11] = [
        (
            "TCP",
            &[tcp("0.0.0.0:2222")],
            &["tcp port 2222 (unknown process)"],
        ),
        (
            "TCP on one address",
            &[tcp("192.0.2.1:2222")],
            &["tcp port 2222 (unknown process)"],
        ),
        (
            "both families once",
            &[tcp("0.0.0.0:2222"), tcp("[::]:2222")],
            &["tcp port 2222 (unknown process)"],
        ),
        ("loopback", &[tcp("127.0.0.1:2222"), tcp("[::1]:2222")], &[]),
        ("below the range", &[tcp("0.0.0.0:22")], &[]),
        ("exposed", &[tcp("0.0.0.0:8080")], &[]),
        (
            "exposed for the other",
            &[udp("0.0.0.0:8080")],
            &["udp port 8080 (unknown process)"],
        ),
        ("reserved", &[tcp("0.0.0.0:9000"), udp("0.0.0.0:9000")], &[]),
        (
            "a client",
            &[connection("192.0.2.1:40000", "198.51.100.1:443")],
            &[],
        ),
        (
            "a connected UDP socket",
            &[socket(
                Transport::Udp,
                "0.0.0.0:40000",
                "198.51.100.1:53",
                SocketState::Established,
            )],
            &[],
        ),
        (
            "in order",
            &[udp("0.0.0.0:2"), udp("0.0.0.0:5000"), tcp("0.0.0.0:6000")],
            &[
                "tcp port 6000 (unknown process)",
                "udp port 5000 (unknown process)",
            ],
        ),
    ];
    for (name, sockets, expected) in table {
        let found: Vec<_> = find(sockets, &guarded(), &[], &BTreeSet::new())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn whom_a_listener_serves() {
    let peer = "198.51.100.1:50000";
    let half_closed = socket(
        Transport::Tcp,
        "192.0.2.1:2222",
        peer,
        SocketState::CloseWait,
    );
    let leaving = socket(
        Transport::Tcp,
        "192.0.2.1:2222",
        peer,
        SocketState::TimeWait,
    );
    let table: [(&str, &[HostSocket], bool); 9] = [
        ("nobody", &[], false),
        ("a remote peer", &[connection("192.0.2.1:2222", peer)], true),
        (
            "a remote peer over IPv6",
            &[connection("[2001:db8::1]:2222", "[2001:db8::2]:5000")],
            true,
        ),
        ("a peer that has closed its end", &[half_closed], true),
        ("a closed connection", &[leaving], false),
        (
            "loopback",
            &[connection("127.0.0.1:2222", "127.0.0.1:50000")],
            false,
        ),
        (
            "this host by its own address",
            &[
                connection("192.0.2.1:2222", "192.0.2.1:50000"),
                connection("192.0.2.1:50000", "192.0.2.1:2222"),
            ],
            false,
        ),
        (
            "a trusted peer",
            &[connection("192.0.2.1:2222", "203.0.113.9:50000")],
            false,
        ),
        (
            "a peer of another port",
            &[connection("192.0.2.1:2223", peer)],
            false,
        ),
    ];
    let trusted = ["203.0.113.0/24".parse().expect("a prefix")];
    for (name, connections, serves) in table {
        let sockets = [&[tcp("[::]:2222")], connections].concat();
        let found = find(&sockets, &guarded(), &trusted, &BTreeSet::new());
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0].serves.is_some(), serves, "{name}");
    }
}

#[test]
fn the_json_of_a_listener() {
    let listener = Listener {
        owner: SocketOwner::Process {
            pid: 812,
            name: "sshd".to_owned(),
        },
        ..find(&[tcp("[::]:2222")], &guarded(), &[], &BTreeSet::new()).remove(0)
    };
    assert_eq!(
        serde_json::to_string(&listener).expect("JSON"),
        r#"{"protocol":"tcp","port":2222,"addresses":["::"],"owner":{"process":{"pid":812,"name":"sshd"}},"serves":null}"#
    );
}

#[test]
fn this_process_is_found() {
    let socket = std::net::TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = socket.local_addr().expect("address").port();
    let local = LocalPorts {
        range: PortRange::new(port, port).expect("a range"),
        reserved: Vec::new(),
    };
    let found = survey(&GuardedPorts::new(&local, []), &[], &[]).expect("a survey");
    let mut found = found.listeners;
    name_here(&mut found, Duration::from_secs(10));
    assert_eq!(found.len(), 1);
    let SocketOwner::Process { pid, .. } = found[0].owner else {
        panic!("{found:?}")
    };
    assert_eq!(pid, i32::try_from(std::process::id()).expect("a pid"));
}

#[test]
fn what_is_the_kernels_is_no_listener() {
    let own = |address: &str, port| TunnelPort {
        port,
        address: address.parse().expect("an address"),
        kind: "vxlan",
    };
    // name, sockets, the kernel's, addresses that are left
    let table: [(&str, &[HostSocket], TunnelPort, &[&str]); 5] = [
        ("its own", &[udp("0.0.0.0:4789")], own("0.0.0.0", 4789), &[]),
        (
            "somebody's of the other family",
            &[udp("0.0.0.0:4789"), udp("[::]:4789")],
            own("0.0.0.0", 4789),
            &["::"],
        ),
        (
            "somebody's at another address",
            &[udp("192.0.2.1:5555"), udp("192.0.2.2:5555")],
            own("192.0.2.1", 5555),
            &["192.0.2.2"],
        ),
        (
            "another port",
            &[udp("0.0.0.0:4790")],
            own("0.0.0.0", 4789),
            &["0.0.0.0"],
        ),
        (
            "TCP",
            &[tcp("0.0.0.0:4789")],
            own("0.0.0.0", 4789),
            &["0.0.0.0"],
        ),
    ];
    for (name, sockets, kernel, left) in table {
        let found = find(sockets, &guarded(), &[], &BTreeSet::from([kernel]));
        let addresses: Vec<_> = found
            .iter()
            .flat_map(|one| &one.addresses)
            .map(ToString::to_string)
            .collect();
        assert_eq!(addresses, left, "{name}");
    }
}
