//! A kernel that lacks what newer ones have: the guard does without.

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow};
use guard_tests::{
    frames::P,
    guard::Guard,
    peers::{Connection, Talk},
};
use guard_userspace::host::features::Feature;

use super::{FAMILIES, Lab, PATIENCE, hooks};

/// Without any one feature, and without all of them, the guard starts, a connection that is older than
/// it and one that is younger live, unsolicited packets are dropped, and nothing is left at the end.
#[test]
fn no_feature_is_indispensable() -> Result<()> {
    let each = Feature::ALL.iter().map(|feature| vec![*feature]);
    for lacking in each.chain([Feature::ALL.to_vec()]) {
        let names: Vec<_> = lacking.iter().map(|feature| feature.name()).collect();
        let mut alterations = Vec::new();
        for name in &names {
            alterations.extend(["--lacking", name]);
        }
        for mode in ["auto", "native"] {
            let lab = Lab::new()?;
            let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
            let interface = lab.topology.interface();
            let mut talks = Vec::new();
            for family in FAMILIES {
                talks.extend(Connection::open(host, peer, (P.address(family), 8080), 1)?);
            }
            let flags = ["--xdp-mode", mode, "--no-rescue"];
            let mut guard = Guard::start_altered(host, interface, &alterations, &flags)?;
            for family in FAMILIES {
                talks.extend(Connection::open(host, peer, (P.address(family), 8081), 1)?);
            }
            let before = guard.packets()?;
            for talk in &mut talks {
                talk.speak()?;
                ensure!(talk.hears(PATIENCE), "{names:?}, {mode}: cut off");
            }
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(PassKnownFlow) > 0, "{names:?}, {mode}:{moved}");
            ensure!(moved.of(DropNoFlow) == 0, "{names:?}, {mode}:{moved}");
            guard.expect([(DropNoFlow, 2)], || {
                ensure!(lab.scan(1)? == 0, "{names:?}, {mode}: delivered");
                Ok(())
            })?;
            let status = guard.end()?;
            ensure!(
                status.success(),
                "{names:?}, {mode}: {status}: {}",
                guard.said()
            );
            ensure!(hooks::xdp(host, interface)?.is_none(), "{names:?}: XDP");
            ensure!(hooks::egress(host, interface)? == 0, "{names:?}: egress");
        }
    }
    Ok(())
}
