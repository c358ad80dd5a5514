//! Traceroute towards the host: its UDP ports are in the range.

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::DropNoFlow;
use guard_tests::{guard::Guard, netns::Routed};

use super::{MODES, output};

#[test]
fn i09_the_last_hop_of_a_udp_traceroute_is_silent() -> Result<()> {
    let topology = Routed::new(1500)?;
    let trace = |address: &str| -> Result<String> {
        let words = format!("traceroute -n -q 1 -N 1 -w 0.7 -m 2 {address}");
        let (done, text) = output(&topology.peer, &words)?;
        ensure!(done, "{text}");
        let last = text.lines().last().context("no hop")?.to_owned();
        Ok(last)
    };
    let addresses = ["10.9.0.2", "fd09::2"];
    for address in addresses {
        let last = trace(address)?;
        ensure!(last.contains(address), "without a guard: {last}");
    }
    for mode in MODES {
        let guard = Guard::start(&topology.guarded, "vg", &["--xdp-mode", mode])?;
        for address in addresses {
            guard.expect([(DropNoFlow, 1)], || {
                let last = trace(address)?;
                ensure!(last.trim() == "2  *", "{mode}: {last}");
                Ok(())
            })?;
        }
        ensure!(guard.stop()?.success(), "the daemon ends well");
    }
    Ok(())
}
