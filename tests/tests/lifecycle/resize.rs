//! An upgrade that makes the maps larger or smaller, and takes the flows along.

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow};
use guard_tests::{
    frames::P,
    metrics,
    peers::{Exchange, alive},
};

use super::{FAMILIES, Lab, PATIENCE, attachments, hooks};

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
        ensure!(lab.scan(10)? == 0, "{flags:?}: strangers are heard");
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
            ensure!(lab.scan(10)? == 0, "{flags:?}: strangers are heard");
        }
    }
    Ok(())
}
