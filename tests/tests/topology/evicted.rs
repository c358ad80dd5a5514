//! What eviction costs masqueraded flows, which have no socket on the guarded host.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassNewFlow},
};
use guard_tests::{
    frames::{P, tcp},
    peers::{Connection, alive},
    processors,
    wire::Wire,
};

use super::behind::Behind;

/// Entries of each flow map: as few as there can be.
const ENTRIES: usize = 1024;
const IDLE: usize = 40;
const PATIENCE: Duration = Duration::from_millis(300);

/// How many of some idle connections hear their peer, after so many new flows of the host.
fn heard_after(new: usize) -> Result<usize> {
    let behind = Behind::masqueraded()?;
    let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
    let entries = ENTRIES.to_string();
    let guard = behind.guard("native", &["--max-flows", &entries])?;
    let (container, interface) = (&behind.container, behind.topology.interface());
    let mut idle = host.run(|| -> Result<_> {
        // What a processor has recorded last stays until that very processor records more.
        processors::pin(0)?;
        let connect = |number| {
            let server = (P.address(Family::Ipv4), 8_000 + number).into();
            Connection::open_masqueraded(container, peer, server)
        };
        let idle: Vec<_> = (0..IDLE as u16).map(connect).collect::<Result<_>>()?;
        let wire = Wire::open(host, interface)?;
        for port in (1_000..).take(new) {
            wire.send(&tcp(40_000, port).syn().sent(Family::Ipv4))?;
        }
        Ok(idle)
    })?;
    let recorded = guard.packets()?.of(PassNewFlow);
    ensure!(recorded == (IDLE + new) as u64, "{recorded} recorded");
    let heard = alive(&mut idle, PATIENCE)?;
    let dropped = guard.packets()?.of(DropNoFlow);
    ensure!(
        (dropped > 0) == (heard < IDLE),
        "{heard} hear, {dropped} packets were dropped"
    );
    Ok(heard)
}

#[test]
fn what_eviction_costs_masqueraded_flows() -> Result<()> {
    // new flows, as parts of a hundred of what fits; connections that still hear, of a hundred
    let table = [(50, 100..=100), (75, 0..=100), (100, 0..=100), (200, 0..=0)];
    for (percent, expected) in table {
        let heard = heard_after(ENTRIES * percent / 100)? * 100 / IDLE;
        println!("{percent} % new flows: {heard} % of idle masqueraded connections hear");
        ensure!(expected.contains(&heard), "{percent} % new, {heard} % hear");
    }
    Ok(())
}
