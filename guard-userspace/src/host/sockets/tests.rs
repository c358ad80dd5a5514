use std::{
    ffi::OsString,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
};

use nix::sys::socket::{setsockopt, sockopt::BindToDevice};

use super::*;
use crate::host::netlink::{self, Progress};

/// What both sources say about the sockets of `transport` that have `port` at either end, in a fixed
/// order.
///
/// They are asked one after the other, and /proc/net may leave out a socket while others come and go:
/// where they differ they are asked again.
fn both_sources(transport: Transport, port: u16) -> Vec<HostSocket> {
    const TIMES: usize = 20;
    let mut last = Default::default();
    for _ in 0..TIMES {
        let [by_diag, by_proc] = ask_both_sources(transport, port);
        if by_diag == by_proc {
            return by_diag;
        }
        last = (by_diag, by_proc);
    }
    panic!("they differ {TIMES} times: {last:#?}");
}

fn ask_both_sources(transport: Transport, port: u16) -> [Vec<HostSocket>; 2] {
    let sources: [fn(Transport, SocketFamily, &mut Vec<HostSocket>); 2] = [
        |transport, family, sockets| {
            let all = (StateFlags::all(), PortFilter::ALL);
            diag::dump(transport, family, all, sockets).expect("sock_diag");
        },
        |transport, family, sockets| proc_net::read(transport, family, sockets).expect("/proc/net"),
    ];

    sources.map(|source| {
        let mut sockets = Vec::new();
        source(transport, SocketFamily::V4, &mut sockets);
        source(transport, SocketFamily::V6, &mut sockets);
        sockets.retain(|socket| socket.local.port() == port || socket.remote.port() == port);
        sockets.sort_by_key(|socket| (socket.local, socket.remote));
        sockets
    })
}

#[test]
fn both_sources_agree_on_a_mapped_connection() {
    let listener = TcpListener::bind("[::]:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    let _server = listener.accept().expect("accept");

    let client_end = client.local_addr().expect("address");
    let server_end = SocketAddr::from(([127, 0, 0, 1], port));
    let sockets = both_sources(Transport::Tcp, port);
    let ends: Vec<_> = sockets
        .iter()
        .map(|socket| (socket.local, socket.remote, socket.state))
        .collect();
    assert!(
        ends.contains(&(server_end, client_end, SocketState::Established)),
        "{ends:?}"
    );
    assert!(
        ends.contains(&(client_end, server_end, SocketState::Established)),
        "{ends:?}"
    );
    let listening = sockets
        .iter()
        .find(|socket| socket.state == SocketState::Listen)
        .expect("a listener");
    assert_eq!(listening.local.to_string(), format!("[::]:{port}"));
    assert_ne!(listening.inode, 0);
}

#[test]
fn both_sources_agree_on_udp() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let port = server.local_addr().expect("address").port();
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    client.connect(("127.0.0.1", port)).expect("connect");

    let sockets = both_sources(Transport::Udp, port);
    let connected: Vec<_> = sockets.iter().map(HostSocket::connected).collect();
    assert_eq!(connected.iter().filter(|connected| **connected).count(), 1);
    assert_eq!(connected.len(), 2);
}

