//! Ports that are used with one remote address alone.

use std::{cell::RefCell, rc::Rc};

use guard_common::{
    frame::transport::Transport,
    outcome::{Family, Outcome},
    policy::{egress, ingress},
    ports::occupancy::Use,
};
use guard_tests::{
    frames::{End, FAR, P, tcp, udp},
    memory::MemoryDatapath,
    setup::Setup,
};

use super::{tables, with};

/// What becomes of an answer from `peer` to a port with these sockets, which the last sweep has not
/// seen, where sweeps have found another peer alone.
fn answered(peer: End, transport: Transport, doubted: bool) -> Outcome {
    let build = match transport {
        Transport::Tcp => tcp,
        Transport::Udp | Transport::UdpLite => udp,
    };
    let sockets = Rc::new(RefCell::new(vec![with(peer, transport, 50_000, 443)]));
    let mut tables = tables(Setup::default(), &sockets);
    for _ in 0..3 {
        tables.sweep_all(&[with(P, transport, 50_000, 443)]);
    }
    if doubted {
        tables.invalidate_filter();
    }
    let received = build(443, 50_000).from(peer).received(Family::Ipv4);
    ingress::ingress(&received[..], &tables).outcome
}

/// Sweeps leave whose a port is where it is one peer's: others are unsolicited senders there by that alone, as
/// long as no tuple may be in use that sweeps do not know.
#[test]
fn a_port_of_one_peer_is_no_other_s() {
    for transport in [Transport::Tcp, Transport::Udp] {
        assert_eq!(answered(P, transport, false), Outcome::PassRescued);
        assert_eq!(answered(FAR, transport, false), Outcome::DropNoFlow);
        assert_eq!(answered(FAR, transport, true), Outcome::PassRescued);
    }
}

/// Any other peer of such a port is known at once, and stays known, as the single peer does.
#[test]
fn a_port_of_one_peer_becomes_that_of_two() {
    let mut tables = tables(Setup::default(), &Rc::default());
    let send = |tables: &MemoryDatapath, peer| {
        let sent = udp(50_000, 443).to(peer).sent(Family::Ipv4);
        egress::egress(&sent[..], tables).outcome
    };
    let check = |tables: &MemoryDatapath, peer| {
        let received = udp(443, 50_000).from(peer).received(Family::Ipv4);
        ingress::ingress(&received[..], tables).outcome
    };
    assert_eq!(send(&tables, P), Outcome::PassNewFlow);
    for _ in 0..3 {
        tables.sweep_all(&[]);
        // Its owner does not make a port look like others' too.
        assert_eq!(send(&tables, P), Outcome::PassRefreshedFlow);
    }
    assert!(!tables.is_marked(Use::Udp, 50_000));
    assert_eq!(check(&tables, P), Outcome::PassKnownFlow);
    assert_eq!(check(&tables, FAR), Outcome::DropNoFlow);

    assert_eq!(send(&tables, FAR), Outcome::PassNewFlow);
    for _ in 0..5 {
        assert_eq!(check(&tables, P), Outcome::PassKnownFlow);
        assert_eq!(check(&tables, FAR), Outcome::PassKnownFlow);
        tables.sweep_all(&[]);
    }
}
