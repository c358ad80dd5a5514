//! Changes of the range, the file, and what forbids a change.

use std::fs;

use guard_common::frame::transport::Transport;

use super::*;
use crate::{
    base::failure::Exit,
    host::sockets::{HostSocket, SocketState},
};

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).expect("a range")
}

fn local(first: u16, last: u16, reserved: &[(u16, u16)]) -> LocalPorts {
    LocalPorts {
        range: range(first, last),
        reserved: reserved.iter().map(|&(a, b)| range(a, b)).collect(),
    }
}

fn change(reserve: &[(u16, u16)]) -> Change {
    let harden = Harden {
        range: range(40_000, 45_000),
        reserve: reserve.iter().map(|&(a, b)| range(a, b)).collect(),
        dry_run: false,
        force: false,
    };
    Change::new(local(32_768, 60_999, &[(33_000, 33_000)]), &harden)
}

fn socket(transport: Transport, local: &str, remote: &str, state: SocketState) -> HostSocket {
    HostSocket {
        transport,
        local: local.parse().expect("an end"),
        remote: remote.parse().expect("an end"),
        state,
        device: 0,
        ipv6_only: false,
        inode: 1,
        uid: 0,
    }
}

#[test]
fn reserved_ports_are_added_and_joined() {
    let change = change(&[(33_001, 33_010), (41_000, 41_000)]);
    assert_eq!(
        change.to,
        local(40_000, 45_000, &[(33_000, 33_010), (41_000, 41_000)])
    );
    assert_eq!(
        change.to_string(),
        "32768-60999 (reserved: 33000) -> 40000-45000 (reserved: 33000-33010,41000) \
         (28231 -> 5000 ports)"
    );
}

#[test]
fn every_port_can_be_reserved() {
    let mut all = PortBitmap::default();
    all.insert(range(1, 65_535));
    assert_eq!(runs(&all), [range(1, 65_535)]);
}

#[test]
fn a_range_without_a_port_to_hand_out_is_refused() {
    let none = change(&[(1, u16::MAX)]);
    let refused = refusal(&none, &[]).expect("is refused");
    assert!(
        refused.to_string().starts_with("0 ports are left"),
        "{refused}"
    );
    // 40001 alone is left.
    let one = change(&[(40_000, 40_000), (40_002, u16::MAX)]);
    assert!(refusal(&one, &[]).is_none());
    let state = SocketState::Established;
    let socket = socket(Transport::Tcp, "10.9.0.2:40001", "10.9.0.1:443", state);
    let refused = refusal(&one, &[socket]).expect("is refused");
    assert!(
        refused.to_string().contains(" and 1 are in use"),
        "{refused}"
    );
}

#[test]
fn the_file_says_what_was_and_what_is() {
    let change = change(&[(41_000, 41_000)]);
    let text = contents(&change.from, &change.to);
    assert_eq!(former(&text).expect("former values"), change.from);
    assert_eq!(in_file(&text).expect("values"), change.to);
    let none = contents(&local(1, 2, &[]), &local(3, 4, &[]));
    assert_eq!(former(&none).expect("former values"), local(1, 2, &[]));
    assert!(former("net.ipv4.ip_local_port_range = 1 2").is_err());
}

#[test]
fn sockets_that_fall_out_forbid_it() {
    use SocketState::{Close, Established, Listen, TimeWait};
    use Transport::{Tcp, Udp};
    // socket, whether it forbids the change
    let table = [
        (socket(Tcp, "0.0.0.0:50000", "0.0.0.0:0", Listen), true),
        (socket(Tcp, "[::]:50000", "[::]:0", Listen), true),
        (
            socket(Tcp, "10.9.0.2:50000", "10.9.0.1:443", Established),
            true,
        ),
        (socket(Udp, "0.0.0.0:50000", "0.0.0.0:0", Close), true),
        // In force before and after.
        (socket(Tcp, "0.0.0.0:42000", "0.0.0.0:0", Listen), false),
        (
            socket(Tcp, "10.9.0.2:42000", "10.9.0.1:443", Established),
            false,
        ),
        // Reserved from now on.
        (socket(Tcp, "0.0.0.0:41000", "0.0.0.0:0", Listen), true),
        // Reserved before, too.
        (socket(Tcp, "0.0.0.0:33000", "0.0.0.0:0", Listen), false),
        (socket(Tcp, "0.0.0.0:22", "0.0.0.0:0", Listen), false),
        (socket(Tcp, "127.0.0.1:50000", "0.0.0.0:0", Listen), false),
        (
            socket(Tcp, "10.9.0.2:50000", "10.9.0.1:443", TimeWait),
            false,
        ),
        (
            socket(Tcp, "10.9.0.2:50000", "10.9.0.2:22", Established),
            false,
        ),
    ];
    let change = change(&[(41_000, 41_000)]);
    for (socket, forbids) in table {
        assert_eq!(refusal(&change, &[socket]).is_some(), forbids, "{socket:?}");
    }
}

#[test]
fn a_listener_that_a_moved_range_reaches_forbids_it() {
    let harden = Harden {
        range: range(20_000, 25_000),
        reserve: Vec::new(),
        dry_run: false,
        force: false,
    };
    let change = Change::new(local(32_768, 60_999, &[]), &harden);
    let listener = socket(
        Transport::Tcp,
        "0.0.0.0:22000",
        "0.0.0.0:0",
        SocketState::Listen,
    );
    let served = socket(
        Transport::Tcp,
        "10.9.0.2:22000",
        "10.9.0.1:5",
        SocketState::Established,
    );
    let failure = refusal(&change, &[listener]).expect("a refusal");
    assert_eq!(failure.code, Exit::BadConfiguration);
    assert!(
        failure.to_string().contains("tcp port 22000 (listens)"),
        "{failure}"
    );
    assert!(refusal(&change, &[served]).is_none());
}

#[test]
fn many_sockets_are_counted() {
    let sockets: Vec<_> = (50_000..50_020)
        .map(|port| {
            socket(
                Transport::Tcp,
                &format!("0.0.0.0:{port}"),
                "0.0.0.0:0",
                SocketState::Listen,
            )
        })
        .collect();
    let failure = refusal(&change(&[]), &sockets).expect("a refusal");
    assert!(failure.to_string().contains("and 15 more"), "{failure}");
}

#[test]
fn a_file_is_replaced_in_one_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(FILE);
    assert!(matches!(keep(&file, "a"), Ok(SavedSettings::New)));
    let Ok(kept @ SavedSettings::Replaced(_)) = keep(&file, "b") else {
        panic!("it was there");
    };
    kept.undo(&file);
    assert_eq!(fs::read_to_string(&file).expect("text"), "a");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

#[test]
fn lists_of_ports() {
    for (text, expected) in [
        ("8080", Some(vec![range(8080, 8080)])),
        (
            "8080,9000-9010",
            Some(vec![range(8080, 8080), range(9000, 9010)]),
        ),
        ("", None),
        ("a", None),
        ("9-1", None),
    ] {
        let parsed = text.parse::<PortList>().ok().map(|list| list.0);
        assert_eq!(parsed, expected, "{text}");
    }
}