#[test]
fn tables_of_proc_net() {
    let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:9C40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0\n   \
        1: 0000000000000000FFFF0000010200C0:9C41 0000000000000000FFFF00000A0200C0:01BB 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
    let sockets = proc_net::parse(text, Transport::Tcp).expect("a table");
    let lines: Vec<_> = sockets
        .iter()
        .map(|socket| {
            format!(
                "{} {} {:?} {} {}",
                socket.local, socket.remote, socket.state, socket.inode, socket.uid
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "127.0.0.1:40000 0.0.0.0:0 Listen 4711 1000",
            "192.0.2.1:40001 192.0.2.10:443 Established 4712 0",
        ]
    );
}

fn read(bytes: &[u8], sockets: &mut Vec<HostSocket>) -> io::Result<Progress> {
    netlink::read(bytes, &mut |kind, payload: &[u8]| {
        sockets.extend(diag::read(kind, payload, Transport::Tcp)?);
        Ok(())
    })
}

#[test]
fn a_broken_answer_is_an_error() {
    let refused: Vec<u8> = [20_u32, 2, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .chain((-2_i32).to_ne_bytes())
        .collect();
    let done: Vec<u8> = [20_u32, 3, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .chain([0; 4])
        .collect();
    let short: Vec<u8> = [20_u32, 20, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .chain([2; 4])
        .collect();
    // name               bytes            the dump goes on, is done, or fails
    let table: [(&str, &[u8], Option<Progress>); 6] = [
        ("no message", &[], Some(Progress::More)),
        ("done", &done, Some(Progress::Done)),
        ("refused", &refused, None),
        ("cut off", &done[..10], None),
        ("length too long", &done[..16], None),
        ("short socket", &short, None),
    ];
    for (name, bytes, expected) in table {
        let mut sockets = Vec::new();
        let progress = read(bytes, &mut sockets);
        assert_eq!(progress.ok(), expected, "{name}");
        assert!(sockets.is_empty(), "{name}");
    }
    let error = read(&refused, &mut Vec::new()).expect_err("refused");
    assert!(lacking(&error), "{error}");
}

#[test]
fn those_that_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let client = TcpStream::connect(address).expect("connect");
    let _server = listener.accept().expect("accept");
    let waiting = waiting().expect("sockets");
    let at = |port| {
        move |socket: &&HostSocket| {
            socket.transport == Transport::Tcp && socket.local.port() == port
        }
    };
    assert!(waiting.iter().all(HostSocket::waits));
    assert_eq!(waiting.iter().filter(at(address.port())).count(), 1);
    let port = client.local_addr().expect("address").port();
    assert_eq!(waiting.iter().filter(at(port)).count(), 0);
}

#[test]
fn the_kernel_compares_ports() {
    let sockets: Vec<_> = (0..6)
        .map(|_| UdpSocket::bind("127.0.0.1:0").expect("binds"))
        .collect();
    let mut ports: Vec<u16> = sockets
        .iter()
        .map(|socket| socket.local_addr().expect("address").port())
        .collect();
    ports.sort_unstable();
    let range = |first, last| PortRange::new(first, last).expect("a range");
    let one = |port| range(port, port);
    // ranges, those of the ports that are found
    let table: [(&[PortRange], &[u16]); 5] = [
        (&[one(ports[2])], &ports[2..3]),
        (&[range(ports[1], ports[4])], &ports[1..5]),
        (&[one(ports[0]), one(ports[5])], &[ports[0], ports[5]]),
        (
            &[one(ports[0]), one(ports[2]), range(ports[4], ports[5])],
            &[ports[0], ports[2], ports[4], ports[5]],
        ),
        (&[one(1)], &[]),
    ];
    for (ranges, expected) in table {
        let mut found: Vec<u16> = waiting_on(ranges)
            .expect("sockets")
            .iter()
            .filter(|socket| socket.transport == Transport::Udp)
            .map(|socket| socket.local.port())
            .filter(|port| ports.contains(port))
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{ranges:?}");
        for socket in waiting_on(ranges).expect("sockets") {
            let port = socket.local.port();
            assert!(
                ranges.iter().any(|range| range.contains(port)),
                "{socket:?}"
            );
        }
    }

    sockets[0]
        .connect(("127.0.0.1", ports[1]))
        .expect("connects");
    let own = sockets[0].local_addr().expect("address").port();
    let mut found = Vec::new();
    visit_connected_on(&[one(own)], &ALL, |sockets| {
        found.extend_from_slice(sockets);
        ControlFlow::Continue(())
    })
    .expect("sockets");
    // A connection of TCP that has ended may still hold the same number.
    found.retain(|socket| socket.transport == Transport::Udp);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].connected());
    // Nobody asks the kernel about other transports.
    visit_connected_on(&[one(own)], &[Transport::Tcp], |sockets| {
        assert!(sockets.iter().all(|one| one.transport == Transport::Tcp));
        ControlFlow::Continue(())
    })
    .expect("sockets");
}

/// Anybody may bind a socket to a device once.
#[test]
fn the_kernel_tells_apart_what_is_bound_to_a_device() {
    let sockets: Vec<_> = (0..4)
        .map(|number| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
            if number % 2 == 0 {
                setsockopt(&socket, BindToDevice, &OsString::from("lo")).expect("binds");
            }
            socket.connect("127.0.0.1:9").expect("connects");
            socket
        })
        .collect();
    let ports: Vec<u16> = sockets
        .iter()
        .map(|socket| socket.local_addr().expect("address").port())
        .collect();
    let ranges: Vec<_> = ports
        .iter()
        .map(|&port| PortRange::new(port, port).expect("a range"))
        .collect();
    let expected = [&[ports[0], ports[2]][..], &ports[2..3]];
    for (ranges, expected) in [&ranges[..], &ranges[1..3]].into_iter().zip(expected) {
        let mut found = Vec::new();
        visit_unfindable_on(ranges, |sockets| {
            found.extend(
                sockets
                    .iter()
                    .filter(|socket| socket.transport == Transport::Udp),
            );
            ControlFlow::Continue(())
        })
        .expect("sockets");
        assert!(
            found.iter().all(|socket: &HostSocket| socket.device == 1),
            "{found:?}"
        );
        let mut found: Vec<_> = found.iter().map(|socket| socket.local.port()).collect();
        found.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_visit_that_breaks_off_is_over() {
    let sockets: Vec<_> = (0..3)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
            socket.connect("127.0.0.1:9").expect("connects");
            socket
        })
        .collect();
    assert_eq!(sockets.len(), 3);
    let all = [PortRange::new(1, u16::MAX).expect("a range")];
    let mut visits = 0;
    visit_connected_on(&all, &ALL, |_| {
        visits += 1;
        ControlFlow::Break(())
    })
    .expect("sockets");
    assert_eq!(visits, 1);
}

#[test]
fn connections_are_found_by_either_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let client = TcpStream::connect(address).expect("connect");
    let _server = listener.accept().expect("accept");
    let port = PortRange::new(address.port(), address.port()).expect("a range");
    let mut found: Vec<_> = connections_at(&[port])
        .expect("sockets")
        .iter()
        .map(|socket| (socket.local, socket.remote))
        .collect();
    let ends = (address, client.local_addr().expect("address"));
    found.sort_unstable();
    let mut expected = [ends, (ends.1, ends.0)];
    expected.sort_unstable();
    assert_eq!(found, expected);
}
