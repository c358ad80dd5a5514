//! The tuple filter: unsolicited senders at ports in use are told from everybody else without a look-up, and
//! nobody else notices.

mod owner;

use std::{cell::RefCell, rc::Rc};

use guard_common::{
    abi::{config::Config, page::InForce},
    flow::key::{AddressKey, FlowKey, FlowKeyV4, SizedKey},
    frame::{address::V4, ip::Tuple, transport::Transport},
    outcome::{Family, Outcome},
    policy::{datapath::SocketMatch, egress, ingress},
    ports::occupancy::Use,
};
use guard_tests::{
    frames::{End, FAR, Frame, G, MDNS, P, tcp, udp, udp_lite},
    memory::{Host, Key, MemoryDatapath},
    setup::{self, Setup},
};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

/// A host with these connected sockets, which no interface sends on.
struct Sockets(Rc<RefCell<Vec<Key>>>);

impl Host for Sockets {
    fn socket(&self, _transport: Transport, key: SizedKey<'_>) -> SocketMatch {
        if self.0.borrow().contains(&key.into()) {
            SocketMatch::Connected
        } else {
            SocketMatch::None
        }
    }

    fn trusts(&self, _address: &AddressKey) -> bool {
        false
    }
}

fn tables(setup: Setup, sockets: &Rc<RefCell<Vec<Key>>>) -> MemoryDatapath {
    let config = setup.config();
    let config = Config {
        in_force: config.in_force.with(InForce::RESCUE, true),
        ..config
    };
    let around = Box::new(Sockets(Rc::clone(sockets)));
    MemoryDatapath::with(config, setup.page(), setup::device(), 1024, around)
}

fn key(transport: Transport, local_port: u16, remote_port: u16) -> Key {
    with(P, transport, local_port, remote_port)
}

fn with(peer: End, transport: Transport, local_port: u16, remote_port: u16) -> Key {
    Key::V4(FlowKeyV4::new(&Tuple {
        transport,
        local: V4::from(G.ipv4.octets()),
        remote: V4::from(peer.ipv4.octets()),
        local_port: local_port.to_be(),
        remote_port: remote_port.to_be(),
    }))
}

/// One of few conversations, so that steps meet.
#[derive(Clone, Copy, Debug)]
struct Talk {
    build: fn(u16, u16) -> Frame,
    dress: fn(Frame) -> Frame,
    family: Family,
    local: u16,
    remote: u16,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Talk),
    /// A connected socket sends to somebody behind a router, perhaps by everybody's link address.
    Connect(u16, u16, bool),
    /// Its answer, whether it has asked or not.
    Answer(u16, u16),
    /// Any neighbour may answer.
    Ask(u16, Family),
    Receive(Talk),
    Wait(u32),
    Sweep,
    /// The filter gets another length, for so many marks.
    Fit(u64),
}

fn talk() -> impl Strategy<Value = Talk> {
    let builds: Vec<fn(u16, u16) -> Frame> = vec![
        udp,
        tcp,
        udp_lite,
        |source, destination| tcp(source, destination).syn(),
        |source, destination| tcp(source, destination).fin(),
        |source, destination| tcp(source, destination).rst(),
    ];
    let dresses: Vec<fn(Frame) -> Frame> =
        vec![|frame| frame, |frame| frame.tags(1), |frame| frame.tags(2)];
    (
        prop::sample::select(builds),
        prop::sample::select(dresses),
        family(),
        50_000u16..50_003,
        remote_port(),
    )
        .prop_map(|(build, dress, family, local, remote)| Talk {
            build,
            dress,
            family,
            local,
            remote,
        })
}

fn remote_port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![53u16, 443, 5000])
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(vec![Family::Ipv4, Family::Ipv6])
}

