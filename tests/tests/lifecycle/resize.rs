//! An upgrade that makes the maps larger or smaller, and takes the flows along.

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow};
use guard_tests::{
    frames::P,
    metrics,
    peers::{Exchange, alive},
};

use super::{FAMILIES, Lab, PATIENCE, attachments, egress_hooks, hooks};

#[test]
fn f02_flows_are_carried_into_maps_of_another_size() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let interface = lab.topology.interface();
        let with = |size| [&flags[..], &["--keep-attached", "--max-flows", size]].concat();
        let mut guard = lab.guard(&with("4096"))?;
        // Nothing but its entry knows of an unconnected socket's peer.
        let mut talks = Vec::new();
        for family in FAMILIES {
            talks.extend(Exchange::open(
                host,
                peer,
                (P.address(family), 8081),
                false,
                50,
            )?);
        }
        ensure!(
            lab.scan(10)? == 0,
            "{flags:?}: unsolicited packets are delivered"
        );
        for (number, size) in ["8192", "1024"].into_iter().enumerate() {
            if number == 0 {
                guard.kill()?;
            } else {
                ensure!(guard.end()?.success(), "{}", guard.said());
            }
            guard.start_again(&with(size))?;
            let samples = guard.scrape()?;
            let capacity = metrics::sum(&samples, "portguard_flows_capacity", &[]);
            let expected = 4 * size.parse::<u64>()?;
            ensure!(capacity == expected, "{flags:?}: room for {capacity}");
            let flows = metrics::sum(&samples, "portguard_flows", &[]);
            ensure!(
                flows >= 100,
                "{flags:?}: {flows} of 100 flows: {}",
                guard.said()
            );
            ensure!(hooks::egress(host, interface)? == 1, "{flags:?}: egress");

            let before = guard.packets()?;
            ensure!(alive(&mut talks, PATIENCE)? == 100, "{flags:?}: {size}");
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(PassKnownFlow) == 100, "{flags:?}:{moved}");
            ensure!(moved.of(DropNoFlow) == 0, "{flags:?}:{moved}");
            ensure!(
                lab.scan(10)? == 0,
                "{flags:?}: unsolicited packets are delivered"
            );
        }
    }
    Ok(())
}

/// Recorded by a link one day and by a filter the next, and never by none.
#[test]
fn f02_another_hook_costs_no_flow() -> Result<()> {
    let [first, second] = egress_hooks() else {
        println!("skipped: this kernel has one hook alone");
        return Ok(());
    };
    let lab = Lab::new()?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let mut guard = lab.guard(&["--egress-hook", first])?;
    let server = P.address(FAMILIES[0]);
    let mut talks = Exchange::open(host, peer, (server, 8081), false, 10)?;
    for (hook, size) in [
        (second, "65536"),
        (first, "65536"),
        (second, "1024"),
        (first, "2048"),
    ] {
        guard.kill()?;
        guard.start_again(&["--egress-hook", hook, "--max-flows", size])?;
        let egress = hooks::egress(host, lab.topology.interface())?;
        ensure!(egress == 1, "{hook}, {size}: {egress} programs record");
        guard.expect([(PassKnownFlow, 10)], || {
            ensure!(alive(&mut talks, PATIENCE)? == 10, "{hook}, {size}: lost");
            Ok(())
        })?;
        let mut more = Exchange::open(host, peer, (server, 8082), false, 10)?;
        ensure!(
            alive(&mut more, PATIENCE)? == 10,
            "{hook}, {size}: new ones"
        );
    }
    ensure!(guard.end()?.success(), "{}", guard.said());
    ensure!(lab.hears(1)?, "something is left");
    Ok(())
}
