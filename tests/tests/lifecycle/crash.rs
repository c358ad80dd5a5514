//! The end that nobody has asked for: both programs stay in force.

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow, PassRescued};
use guard_tests::{
    frames::P,
    peers::{Connection, Exchange, Talk},
};

use super::{FAMILIES, Lab, PATIENCE, attachments, hooks};

#[test]
fn f03_a_killed_daemon_leaves_the_guard_in_force() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let interface = lab.topology.interface();
        let mut guard = lab.guard(&flags)?;
        let mut talks: Vec<Box<dyn Talk + Send>> = Vec::new();
        let open = |port: u16, talks: &mut Vec<Box<dyn Talk + Send>>| -> Result<()> {
            for family in FAMILIES {
                let server = P.address(family);
                for connection in Connection::open(host, peer, (server, port), 5)? {
                    talks.push(Box::new(connection));
                }
                // Nothing but its entry knows of an unconnected socket's peer.
                for exchange in Exchange::open(host, peer, (server, port), false, 5)? {
                    talks.push(Box::new(exchange));
                }
            }
            Ok(())
        };
        open(8080, &mut talks)?;
        ensure!(
            lab.scan(10)? == 0,
            "{flags:?}: unsolicited packets are delivered"
        );
        let program = hooks::xdp(host, interface)?;
        guard.kill()?;

        // Old flows, new flows, and a scan.
        ensure!(hooks::xdp(host, interface)? == program, "{flags:?}");
        ensure!(hooks::egress(host, interface)? == 1, "{flags:?}");
        ensure!(hear(&mut talks)? == 20, "{flags:?}: old flows");
        open(8090, &mut talks)?;
        ensure!(hear(&mut talks)? == 40, "{flags:?}: new flows");
        ensure!(lab.scan(100)? == 0, "{flags:?}: a scan gets through");

        guard.start_again(&flags)?;
        let packets = guard.packets()?;
        ensure!(packets.of(DropNoFlow) == 220, "{flags:?}:{packets}");
        ensure!(packets.of(PassRescued) == 0, "{flags:?}:{packets}");
        ensure!(hooks::egress(host, interface)? == 1, "{flags:?}: twice");
        ensure!(hear(&mut talks)? == 40, "{flags:?}: adopted flows");
        let moved = guard.packets()?.since(&packets);
        ensure!(moved.of(PassKnownFlow) == 40, "{flags:?}:{moved}");
        ensure!(moved.of(DropNoFlow) == 0, "{flags:?}:{moved}");
        ensure!(guard.end()?.success(), "{flags:?}: {}", guard.said());
        ensure!(lab.hears(1)?, "{flags:?}: adopted, and not let go");
    }
    Ok(())
}

fn hear(talks: &mut [Box<dyn Talk + Send>]) -> Result<usize> {
    guard_tests::peers::alive(talks, PATIENCE)
}