fn step() -> impl Strategy<Value = Step> {
    prop::strategy::Union::new_weighted(vec![
        (4, talk().prop_map(Step::Send).boxed()),
        (
            1,
            (50_000u16..50_003, remote_port(), any::<bool>())
                .prop_map(|(local, remote, group)| Step::Connect(local, remote, group))
                .boxed(),
        ),
        (
            2,
            (50_000u16..50_003, remote_port())
                .prop_map(|(local, remote)| Step::Answer(local, remote))
                .boxed(),
        ),
        (
            1,
            (50_000u16..50_003, family())
                .prop_map(|(port, family)| Step::Ask(port, family))
                .boxed(),
        ),
        (6, talk().prop_map(Step::Receive).boxed()),
        (1, (0u32..2_000).prop_map(Step::Wait).boxed()),
        (2, prop::strategy::Just(Step::Sweep).boxed()),
        (1, (0u64..40_000).prop_map(Step::Fit).boxed()),
    ])
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, cases: 500, ..Default::default() })]

    /// As long as sweeps see everything, no verdict depends on the filter.
    #[test]
    fn a_filter_that_sweeps_maintain_changes_nothing(
        steps in prop::collection::vec(step(), 1..60),
        sockets in prop::collection::vec((50_000u16..50_003, prop::sample::select(vec![53u16, 443, 5000]), any::<bool>()), 0..4),
        any_remote_port in any::<bool>(),
    ) {
        let sockets: Vec<Key> = sockets
            .into_iter()
            .map(|(local, remote, over_tcp)| {
                let transport = if over_tcp { Transport::Tcp } else { Transport::Udp };
                key(transport, local, remote)
            })
            .collect();
        let sockets = Rc::new(RefCell::new(sockets));
        // By address, a UDP flow has no remote port, and neither has what a sweep marks.
        let marked = || -> Vec<Key> {
            sockets
                .borrow()
                .iter()
                .map(|socket| match socket {
                    Key::V4(key) if any_remote_port && key.protocol != 6 => {
                        Key::V4(FlowKeyV4 { remote_port: 0, ..*key })
                    }
                    other => *other,
                })
                .collect()
        };
        let setup = Setup { any_remote_port, ..Setup::default() };
        let mut plain = tables(setup, &sockets);
        let mut filtered = tables(setup, &sockets);
        plain.sweep_all(&marked());
        filtered.sweep_all(&marked());
        for step in steps {
            plain.invalidate_filter();
            match step {
                Step::Send(talk) => {
                    let frame = (talk.dress)((talk.build)(talk.local, talk.remote)).sent(talk.family);
                    prop_assert_eq!(egress::egress(&frame[..], &filtered), egress::egress(&frame[..], &plain));
                }
                Step::Connect(local, remote, group) => {
                    let mut frame = udp(local, remote).to(FAR).sent(Family::Ipv4);
                    if group {
                        frame[..6].fill(0xff);
                    }
                    prop_assert_eq!(egress::egress(&frame[..], &filtered), egress::egress(&frame[..], &plain));
                    sockets.borrow_mut().push(with(FAR, Transport::Udp, local, remote));
                }
                Step::Answer(local, remote) => {
                    let frame = udp(remote, local).from(FAR).received(Family::Ipv4);
                    prop_assert_eq!(ingress::ingress(&frame[..], &filtered), ingress::ingress(&frame[..], &plain));
                }
                Step::Ask(port, family) => {
                    let frame = udp(port, 5353).to(MDNS).sent(family);
                    prop_assert_eq!(egress::egress(&frame[..], &filtered), egress::egress(&frame[..], &plain));
                }
                Step::Receive(talk) => {
                    let frame = (talk.dress)((talk.build)(talk.remote, talk.local)).received(talk.family);
                    prop_assert_eq!(ingress::ingress(&frame[..], &filtered), ingress::ingress(&frame[..], &plain));
                }
                Step::Wait(ticks) => {
                    plain.wait(ticks);
                    filtered.wait(ticks);
                }
                Step::Fit(marks) => filtered.resize_filter(marks),
                Step::Sweep => {
                    plain.sweep_all(&marked());
                    filtered.sweep_all(&marked());
                }
            }
            prop_assert_eq!(plain.flows(), filtered.flows());
        }
        filtered.sweep_all(&marked());
        prop_assert!(filtered.filters());
    }
}

/// The control: a socket whose tuple no sweep has marked is an unsolicited sender to a filter that is trusted,
/// and is asked for as long as it is not.
#[test]
fn what_no_sweep_has_marked_is_not_asked_for() {
    let sockets = Rc::new(RefCell::new(vec![key(Transport::Udp, 50_000, 53)]));
    let received = udp(53, 50_000).received(Family::Ipv4);
    let mut tables = tables(Setup::default(), &sockets);
    tables.sweep_all(&[]);
    let epoch = tables.epoch() as u8;
    tables.set_mark(Use::Udp, 50_000, epoch);
    let decision = ingress::ingress(&received[..], &tables);
    assert_eq!(decision.outcome, Outcome::DropNoFlow);
    tables.invalidate_filter();
    let decision = ingress::ingress(&received[..], &tables);
    assert_eq!(decision.outcome, Outcome::PassRescued);
}

/// A mark stays fresh for as long as that of a port, and is forgotten with it.
#[test]
fn a_rescue_is_remembered_until_two_sweeps_have_missed_it() {
    let sockets = Rc::new(RefCell::new(vec![key(Transport::Tcp, 50_000, 443)]));
    let received = tcp(443, 50_000).received(Family::Ipv4);
    let mut tables = tables(Setup::default(), &sockets);
    let epoch = tables.epoch() as u8;
    tables.set_mark(Use::Tcp, 50_000, epoch);
    let check = |tables: &MemoryDatapath| ingress::ingress(&received[..], tables).outcome;
    assert_eq!(check(&tables), Outcome::PassRescued);
    tables.validate_filter();
    assert_eq!(check(&tables), Outcome::PassKnownFlow);
    tables.sweep(1);
    assert_eq!(check(&tables), Outcome::PassKnownFlow);
    // Nobody but the socket uses the port, which is forgotten, so it is marked by hand.
    tables.sweep(1);
    let epoch = tables.epoch() as u8;
    tables.set_mark(Use::Tcp, 50_000, epoch);
    assert_eq!(check(&tables), Outcome::DropNoFlow);
}
