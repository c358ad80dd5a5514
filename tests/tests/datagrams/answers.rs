//! Who may answer, and for how long.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow, PassRefreshedFlow};
use guard_tests::{
    frames::{G2, N, P, udp},
    wire::QUIET,
};

use super::{FAMILIES, Lab, MODES, PORT, delivered};

/// Longer than a timer of one second.
const EXPIRED: Duration = Duration::from_millis(2_600);

#[test]
fn d02_only_whom_it_asked_may_answer() -> Result<()> {
    for mode in MODES {
        let lab = Lab::new()?;
        lab.topology.guarded.ip("addr add 10.9.0.22/24 dev vg")?;
        // Not the one that this host prefers to ask from.
        lab.topology
            .guarded
            .ip("addr add fd09::22/64 dev vg nodad preferred_lft 0")?;
        for family in FAMILIES {
            let socket = lab.socket(family, PORT)?;
            let _server = lab.server(family, 5000)?;
            let answer = udp(5000, PORT);
            let others = [
                udp(5001, PORT),
                answer.clone().from(N),
                answer.clone().to(G2),
            ];
            for frame in others.iter().chain([&answer]) {
                lab.wire.send(&frame.received(family))?;
            }
            ensure!(delivered(&socket) == 4, "{mode}: lost without a guard");

            let guard = lab.guard(mode, &[])?;
            guard.expect([(PassNewFlow, 1)], || {
                socket.send_to(b"query", (P.address(family), 5000))?;
                Ok(())
            })?;
            for frame in &others {
                guard
                    .expect([(DropNoFlow, 1)], || lab.wire.send(&frame.received(family)))
                    .with_context(|| format!("{mode}, {family:?}"))?;
            }
            ensure!(delivered(&socket) == 0, "{mode}: others are heard");
            guard.expect([(PassKnownFlow, 1)], || {
                lab.wire.send(&answer.received(family))
            })?;
            ensure!(delivered(&socket) == 1, "{mode}: the answer is lost");
        }
    }
    Ok(())
}

/// Either side alone keeps a flow alive, and silence ends it.
#[test]
fn d10_keepalives_of_either_side() -> Result<()> {
    const PERIODS: usize = 4;
    // Less than the timer, and more than it together.
    const PERIOD: Duration = Duration::from_millis(750);

    for mode in MODES {
        let lab = Lab::new()?;
        let guard = lab.guard(mode, &["--timeout", "udp=1"])?;
        for family in FAMILIES {
            let peer = P.address(family);
            let _server = lab.server(family, 5000)?;
            let (speaks, listens, silent) = (
                lab.socket(family, PORT)?,
                lab.socket(family, PORT + 1)?,
                lab.socket(family, PORT + 2)?,
            );
            guard.expect([(PassNewFlow, 3)], || {
                for socket in [&speaks, &listens, &silent] {
                    socket.send_to(b"hello", (peer, 5000))?;
                }
                Ok(())
            })?;
            let kept = PERIODS as u64;
            guard.expect([(PassRefreshedFlow, kept), (PassKnownFlow, kept)], || {
                for _ in 0..PERIODS {
                    thread::sleep(PERIOD);
                    speaks.send_to(b"still here", (peer, 5000))?;
                    lab.wire.send(&udp(5000, PORT + 1).received(family))?;
                }
                Ok(())
            })?;
            guard.expect([(PassKnownFlow, 2), (DropNoFlow, 1)], || {
                (PORT..PORT + 3)
                    .try_for_each(|port| lab.wire.send(&udp(5000, port).received(family)))
            })?;
            let heard = [delivered(&speaks), delivered(&listens), delivered(&silent)];
            ensure!(heard == [1, PERIODS + 1, 0], "{mode}: {heard:?} heard");
        }
        // And silence ends those that were kept.
        thread::sleep(EXPIRED);
        guard.expect([(DropNoFlow, 2)], || {
            FAMILIES
                .into_iter()
                .try_for_each(|family| lab.wire.send(&udp(5000, PORT).received(family)))
        })?;
        thread::sleep(QUIET);
    }
    Ok(())
}
