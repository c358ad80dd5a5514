//! What nobody asked for dies on a real interface, and what was asked for arrives.
//!
//! Every frame that must die is first shown to be delivered where nobody guards.

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow, PassOutsideRange},
};
use guard_tests::{
    frames::{Extension, Frame, G2, N, P, SUBNET, tcp, udp},
    guard::Guard,
    metrics,
    mode::Mode,
    wire::{Listener, QUIET, Wire},
};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Frames to a listener's port that answer nothing.
fn unsolicited() -> Vec<(&'static str, Frame)> {
    let unsolicited = || udp(53, 40_000);
    vec![
        ("a datagram", unsolicited()),
        ("from an exotic port", udp(0, 40_000)),
        ("behind a tag", unsolicited().tags(1)),
        ("behind four tags", unsolicited().tags(4)),
        ("with options", unsolicited().options(&[1; 40])),
        ("to everybody in the prefix", unsolicited().to(SUBNET).v4()),
        (
            "behind destination options",
            unsolicited().behind(Extension::Destination(3)),
        ),
        (
            "an atomic fragment",
            unsolicited().behind(Extension::Atomic),
        ),
    ]
}

#[test]
fn unsolicited_reach_no_listener() -> Result<()> {
    for mode in Mode::every() {
        let topology = mode.topology()?;
        let listener = Listener::new(&topology.guarded, 40_000)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let cases: Vec<(&str, Vec<u8>)> = unsolicited()
            .into_iter()
            .flat_map(|(name, frame)| {
                FAMILIES
                    .into_iter()
                    .filter(|family| frame.exists_in(*family))
                    .map(|family| (name, frame.received(family)))
                    .collect::<Vec<_>>()
            })
            .collect();
        for (name, frame) in &cases {
            wire.send(frame)?;
            let delivered = listener.delivered(QUIET);
            ensure!(
                delivered == 1,
                "{name}: {delivered} delivered without a guard"
            );
        }

        let guard = Guard::start(
            &topology.guarded,
            topology.interface(),
            &["--xdp-mode", mode.xdp],
        )?;
        for (name, frame) in &cases {
            guard.expect([(DropNoFlow, 1)], || wire.send(frame))?;
            let delivered = listener.delivered(QUIET);
            ensure!(delivered == 0, "{mode}, {name}: {delivered} delivered");
        }
        ensure!(guard.stop()?.success(), "the daemon ends well");
    }
    Ok(())
}

/// The host neither answers nor remembers, so that the second segment meets what the first did.
#[test]
fn s09_calls_to_a_closed_port_open_nothing() -> Result<()> {
    for mode in Mode::every() {
        let topology = mode.topology()?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let call = |family| -> Result<()> {
            wire.send(&tcp(5_000, 40_000).syn().received(family))?;
            wire.send(&tcp(5_000, 40_000).received(family))
        };
        for family in FAMILIES {
            call(family)?;
            let answers = wire.segments_heard(QUIET);
            ensure!(answers == 2, "{mode}: {answers} RSTs without a guard");
        }

        let (host, flags) = (&topology.guarded, ["--xdp-mode", mode.xdp]);
        let guard = Guard::start(host, topology.interface(), &flags)?;
        for family in FAMILIES {
            guard.expect([(DropNoFlow, 2)], || call(family))?;
            let answers = wire.segments_heard(QUIET);
            ensure!(answers == 0, "{mode}, {family:?}: {answers} answers");
        }
        let flows = metrics::sum(&guard.scrape()?, "portguard_flows", &[]);
        ensure!(flows == 0, "{mode}: {flows} flows");
    }
    Ok(())
}

#[test]
fn only_the_answer_to_a_query_arrives() -> Result<()> {
    for mode in Mode::every() {
        let topology = mode.topology()?;
        topology.guarded.ip("addr add 10.9.0.22/24 dev vg")?;
        topology.guarded.ip("addr add fd09::22/64 dev vg nodad")?;
        let listener = Listener::new(&topology.guarded, 40_000)?;
        // Without it the peer would report that nobody listens.
        let _server = Listener::new(&topology.peer, 53)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let guard = Guard::start(
            &topology.guarded,
            topology.interface(),
            &["--xdp-mode", mode.xdp],
        )?;
        for family in FAMILIES {
            guard.expect([(PassNewFlow, 1)], || {
                let peer: std::net::IpAddr = match family {
                    Family::Ipv6 => P.ipv6.into(),
                    // The listener is one socket for both families.
                    Family::Ipv4 | Family::Other => P.ipv4.to_ipv6_mapped().into(),
                };
                listener.socket().send_to(b"query", (peer, 53))?;
                Ok(())
            })?;
            let others = [
                udp(54, 40_000),
                udp(53, 40_000).from(N),
                udp(53, 40_000).to(G2),
            ];
            guard.expect([(DropNoFlow, 3), (PassKnownFlow, 1)], || {
                others
                    .iter()
                    .chain([&udp(53, 40_000)])
                    .try_for_each(|frame| wire.send(&frame.received(family)))
            })?;
            let delivered = listener.delivered(QUIET);
            ensure!(delivered == 1, "{mode}, {family:?}: {delivered} delivered");
        }
        // The wire itself works: a port outside the range is anybody's.
        let service = Listener::new(&topology.guarded, 5000)?;
        guard.expect([(PassOutsideRange, 1)], || {
            wire.send(&udp(53, 5000).received(Family::Ipv4))
        })?;
        ensure!(
            service.delivered(QUIET) == 1,
            "{mode}: the service hears nobody"
        );
    }
    Ok(())
}
