//! What holds for any frame, in memory.

use guard_common::{
    abi::{config::Config, device::Device, page::InForce},
    flow::key::AddressKey,
    outcome::{Decision, Direction, Family, Outcome, Protocol, Verdict},
    policy::{datapath::Locality, egress, ingress},
    ports::class::PORTS,
};
use guard_tests::{
    cases,
    frames::{self, End, Extension, FAR, Frame, G, N, P, tcp, udp, udp_lite},
    memory::{Host, MemoryDatapath},
    mutations::Mutations,
    setup::{self, Setup},
};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

fn check(direction: Direction, frame: &[u8], tables: &MemoryDatapath) -> Decision {
    match direction {
        Direction::Ingress => ingress::ingress(frame, tables),
        Direction::Egress => tables.send(frame),
    }
}

/// An assessment belongs to the hook that made it.
fn is_of(decision: Decision, direction: Direction) -> bool {
    decision.outcome.direction() == direction
}

/// A frame that ends early is decided as if it did not, or refused as malformed, and never less
/// strictly the more of it is missing.
#[test]
fn every_prefix_of_every_frame_is_decided_like_the_frame_or_refused() {
    for (direction, frame) in cases::frames() {
        // A received frame leaves nothing behind that its own prefix would be decided by.
        let shared = MemoryDatapath::new(Setup::default());
        let check = |length: usize| match direction {
            Direction::Ingress => check(direction, &frame[..length], &shared),
            Direction::Egress => {
                let own = MemoryDatapath::new(Setup::default());
                check(direction, &frame[..length], &own)
            }
        };
        let cut_off = match direction {
            Direction::Ingress => Outcome::DropMalformed,
            Direction::Egress => Outcome::PassNotRecorded,
        };
        let whole = check(frame.len());
        if direction == Direction::Egress && whole.protocol == Protocol::Tcp {
            // Without its flags, what opens nothing looks like what opens a flow.
            continue;
        }
        let mut expected = whole.outcome;
        for length in (0..frame.len()).rev() {
            let outcome = check(length).outcome;
            if outcome == cut_off {
                expected = cut_off;
            }
            assert_eq!(outcome, expected, "{length} bytes of {frame:02x?}");
        }
        assert_eq!(expected, cut_off, "no byte of {frame:02x?}");
    }
}

/// The same with every flow known: a frame whose ports are cut off belongs to none.
#[test]
fn no_prefix_without_ports_belongs_to_a_flow() {
    let builds: [fn(u16, u16) -> Frame; 3] = [udp, udp_lite, tcp];
    let tables = MemoryDatapath::new(Setup::default());
    for family in [Family::Ipv4, Family::Ipv6] {
        for build in builds {
            egress::egress(&build(40_000, 53).sent(family)[..], &tables);
        }
    }
    let dressed: [fn(Frame) -> Frame; 5] = [
        |frame| frame,
        |frame| frame.tags(4),
        |frame| frame.options(&[1; 40]),
        |frame| {
            frame
                .behind(Extension::Destination(3))
                .behind(Extension::Atomic)
        },
        |frame| frame.behind(Extension::HopByHop(0)).piece(7, ..8),
    ];
    for build in builds {
        for dress in dressed {
            for family in [Family::Ipv4, Family::Ipv6] {
                let frame = dress(build(53, 40_000).data(&[]));
                if !frame.exists_in(family) {
                    continue;
                }
                let ports = dress(build(53, 40_000).data(&[])).cut_transport(4);
                let ports = ports.received(family).len();
                let bytes = frame.received(family);
                for length in 0..=bytes.len() {
                    let outcome = ingress::ingress(&bytes[..length], &tables).outcome;
                    let due = if length < ports {
                        Outcome::DropMalformed
                    } else {
                        Outcome::PassKnownFlow
                    };
                    assert_eq!(outcome, due, "{length} of {bytes:02x?}");
                }
            }
        }
    }
}

