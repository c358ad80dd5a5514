use super::*;

/// Text of a sysctl and the ranges it means, if any.
type ReservedCase<'a> = (&'a str, &'a str, Option<&'a [(u16, u16)]>);

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).expect("a range")
}

#[test]
fn local_port_range() {
    let table = [
        ("default", "32768\t60999\n", Some((32768, 60999))),
        ("everything", "1\t65535\n", Some((1, 65535))),
        ("tuned host", "1024 65535", Some((1024, 65535))),
        ("one port", "60999\t60999\n", Some((60999, 60999))),
        ("many blanks", "  1024 \t 2048  \n\n", Some((1024, 2048))),
        ("reversed", "60999\t32768\n", None),
        ("port 0", "0\t100\n", None),
        ("one number", "32768\n", None),
        ("three numbers", "1 2 3", None),
        ("empty", "", None),
        ("above 65535", "1024 65536", None),
        ("negative", "-1 100", None),
        ("plus", "+1 100", None),
        ("hexadecimal", "0x10 100", None),
        ("garbage", "a b", None),
    ];
    for (name, text, expected) in table {
        let expected = expected.map(|(first, last)| range(first, last));
        assert_eq!(parse_range(text).ok(), expected, "{name}");
    }
}

#[test]
fn local_reserved_ports() {
    let table: [ReservedCase<'_>; 13] = [
        ("nothing", "\n", Some(&[])),
        ("no byte", "", Some(&[])),
        ("one port", "8080\n", Some(&[(8080, 8080)])),
        (
            "list and range",
            "8080,9000-9010,65535\n",
            Some(&[(8080, 8080), (9000, 9010), (65535, 65535)]),
        ),
        ("port 0", "0\n", Some(&[])),
        ("range from 0", "0-5,7\n", Some(&[(1, 5), (7, 7)])),
        ("reversed", "9010-9000", None),
        ("blank inside", "8080, 9000", None),
        ("trailing comma", "8080,", None),
        ("open range", "8080-", None),
        ("two dashes", "1-2-3", None),
        ("above 65535", "65536", None),
        ("garbage", "ports", None),
    ];
    for (name, text, expected) in table {
        let expected: Option<Vec<_>> = expected.map(|ranges| {
            ranges
                .iter()
                .map(|&(first, last)| range(first, last))
                .collect()
        });
        assert_eq!(parse_reserved(text).ok(), expected, "{name}");
    }
}

#[test]
fn every_other_port_reserved() {
    let text = (1..=65535)
        .step_by(2)
        .map(|port: u16| port.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let reserved = parse_reserved(&text).expect("a long list");
    let guarded = GuardedPorts::new(
        &LocalPorts {
            range: range(1, 65535),
            reserved,
        },
        [],
    );

    assert_eq!(guarded.bitmap(Transport::Tcp).count(), 32767);
    assert!(guarded.guarded(Transport::Udp, 65534));
    assert!(guarded.exempt(Transport::Udp, 65535));
}

#[test]
fn range_flags() {
    let table = [
        ("range", "32768-60999", Some((32768, 60999))),
        ("one port", "5-5", Some((5, 5))),
        ("one number", "5", None),
        ("reversed", "6-5", None),
        ("port 0", "0-5", None),
        ("blank", "1 -5", None),
        ("open", "1-", None),
        ("above 65535", "1-65536", None),
    ];
    for (name, text, expected) in table {
        assert_eq!(
            text.parse::<PortRange>()
                .ok()
                .map(|ports| (ports.first(), ports.last())),
            expected,
            "{name}"
        );
    }
}

#[test]
fn guarded_and_exempt() {
    use Transport::{Tcp, Udp, UdpLite};

    let local = LocalPorts {
        range: range(32768, 60999),
        reserved: vec![range(1000, 1000), range(40000, 40001)],
    };
    let exposed = [(Tcp, range(50000, 50000)), (Udp, range(60990, 65535))];
    let guarded = GuardedPorts::new(&local, exposed);
    // name                            transport  port   guarded exempt
    let table = [
        ("below the range", Tcp, 32767, false, false),
        ("first port", Tcp, 32768, true, false),
        ("last port", Tcp, 60999, true, false),
        ("above the range", Tcp, 61000, false, false),
        ("reserved outside the range", Tcp, 1000, false, false),
        ("reserved", Tcp, 40001, false, true),
        ("reserved, UDP", Udp, 40000, false, true),
        ("exposed", Tcp, 50000, false, true),
        ("exposed for the other", Udp, 50000, true, false),
        ("UDP-Lite goes with UDP", UdpLite, 60999, false, true),
        ("exposed to beyond the range", Udp, 60999, false, true),
        ("exposed outside the range", Udp, 61000, false, false),
    ];
    for (name, transport, port, is_guarded, is_exempt) in table {
        assert_eq!(guarded.guarded(transport, port), is_guarded, "{name}");
        assert_eq!(guarded.exempt(transport, port), is_exempt, "{name}");
        let word = guarded.bitmap(transport).words()[usize::from(port) / 32];
        assert_eq!(word >> (port % 32) & 1 == 1, is_guarded, "{name}");
    }
}

#[test]
fn sysctls_of_this_host() {
    let local = LocalPorts::read(None).expect("the sysctls");
    assert!(local.range.first() <= local.range.last());
}

#[test]
fn an_error_names_file_text_and_remedy() {
    let missing = Sysctl::open("/proc/sys/net/ipv4/no_such").expect_err("no file");
    assert_eq!(
        format!("{missing:#}"),
        "/proc/sys/net/ipv4/no_such: cannot be read: No such file or directory (os error 2); show \
         the process the whole of /proc/sys/net"
    );

    let malformed = Sysctl::open("/proc/sys/kernel/ostype")
        .and_then(|sysctl| sysctl.read(parse_range))
        .expect_err("no range");
    assert_eq!(
        format!("{malformed:#}"),
        "/proc/sys/kernel/ostype: cannot make sense of \"Linux\": expected two ports; write it \
         again with sysctl"
    );
}

#[test]
fn ports_that_were_not_guarded_before() {
    let local = |first, last| LocalPorts {
        range: PortRange::new(first, last).expect("a range"),
        reserved: Vec::new(),
    };
    let exposed = (Transport::Tcp, PortRange::new(150, 160).expect("a range"));
    let before = GuardedPorts::new(&local(100, 200), [exposed]);
    let after = GuardedPorts::new(&local(120, 300), []);
    let beyond = after.without(&before).expect("some are");
    let tcp: Vec<_> = beyond.bitmap(Transport::Tcp).runs();
    let udp: Vec<_> = beyond.bitmap(Transport::Udp).runs();
    let shown = |runs: &[PortRange]| runs.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&tcp), ["150-160", "201-300"]);
    assert_eq!(shown(&udp), ["201-300"]);
    assert_eq!(shown(&beyond.ranges()), ["150-160", "201-300"]);
    assert!(before.without(&before).is_none());
    let scattered = (1..200).map(|number| {
        let port = 101 + 2 * number;
        (Transport::Tcp, PortRange::new(port, port).expect("a range"))
    });
    let scattered: Vec<_> = scattered
        .chain((1..200).map(|number| {
            let port = 101 + 2 * number;
            (Transport::Udp, PortRange::new(port, port).expect("a range"))
        }))
        .collect();
    let many = GuardedPorts::new(&local(100, 600), scattered);
    assert_eq!(shown(&many.ranges()), ["100-600"]);
    let whole = GuardedPorts::new(&local(1, 65535), []);
    assert_eq!(shown(&whole.ranges()), ["1-65535"]);
}
