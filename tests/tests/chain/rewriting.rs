//! Programs behind ours that change what was recorded.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    frames::P,
    guard::Guard,
    neighbour::{End, NEXT, Program, Side, row, tc},
    netns::Direct,
};

use super::{
    FAMILIES, LOOK, LOST, PATIENCE, PORTS, connection_from_another_port, has_tcx, hooks,
    question_from_another_port, require_answers, within,
};

/// Where the kernel takes ports from. The guard has a wider range, which the ports that are changed
/// belong to: no other socket of a test may get one of them by chance, because what comes to the second
/// is changed to the first.
const CHOSEN: &str = "44000 60999";
/// What is guarded.
const GUARDED: [&str; 2] = ["--range", "32768-60999"];

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

/// Two hosts, of which one takes no port by chance that is changed.
fn hosts() -> Result<Direct> {
    let topology = Direct::new()?;
    let range = "net/ipv4/ip_local_port_range";
    topology.guarded.sysctl(range, CHOSEN)?;
    Ok(topology)
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
        let topology = hosts()?;
        let (host, interface) = (&topology.guarded, topology.interface());
        changed_back(&topology)?;
        let changes = changes()?;
        let link = changes.attach(host, interface, End::Last)?;
        control(&topology)?;
        if !early {
            drop(link);
        }
        let flags = [&GUARDED[..], &["--xdp-mode", mode]].concat();
        let mut guard = Guard::start(host, interface, &flags)?;
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
        guard.start_again(&flags)?;
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
            let topology = hosts()?;
            let (host, interface) = (&topology.guarded, topology.interface());
            changed_back(&topology)?;
            changes()?.add_filter(host, (interface, "egress"), "prio 7")?;
            control(&topology)?;
            let flags = ["--egress-hook", hook, "--xdp-mode", mode];
            let flags = [&GUARDED[..], &flags].concat();
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

/// Asks at a port of the far end, from one socket after the other, none of which is connected, until it
/// is `over`. Returns how many questions there were, and how many had no answer.
fn ask_until(
    over: &AtomicBool,
    topology: &Direct,
    (port, patience): (u16, Duration),
) -> Result<(usize, usize)> {
    let servers = FAMILIES.map(|family| {
        let server = topology
            .peer
            .run(|| UdpSocket::bind((P.address(family), port)))?;
        server.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(server)
    });
    let servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
    let answered = AtomicBool::new(false);
    let answer = |server: &UdpSocket| {
        while !answered.load(Relaxed) {
            if let Ok((_, from)) = server.recv_from(&mut [0; 16]) {
                // A full ring is no fault of the guard's, and one at a time does not fill it.
                let _ = server.send_to(b"answer", from);
            }
        }
    };
    thread::scope(|scope| {
        for server in &servers {
            scope.spawn(move || answer(server));
        }
        let asked = topology.guarded.run(|| {
            let (mut asked, mut lost) = (0, 0);
            while !over.load(Relaxed) {
                let server = P.address(FAMILIES[asked % 2]);
                let client = UdpSocket::bind((super::unspecified(server), 0))?;
                client.set_read_timeout(Some(patience))?;
                client.send_to(b"query", (server, port))?;
                asked += 1;
                lost += usize::from(client.recv(&mut [0; 16]).is_err());
            }
            Ok((asked, lost))
        });
        answered.store(true, Relaxed);
        asked
    })
}

#[test]
fn no_answer_is_lost_while_the_copy_comes_and_goes() -> Result<()> {
    const ROUNDS: usize = 12;

    for hook in hooks() {
        let topology = hosts()?;
        let (host, interface) = (&topology.guarded, topology.interface());
        changed_back(&topology)?;
        let changes = changes()?;
        let flags = ["--egress-hook", hook, "--xdp-mode", "generic"];
        let flags = [&GUARDED[..], &flags].concat();
        let mut guard = Guard::start(host, interface, &flags)?;
        let over = AtomicBool::new(false);
        let shown = || tc(host, &format!("filter show dev {interface} egress"));
        let (asked, lost) = thread::scope(|scope| {
            let asking = scope.spawn(|| ask_until(&over, &topology, (8081, PATIENCE)));
            let placed = (0..ROUNDS).try_for_each(|_| {
                changes.add_filter(host, (interface, "egress"), "prio 7")?;
                within(LOOK, "no copy runs last", || {
                    Ok(shown()?.contains("egress_last"))
                })?;
                tc(host, &format!("filter del dev {interface} egress prio 7"))?;
                within(LOOK, "the copy stays where nobody needs it", || {
                    Ok(!shown()?.contains("egress_last"))
                })
            });
            over.store(true, Relaxed);
            let asked = asking.join().expect("it does not panic");
            placed.and(asked)
        })?;
        println!("{hook}: {asked} questions");
        ensure!(asked > 1000, "{hook}: only {asked} questions");
        ensure!(lost == 0, "{hook}: {lost} of {asked} have no answer");

        // The control: what is asked at another port is recorded by nobody any more.
        guard.kill()?;
        if *hook == "clsact" {
            tc(host, &format!("filter del dev {interface} egress"))?;
            let over = AtomicBool::new(false);
            let (asked, lost) = thread::scope(|scope| {
                let asking = scope.spawn(|| ask_until(&over, &topology, (8082, LOST)));
                thread::sleep(4 * LOST);
                over.store(true, Relaxed);
                asking.join().expect("it does not panic")
            })?;
            ensure!(
                lost == asked,
                "{hook}: {lost} of {asked} have no answer by no record"
            );
        }
        guard.start_again(&flags)?;
        ensure!(guard.end()?.success(), "{hook}: {}", guard.said());
    }
    Ok(())
}
