//! Guests on a promiscuous interface, who take frames for link addresses of their own by a packet
//! socket, as virtual machines without a bridge do.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassIcmpRelated, PassNewFlow, PassNotLocal},
};
use guard_tests::{
    frames::{End, Frame, P, tcp, udp},
    guard::Guard,
    netns::Direct,
    wire::{QUIET, Wire},
};

use super::{FAMILIES, MODES};

/// How long the daemon may take to hear of a guest.
const PATIENCE: Duration = Duration::from_secs(5);

/// The guest, on the guarded interface.
const GUEST: End = End {
    mac: [2, 0, 0, 0, 0, 0x77],
    ipv4: std::net::Ipv4Addr::new(10, 9, 0, 77),
    ipv6: std::net::Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x77),
};

#[test]
fn guests_with_link_addresses_of_their_own_are_other_hosts() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let guest = Wire::open(host, topology.interface())?;
        let calls = |family| {
            [
                tcp(443, 45_000).syn().to(GUEST).received(family),
                udp(53, 45_000).to(GUEST).received(family),
            ]
        };
        let heard = |family| -> Result<usize> {
            guest.heard(Duration::from_millis(20));
            let calls = calls(family);
            calls.iter().try_for_each(|call| wire.send(call))?;
            let heard = guest.heard(QUIET);
            Ok(calls.iter().filter(|call| heard.contains(call)).count())
        };
        for family in FAMILIES {
            ensure!(heard(family)? == 2, "{family:?}: not without a guard");
        }

        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        // Nothing but a promiscuous interface takes frames for others.
        ensure!(heard(Family::Ipv4)? == 0, "{mode}: not promiscuous");
        host.ip("link set vg promisc on")?;
        let deadline = Instant::now() + PATIENCE;
        while heard(Family::Ipv4)? != 2 {
            ensure!(Instant::now() < deadline, "{mode}: the guest hears nothing");
            thread::sleep(Duration::from_millis(50));
        }
        for family in FAMILIES {
            guard.expect([(PassNotLocal, 2)], || {
                ensure!(
                    heard(family)? == 2,
                    "{mode}, {family:?}: the guest is cut off"
                );
                Ok(())
            })?;
            // What the guest says opens nothing, and this host is guarded all the same.
            let unsolicited = |frame: Frame| wire.send(&frame.received(family));
            guard.expect([(DropNoFlow, 2)], || {
                guest.send(&udp(45_000, 53).from(GUEST).sent(family))?;
                unsolicited(udp(53, 45_000))?;
                unsolicited(tcp(443, 45_000).syn())
            })?;
            // The peer says that nobody is there.
            guard.expect([(PassNewFlow, 1), (PassIcmpRelated, 1)], || {
                guest.send(&udp(45_001, 53).to(P).sent(family))
            })?;
        }
        host.ip("link set vg promisc off")?;
        let deadline = Instant::now() + PATIENCE;
        while heard(Family::Ipv4)? != 0 {
            ensure!(Instant::now() < deadline, "{mode}: still promiscuous");
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}
