mod flows;

use netlink_packet_core::{NLA_F_NESTED, NetlinkBuffer};

use super::*;

/// An attribute with the padding behind it.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &attributes.concat())
}

/// One direction of a connection: `CTA_TUPLE_ORIG` is 1, `CTA_TUPLE_REPLY` 2.
fn tuple(kind: u16, protocol: u8, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let octets = |end: SocketAddr| match end.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // `CTA_IP_V4_SRC` is 1, `CTA_IP_V6_SRC` 3, and each destination comes next.
    let first = if source.is_ipv4() { 1 } else { 3 };
    nested(
        kind,
        &[
            nested(
                1,
                &[
                    attribute(first, &octets(source)),
                    attribute(first + 1, &octets(destination)),
                ],
            ),
            nested(
                2,
                &[
                    attribute(1, &[protocol]),
                    attribute(2, &source.port().to_be_bytes()),
                    attribute(3, &destination.port().to_be_bytes()),
                ],
            ),
        ],
    )
}

/// `CTA_PROTOINFO` of a TCP connection, with the flags of both directions.
fn protoinfo(state: u8, original: u8, reply: u8) -> Vec<u8> {
    let tcp = [
        attribute(1, &[state]),
        attribute(2, &[7]),
        attribute(3, &[7]),
        attribute(4, &[original, 0]),
        attribute(5, &[reply, 0]),
    ];
    nested(4, &[nested(1, &tcp)])
}

