use guard_common::flow::adaptive::Adaptive;

use super::*;

const CAPACITY: u64 = 1024;

fn loads(live: u64) -> [Load; 2] {
    [(Family::Ipv4, live), (Family::Ipv6, 3)].map(|(family, live)| Load {
        family,
        protocol: Protocol::Udp,
        live,
        entries: live,
        capacity: CAPACITY,
    })
}

fn quiet(watch: &mut Watch, live: u64, now: Instant) -> Option<String> {
    watch.note(&loads(live), Scales::WHOLE, Shortage::default(), now)
}

#[test]
fn what_is_said_of_full_maps_and_when() {
    let start = Instant::now();
    let mut watch = Watch::default();
    assert_eq!(quiet(&mut watch, 767, start), None);
    let said = quiet(&mut watch, 768, start).expect("something is said");
    assert_eq!(
        said,
        "768 of 1024 flows of UDP over IPv4; flows without a socket on this host may be \
         forgotten, --max-flows 2048 has room"
    );
    assert_eq!(watch.advice(), Some(said.as_str()));
    // Once.
    assert_eq!(quiet(&mut watch, 1000, start), None);
    assert!(
        watch
            .advice()
            .is_some_and(|advice| advice.starts_with("1000 of 1024"))
    );
    // Neither full nor roomy: nothing changes.
    for _ in 0..20 {
        assert_eq!(quiet(&mut watch, 700, start), None);
    }
    assert!(watch.advice().is_some());
    for _ in 1..CALM {
        assert_eq!(quiet(&mut watch, 600, start), None);
    }
    let said = quiet(&mut watch, 600, start);
    assert_eq!(said.as_deref(), Some("the flow maps have room again"));
    assert_eq!(watch.advice(), None);
}

/// A map that goes back and forth is reported once in a while.
#[test]
fn nothing_is_said_again_soon() {
    let start = Instant::now();
    let mut watch = Watch::default();
    let mut said = 0;
    for minute in 0..60 {
        let now = start + Duration::from_secs(60) * minute;
        for live in [1000, 10, 10, 10, 10, 10, 10] {
            said += u32::from(quiet(&mut watch, live, now).is_some());
        }
    }
    // Six times each.
    assert_eq!(said, 12);
}

#[test]
fn signs_other_than_live_flows() {
    let start = Instant::now();
    let counted = |insert_failed, rescued_absent| Shortage {
        insert_failed,
        rescued_absent,
    };
    let full = |live| {
        loads(live).map(|load| Load {
            entries: CAPACITY,
            ..load
        })
    };
    // flows, entries               before          now              what is said
    let table = [
        (loads(10), counted(5, 5), counted(5, 5), None),
        (loads(10), counted(5, 5), counted(6, 5), Some("had no room")),
        // Connections that are older than the guard are rescued too, where there is room.
        (loads(10), counted(0, 0), counted(0, 500), None),
        (full(10), counted(0, 0), counted(0, 10), None),
        (
            full(10),
            counted(0, 0),
            counted(0, 11),
            Some("11 flows had to be rescued"),
        ),
        // Other maps have begun to count anew.
        (loads(10), counted(5, 5), counted(0, 0), None),
    ];
    for (loads, before, now, part) in table {
        let mut watch = Watch::default();
        watch.note(&loads, Scales::WHOLE, before, start);
        let said = watch.note(&loads, Scales::WHOLE, now, start);
        match (&said, part) {
            (Some(said), Some(part)) => assert!(said.contains(part), "{said}"),
            _ => assert_eq!(said.as_deref(), part),
        }
    }
    // Counters of an adopted guard do not start at 0, and say nothing by that.
    let first = Watch::default().note(&loads(10), Scales::WHOLE, counted(7, 7_000), start);
    assert_eq!(first, None);
}

#[test]
fn sizes() {
    let adapted = |live| Adaptive::default().scale(live, CAPACITY);
    // flows                      size
    let table = [
        (10, Scale::WHOLE, Some(2048)),
        (1024, Scale::WHOLE, Some(2048)),
        // At full length, timers would let 1,024 and 3,103 live.
        (768, adapted(768), Some(2048)),
        (1024, adapted(1024), Some(8192)),
    ];
    for (live, scale, expected) in table {
        let size = size(&loads(live)[0], scale).map(MaxFlows::get);
        assert_eq!(size, expected, "{live} of {CAPACITY}");
    }

    let largest = Load {
        live: 16_000_000,
        capacity: 1 << 24,
        ..loads(0)[0]
    };
    assert_eq!(size(&largest, Scale::WHOLE), None);
    assert!(remedy(&largest, Scales::WHOLE).contains("--timeout"));
}
