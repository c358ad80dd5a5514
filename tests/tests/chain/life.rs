//! Starts, crashes and ends beside others.

use anyhow::{Result, ensure};
use guard_tests::{
    build,
    guard::Guard,
    neighbour::{End, NEXT, Program, row, tc},
    netns::Direct,
};

use super::{FAMILIES, LOOK, hooks, require_answers, said, within};

/// A copy that runs last is there while others are, and goes with the rest.
#[test]
fn nothing_is_left_behind() -> Result<()> {
    for hook in hooks() {
        let topology = Direct::new()?;
        let (host, interface) = (&topology.guarded, topology.interface());
        let other = Program::returning(NEXT)?;
        other.add_filter(host, (interface, "egress"), "prio 3")?;
        let link = (*hook == "tcx").then(|| other.attach(host, interface, End::Last));
        let link = link.transpose()?;
        let flags = ["--egress-hook", hook];
        let alone = |what: &str| -> Result<()> {
            let filters = tc(host, &format!("filter show dev {interface} egress"))?;
            ensure!(!filters.contains("egress_last"), "{what}: {filters}");
            ensure!(!filters.contains("0x7067"), "{what}: {filters}");
            let programs = row(host, interface)?.len();
            ensure!(
                programs == usize::from(link.is_some()),
                "{what}: {programs}"
            );
            Ok(())
        };

        let mut guard = Guard::start(host, interface, &flags)?;
        let beside = |what: &str| -> Result<()> {
            let filters = tc(host, &format!("filter show dev {interface} egress"))?;
            ensure!(filters.contains("egress_last"), "{what}: {filters}");
            let programs = row(host, interface)?.len();
            let due = if link.is_some() { 3 } else { 0 };
            ensure!(programs == due, "{what}: {programs} TCX programs");
            Ok(())
        };
        beside("started")?;
        ensure!(guard.end()?.success(), "{}", guard.said());
        alone("ended")?;

        // Killed, and taken over by maps of another size and another layout.
        guard.start_again(&flags)?;
        for (layout, size) in [("9", "65536"), ("9", "32768"), ("10", "32768")] {
            guard.kill()?;
            beside("killed")?;
            guard.alter(&["--layout", layout]);
            guard.start_again(&[&flags[..], &["--max-flows", size]].concat())?;
            require_answers(&topology, layout)?;
            within(LOOK, "two copies", || {
                let filters = tc(host, &format!("filter show dev {interface} egress"))?;
                let copies = filters.matches("egress_last direct-action").count();
                Ok(copies == 1 && row(host, interface)?.len() <= 3)
            })?;
            beside(layout)?;
        }
        guard.kill()?;
        let mut detach = host.command(build::binary());
        detach.arg("detach").arg("--pin-dir").arg(guard.pins());
        let (code, text) = said(&mut detach)?;
        ensure!(code == Some(0), "{text}");
        ensure!(text.contains("(XDP, egress)\n"), "{text}");
        alone("detached")?;
    }
    Ok(())
}

/// Filters of earlier versions have another priority, and go.
#[test]
fn the_filter_of_an_earlier_version_is_taken_over() -> Result<()> {
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let guard = Guard::start(host, interface, &["--egress-hook", "clsact"])?;
    for _ in FAMILIES {
        require_answers(&topology, "clsact")?;
    }
    let shown = tc(host, &format!("filter show dev {interface} egress"))?;
    ensure!(shown.contains("pref 1 "), "{shown}");
    ensure!(!shown.contains("pref 65520"), "{shown}");
    ensure!(guard.stop()?.success());
    Ok(())
}