/// A payload: `struct nfgenmsg`, and what follows it.
fn payload(attributes: &[Vec<u8>]) -> Vec<u8> {
    [&[2, 0, 0, 0], attributes.concat().as_slice()].concat()
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_LITE: u8 = 136;
const ICMP: u8 = 1;
/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_NEW`.
const ENTRY: u16 = 0x100;

fn end(text: &str) -> SocketAddr {
    text.parse().expect("is an end")
}

/// A masqueraded connection of 172.30.0.2, with all that the kernel says of one.
fn masqueraded(state: u8) -> Vec<u8> {
    payload(&[
        tuple(1, TCP, end("172.30.0.2:40000"), end("10.9.0.1:80")),
        tuple(2, TCP, end("10.9.0.1:80"), end("10.9.0.2:40001")),
        // `CTA_ZONE`, `CTA_STATUS`, `CTA_TIMEOUT` and one of the future.
        attribute(18, &7_u16.to_be_bytes()),
        attribute(3, &0x18e_u32.to_be_bytes()),
        attribute(7, &300_u32.to_be_bytes()),
        attribute(200, b"?"),
        protoinfo(state, 0x23, 0x23),
    ])
}

#[test]
fn a_masqueraded_connection_is_known_by_its_answers() {
    let tracked = read(ENTRY, &masqueraded(3)).expect("is well-formed");
    assert_eq!(
        tracked,
        Some(Tracked {
            transport: Transport::Tcp,
            opener: end("172.30.0.2:40000"),
            asked: end("10.9.0.1:80"),
            local: end("10.9.0.2:40001"),
            remote: end("10.9.0.1:80"),
            answered: true,
            tcp: ConntrackTcp::default(),
        })
    );
}

/// What is told by the bytes alone is what is told by all that they say.
#[test]
fn what_nothing_translates_is_told_at_a_glance() {
    let (v4, v6) = (
        [end("10.9.0.2:40000"), end("10.9.0.1:80")],
        [end("[fd09::2]:40000"), end("[fd09::1]:80")],
    );
    let elsewhere = [
        [end("10.9.0.2:40000"), end("10.9.0.3:80")],
        [end("10.9.0.2:40000"), end("10.9.0.1:81")],
        [end("10.9.0.3:40000"), end("10.9.0.1:80")],
        [end("10.9.0.2:40001"), end("10.9.0.1:80")],
        [end("10.9.0.1:80"), end("10.9.0.2:40000")],
    ];
    let entry = |protocol, [opener, asked]: [SocketAddr; 2], [local, remote]: [SocketAddr; 2]| {
        let both = [
            tuple(1, protocol, opener, asked),
            tuple(2, protocol, remote, local),
        ];
        payload(&both)
    };
    for protocol in [TCP, UDP, UDP_LITE] {
        for ends in [v4, v6] {
            let plain = entry(protocol, ends, ends);
            assert_eq!(untranslated(ENTRY, &plain), Some(protocol));
            let tracked = read(ENTRY, &plain).expect("is well-formed");
            assert!(tracked.is_some_and(|tracked| !tracked.is_translated()));
            assert_eq!(untranslated(ENTRY + 2, &plain), None);
            for length in 0..plain.len() {
                assert_eq!(untranslated(ENTRY, &plain[..length]), None);
            }
        }
        for wire in elsewhere {
            let translated = entry(protocol, v4, wire);
            assert_eq!(untranslated(ENTRY, &translated), None, "{wire:?}");
            let tracked = read(ENTRY, &translated).expect("is well-formed");
            assert!(tracked.is_some_and(|tracked| tracked.is_translated()));
        }
    }
    assert_eq!(untranslated(ENTRY, &masqueraded(3)), None);
}

#[test]
fn protocols_and_families() {
    // name, protocol, source and destination of answers, transport
    let table = [
        (
            "UDP",
            UDP,
            "10.9.0.1:53",
            "10.9.0.2:40000",
            Some(Transport::Udp),
        ),
        (
            "UDP-Lite",
            UDP_LITE,
            "10.9.0.1:53",
            "10.9.0.2:40000",
            Some(Transport::UdpLite),
        ),
        (
            "IPv6",
            TCP,
            "[fd09::1]:80",
            "[fd09::2]:40000",
            Some(Transport::Tcp),
        ),
        ("SCTP", 132, "10.9.0.1:80", "10.9.0.2:40000", None),
    ];
    for (name, protocol, source, destination, transport) in table {
        let (source, destination) = (end(source), end(destination));
        let message = payload(&[
            tuple(1, protocol, destination, source),
            tuple(2, protocol, source, destination),
        ]);
        let tracked = read(ENTRY, &message).expect("is well-formed");
        let found = tracked.map(|tracked| (tracked.transport, tracked.local, tracked.remote));
        let expected = transport.map(|transport| (transport, destination, source));
        assert_eq!(found, expected, "{name}");
    }
    // Other messages are none of ours, whatever is in them.
    assert_eq!(read(ENTRY + 2, b"?").expect("is skipped"), None);
}

#[test]
fn protocols_without_ports_are_skipped() {
    let echo = nested(
        2,
        &[
            nested(
                1,
                &[attribute(1, &[10, 9, 0, 1]), attribute(2, &[10, 9, 0, 2])],
            ),
            nested(
                2,
                &[
                    attribute(1, &[ICMP]),
                    attribute(4, &[0, 7]),
                    attribute(5, &[0]),
                ],
            ),
        ],
    );
    assert_eq!(
        read(ENTRY, &payload(&[echo])).expect("is well-formed"),
        None
    );
}

#[test]
fn what_is_cut_off_anywhere_is_an_error_or_lacks_only_what_may_be_missing() {
    let whole = masqueraded(3);
    let without_state = 4 + tuple(1, TCP, end("10.9.0.1:1"), end("10.9.0.1:1")).len() * 2;
    for length in 0..whole.len() {
        match read(ENTRY, &whole[..length]) {
            Ok(tracked) => {
                let tracked = tracked.expect("is of TCP");
                // Where an attribute ends, the message may end as well.
                assert!(length >= without_state, "{length}: {tracked:?}");
                assert_eq!(tracked.local, end("10.9.0.2:40001"), "{length}");
                assert_eq!(tracked.opener, end("172.30.0.2:40000"), "{length}");
                assert_eq!(tracked.tcp, ConntrackTcp::default(), "{length}");
            }
            Err(error) => assert!(error.to_string().contains("conntrack"), "{length}: {error}"),
        }
    }
}

#[test]
fn what_is_wrong_anywhere_is_no_panic() {
    let whole = masqueraded(5);
    for position in 0..whole.len() {
        for value in [0, 1, 3, 4, 5, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[position] = value;
            let _ = read(ENTRY, &bytes);
            let _ = read(ENTRY, &bytes[..position]);
        }
    }
}

#[test]
fn what_contradicts_itself_is_an_error() {
    let (v4, v6) = (end("10.9.0.1:80"), end("[fd09::1]:80"));
    let ports = |kinds: &[u16]| {
        let mut attributes = vec![attribute(1, &[TCP])];
        attributes.extend(kinds.iter().map(|kind| attribute(*kind, &[0, 80])));
        nested(2, &attributes)
    };
    let addresses = nested(
        1,
        &[attribute(1, &[10, 9, 0, 1]), attribute(2, &[10, 9, 0, 2])],
    );
    let table = [
        ("the original direction alone", vec![]),
        ("two families", {
            let mixed = nested(
                1,
                &[attribute(1, &[10, 9, 0, 1]), attribute(4, &[0xfd; 16])],
            );
            vec![nested(2, &[mixed, ports(&[2, 3])])]
        }),
        ("no addresses", vec![nested(2, &[ports(&[2, 3])])]),
        (
            "no port",
            vec![nested(2, &[addresses.clone(), ports(&[2])])],
        ),
        ("a short address", {
            let short = nested(
                1,
                &[attribute(1, &[10, 9, 0]), attribute(2, &[10, 9, 0, 2])],
            );
            vec![nested(2, &[short, ports(&[2, 3])])]
        }),
        ("an address of the other length", {
            let long = nested(1, &[attribute(1, &[10; 16]), attribute(2, &[10; 16])]);
            vec![nested(2, &[long, ports(&[2, 3])])]
        }),
        (
            "a state of two bytes",
            vec![
                tuple(2, TCP, v6, v6),
                nested(4, &[nested(1, &[attribute(1, &[3, 3])])]),
            ],
        ),
        (
            "a status of two bytes",
            vec![tuple(2, TCP, v6, v6), attribute(3, &[0, 2])],
        ),
    ];
    for (name, mut attributes) in table {
        attributes.insert(0, tuple(1, TCP, v6, v6));
        assert!(read(ENTRY, &payload(&attributes)).is_err(), "{name}");
    }
    let reply = tuple(2, TCP, v4, v4);
    assert!(read(ENTRY, &payload(&[])).is_err(), "nothing");
    assert!(read(ENTRY, &payload(&[reply])).is_err(), "the reply alone");
}

#[test]
fn the_question_is_well_formed() {
    let mut request = message::request();
    let buffer = NetlinkBuffer::new_checked(&mut request).expect("is netlink");
    assert_eq!(buffer.length(), 20);
    assert_eq!(buffer.message_type(), 0x101);
    assert_eq!(buffer.flags(), 0x301);
}