/// Nothing that is received ever opens a flow.
#[test]
fn received_frames_open_nothing() {
    let originals: Vec<_> = cases::frames()
        .into_iter()
        .filter(|(direction, _)| *direction == Direction::Ingress)
        .collect();
    let tables = MemoryDatapath::new(Setup::default());
    let mut mutations = Mutations::new(1);
    for _ in 0..100_000 {
        let (direction, frame) = mutations.next(&originals);
        let decision = check(direction, &frame, &tables);
        assert!(is_of(decision, direction));
        assert_ne!(decision.outcome, Outcome::PassKnownFlow, "{frame:02x?}");
        assert_ne!(decision.outcome, Outcome::PassIcmpRelated, "{frame:02x?}");
    }
    assert!(tables.flows().is_empty());
    assert!(tables.occupancy_bytes().iter().all(|mark| *mark == 0));
}

fn direction() -> impl Strategy<Value = Direction> {
    prop::bool::ANY.prop_map(|out| {
        if out {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    })
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, cases: 512, ..Default::default() })]

    #[test]
    fn random_bytes_are_decided_once(bytes in prop::collection::vec(any::<u8>(), 0..200), direction in direction()) {
        let decision = check(direction, &bytes, &MemoryDatapath::new(Setup::default()));
        prop_assert!(is_of(decision, direction));
    }

    #[test]
    fn random_packets_are_decided_once(
        tags in 0usize..7,
        version in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        direction in direction(),
    ) {
        let ether_type = if version == 0x60 { 0x86dd } else { 0x0800 };
        let mut packet = bytes;
        packet.insert(0, version);
        let frame = frames::ethernet(ether_type, &packet).tags(tags).received(Family::Ipv4);
        let decision = check(direction, &frame, &MemoryDatapath::new(Setup::default()));
        prop_assert!(is_of(decision, direction));
        if tags > 4 && direction == Direction::Ingress {
            prop_assert_eq!(decision.outcome, Outcome::DropVlanDepth);
        }
    }

    #[test]
    fn only_the_range_is_guarded(source in any::<u16>(), destination in any::<u16>(), v6 in any::<bool>()) {
        let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
        let tables = MemoryDatapath::new(Setup::default());
        let decision = ingress::ingress(&udp(source, destination).received(family)[..], &tables);
        let inside = (32_768..=60_999).contains(&destination);
        prop_assert_eq!(decision.outcome == Outcome::PassOutsideRange, !inside);
        prop_assert_eq!(decision.protocol, Protocol::Udp);
        prop_assert_eq!(decision.family, family);
    }

    #[test]
    fn whatever_was_sent_is_answered(local in any::<u16>(), remote in any::<u16>(), v6 in any::<bool>(), over_tcp in any::<bool>()) {
        let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
        let build = if over_tcp { tcp } else { udp };
        let tables = MemoryDatapath::new(Setup::default());
        let sent = egress::egress(&build(local, remote).sent(family)[..], &tables).outcome;
        let answer = ingress::ingress(&build(remote, local).received(family)[..], &tables).outcome;
        match sent {
            Outcome::PassNewFlow => prop_assert_eq!(answer, Outcome::PassKnownFlow),
            _ => prop_assert!(answer != Outcome::PassKnownFlow),
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, cases: 256, ..Default::default() })]

    /// Whatever is sent while another policy is about to come into force is answered under both, if it
    /// is recorded under either.
    #[test]
    fn what_is_sent_before_a_change_is_answered_after_it(
        local in prop_oneof![guarded_port(), 30_000..35_000u16, any::<u16>()],
        remote in prop::sample::select(vec![53u16, 443, 4789, 5353]),
        (v6, over_tcp, unbroken) in any::<(bool, bool, bool)>(),
        any_remote_port in any::<(bool, bool)>(),
        (tags, twice) in (0..5usize, any::<bool>()),
    ) {
        let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
        let build = if over_tcp { tcp } else { udp };
        let now = Setup { any_remote_port: any_remote_port.0, unbroken, ..Setup::default() };
        let next = Setup { any_remote_port: any_remote_port.1, unbroken: !unbroken, ..now };
        // Ports before the range become guarded, and the last ones do not stay so.
        let flags = next.config().in_force.flags() | InForce::SPECIAL;
        let in_force = InForce::new(30_000, 50_000, flags);
        let mut page = next.page();
        (page.ports.tcp, page.ports.udp) = ([0; PORTS / 32], [0; PORTS / 32]);
        for port in 30_000..=50_000 {
            page.ports.tcp[port / 32] |= u32::from(port % 3 != 0) << (port % 32);
            page.ports.udp[port / 32] |= u32::from(port % 5 != 0) << (port % 32);
        }
        let sent = build(local, remote).tags(tags).sent(family);
        let answer = build(remote, local).tags(tags).received(family);
        let recorded_by = |config: Config, page| {
            let tables = MemoryDatapath::with(config, page, setup::device(), 16, Box::new(Router));
            tables.send(&sent).outcome != Outcome::PassNotRecorded
        };
        let after = Config { in_force, recorded: in_force, ..next.config() };
        let mut tables = MemoryDatapath::new(now);
        tables.record_both(in_force, page.clone());
        if twice {
            tables.send(&sent);
        }
        let recorded = tables.send(&sent).outcome != Outcome::PassNotRecorded;
        let (then, later) = (recorded_by(now.config(), now.page()), recorded_by(after, page.clone()));
        prop_assert!(!(then || later) || recorded, "{} {}", then, later);
        let known = |tables: &MemoryDatapath| ingress::ingress(&answer[..], tables).outcome == Outcome::PassKnownFlow;
        prop_assert!(!then || known(&tables), "before");
        tables.configure(after, page);
        tables.invalidate_filter();
        prop_assert!(!later || known(&tables), "after");
    }
}

