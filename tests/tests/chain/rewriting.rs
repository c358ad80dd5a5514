//! Programs behind ours that change what was recorded.

use anyhow::{Context, Result, ensure};
use guard_tests::{
    guard::Guard,
    neighbour::{End, NEXT, Program, Side, row, tc},
    netns::Direct,
};

use super::{
    FAMILIES, LOOK, PORTS, connection_from_another_port, has_tcx, hooks,
    question_from_another_port, require_answers, within,
};

/// What is changed on the way out is changed back on the way in.
fn changed_back(topology: &Direct) -> Result<()> {
    let back = Program::changing(Side::Destination, PORTS.1, PORTS.0, NEXT)?;
    let place = (topology.interface(), "ingress");
    back.add_filter(&topology.guarded, place, "prio 5")
}

fn changes() -> Result<Program> {
    Program::changing(Side::Source, PORTS.0, PORTS.1, NEXT)
}

/// How many of four are answered: TCP and UDP over both families.
fn answers(topology: &Direct) -> Result<usize> {
    answers_from(topology, PORTS.1)
}

/// Likewise, where packets leave from this port.
fn answers_from(topology: &Direct, port: u16) -> Result<usize> {
    let mut answers = 0;
    for family in FAMILIES {
        let asked = question_from_another_port(topology, family, port).context("UDP")?;
        let connected = connection_from_another_port(topology, family).context("TCP")?;
        answers += usize::from(asked) + usize::from(connected);
    }
    Ok(answers)
}

/// Without a guard they hear, and behind one that has no copy at the end they do not.
fn control(topology: &Direct) -> Result<()> {
    ensure!(answers(topology)? == 4, "not answered without a guard");
    Ok(())
}

#[test]
fn a_tcx_program_changes_the_port_that_was_recorded() -> Result<()> {
    if !has_tcx() {
        return Ok(());
    }
    for (early, mode) in [(true, "native"), (false, "native"), (true, "generic")] {
        let topology = Direct::new()?;
        let (host, interface) = (&topology.guarded, topology.interface());
        changed_back(&topology)?;
        let changes = changes()?;
        let link = changes.attach(host, interface, End::Last)?;
        control(&topology)?;
        if !early {
            drop(link);
        }
        let mut guard = Guard::start(host, interface, &["--xdp-mode", mode])?;
        let _link = changes.attach(host, interface, End::Last);
        within(LOOK, "no copy runs last", || {
            Ok(row(host, interface)?.len() == 3)
        })?;
        let heard = answers(&topology)?;
        ensure!(
            heard == 4,
            "early {early}, {mode}: {heard} of 4 are answered"
        );

        // One that comes behind the copy.
        let later = Program::returning(NEXT)?;
        let _later = later.attach(host, interface, End::Last)?;
        within(LOOK, "the copy stays before another", || {
            Ok(row(host, interface)?.last() != Some(&later.id()?))
        })?;
        ensure!(answers(&topology)? == 4, "early {early}: behind another");
        require_answers(&topology, "others")?;

        // The control: a change that nobody records any more.
        guard.kill()?;
        let last = row(host, interface)?;
        let again = Program::changing(Side::Source, PORTS.1, PORTS.1 + 1, NEXT)?;
        let _again = again.attach(host, interface, End::Last)?;
        let back = Program::changing(Side::Destination, PORTS.1 + 1, PORTS.1, NEXT)?;
        back.add_filter(host, (interface, "ingress"), "prio 4")?;
        ensure!(row(host, interface)?.len() == last.len() + 1);
        let heard = answers_from(&topology, PORTS.1 + 1)?;
        ensure!(heard == 0, "{heard} are answered by no record");
        guard.start_again(&["--xdp-mode", mode])?;
        let heard = answers_from(&topology, PORTS.1 + 1)?;
        ensure!(heard == 4, "taken over: {heard} of 4");
        ensure!(guard.end()?.success(), "{}", guard.said());
        ensure!(row(host, interface)?.len() == 3, "something is left");
    }
    Ok(())
}

#[test]
fn a_filter_changes_the_port_that_was_recorded() -> Result<()> {
    for hook in hooks() {
        for mode in ["native", "generic"] {
            let topology = Direct::new()?;
            let (host, interface) = (&topology.guarded, topology.interface());
            changed_back(&topology)?;
            changes()?.add_filter(host, (interface, "egress"), "prio 7")?;
            control(&topology)?;
            let flags = ["--egress-hook", hook, "--xdp-mode", mode];
            let mut guard = Guard::start(host, interface, &flags)?;
            let heard = answers(&topology)?;
            ensure!(heard == 4, "{flags:?}: {heard} of 4: {}", guard.said());
            require_answers(&topology, hook)?;

            tc(host, &format!("filter del dev {interface} egress prio 7"))?;
            let shown = || tc(host, &format!("filter show dev {interface} egress"));
            within(LOOK, "the copy stays where nobody needs it", || {
                Ok(!shown()?.contains("egress_last"))
            })?;
            changes()?.add_filter(host, (interface, "egress"), "prio 7")?;
            within(LOOK, "no copy runs last", || {
                Ok(shown()?.contains("egress_last"))
            })?;
            ensure!(answers(&topology)? == 4, "{flags:?}: later");

            guard.kill()?;
            ensure!(answers(&topology)? == 4, "{flags:?}: killed");
            guard.start_again(&flags)?;
            ensure!(answers(&topology)? == 4, "{flags:?}: taken over");
            ensure!(guard.end()?.success(), "{flags:?}: {}", guard.said());
            let left = shown()?;
            ensure!(!left.contains("egress"), "{flags:?}: {left}");
        }
    }
    Ok(())
}