/// A host that routes, and asks the kernel's routes about everything but its own addresses.
struct Router;

impl Host for Router {
    fn locality(&self, _address: &AddressKey) -> Locality {
        Locality::Unknown
    }

    fn forwards(&self, _source: &AddressKey, _destination: &AddressKey) -> bool {
        true
    }
}

fn end() -> impl Strategy<Value = End> {
    prop::sample::select(vec![G, P, N, FAR])
}

fn guarded_port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![
        setup::FIRST - 1,
        setup::FIRST,
        setup::RESERVED,
        setup::EXPOSED_TCP,
        setup::EXPOSED_UDP,
        50_000,
        50_001,
        setup::LAST,
        setup::LAST + 1,
    ])
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, cases: 300, ..Default::default() })]

    /// Whatever the administrator asks for, the fast path says what the general path says.
    #[test]
    fn the_fast_path_decides_as_the_general_path_does(
        (any_remote_port, monitor, trusts, unbroken, forwards) in any::<(bool, bool, bool, bool, bool)>(),
        (from, to) in (end(), end()),
        (local, known) in (guarded_port(), any::<bool>()),
        (build, tags) in (0..4usize, 0..3usize),
        ipv4 in any::<bool>(),
    ) {
        let setup = Setup { any_remote_port, monitor, trusts, unbroken, ..Setup::default() };
        let config = setup.config();
        let in_force = config.in_force.with(InForce::FORWARDS, forwards);
        let mut device = setup::device();
        device.forwards = if forwards { Device::ROUTES } else { 0 };
        let tables = || {
            let config = Config { in_force, recorded: in_force, ..config };
            let tables = MemoryDatapath::with(config, setup.page(), device, 16, Box::new(Router));
            if known {
                egress::egress(&udp(local, 53).sent(Family::Ipv4)[..], &tables);
                egress::egress(&tcp(local, 53).sent(Family::Ipv6)[..], &tables);
            }
            tables
        };
        let frame = match build {
            0 => udp(53, local),
            1 => tcp(53, local),
            2 => tcp(54, local).syn(),
            _ => udp_lite(53, local),
        };
        let family = if ipv4 { Family::Ipv4 } else { Family::Ipv6 };
        let frame = frame.from(from).to(to).tags(tags).received(family);
        let (fast, general) = (tables(), tables());
        let decided = ingress::ingress_then(&frame[..], &fast, |decision, verdict| (decision, verdict));
        let decision = ingress::ingress_general(&frame[..], &general);
        let passes = monitor || decision.outcome.verdict() == Verdict::Pass;
        let verdict = if passes { Verdict::Pass } else { Verdict::Drop };
        prop_assert_eq!(decided, (decision, verdict));
        prop_assert_eq!(fast.flows(), general.flows());
    }
}
