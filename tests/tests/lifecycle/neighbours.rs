//! Other daemons: one too many here, and one next door.

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow},
};
use guard_tests::{
    build,
    frames::P,
    netns::Namespace,
    peers::{Exchange, Talk},
};

use super::{Lab, PATIENCE, hooks};

#[test]
fn f05_a_second_daemon_is_refused_and_disturbs_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let (host, interface) = (&lab.topology.guarded, lab.topology.interface());
    let guard = lab.guard(&[])?;
    let server = P.address(Family::Ipv4);
    let mut talk = Exchange::open(host, &lab.topology.peer, (server, 8081), false, 1)?.remove(0);
    let program = hooks::xdp(host, interface)?;
    let socket = guard.control_socket().with_extension("second");
    for flags in [
        &[][..],
        &["--max-flows", "1024"],
        &["--metrics-listen", "127.0.0.1:9751"],
        &["--mode", "monitor", "--no-rescue", "--range", "1-2"],
    ] {
        let output = host
            .command(build::binary())
            .args(["run", "--iface", interface, "--pin-dir"])
            .arg(guard.pins())
            .arg("--control-socket")
            .arg(&socket)
            .args(flags)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(69), "{flags:?}: {said}");
        let holder = format!("pid {}", guard.pid());
        ensure!(said.contains(&holder), "{flags:?}: no {holder} in {said}");
        ensure!(hooks::xdp(host, interface)? == program, "{flags:?}");
        ensure!(hooks::egress(host, interface)? == 1, "{flags:?}");
        let due = [(DropNoFlow, 2), (PassKnownFlow, 1)];
        guard.expect(due, || {
            ensure!(
                lab.scan(1)? == 0,
                "{flags:?}: unsolicited packets are delivered"
            );
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{flags:?}: the answer is lost");
            Ok(())
        })?;
    }
    ensure!(guard.stop()?.success(), "the first does not end well");
    Ok(())
}

/// Two hosts on one machine whose interfaces have the same number, and whose daemons pin below
/// the same folder.
#[test]
fn a_daemon_next_door_is_unsolicited() -> Result<()> {
    let (ours, theirs) = (Lab::new()?, Lab::new()?);
    let interface = ours.topology.interface();
    let (here, there) = (&ours.topology.guarded, &theirs.topology.guarded);
    ensure!(
        index(here, interface)? == index(there, interface)?,
        "the interfaces have different numbers"
    );
    let mut first = ours.guard(&[])?;
    let server = P.address(Family::Ipv4);
    let mut talk = Exchange::open(here, &ours.topology.peer, (server, 8081), false, 1)?.remove(0);
    ensure!(ours.scan(5)? == 0, "unsolicited packets are delivered here");
    let program = hooks::xdp(here, interface)?;
    first.kill()?;

    let mut second = first.start_beside(there, interface, &["--mode", "monitor"])?;
    let packets = second.packets()?;
    ensure!(packets.of(DropNoFlow) == 0, "counters of another:{packets}");
    ensure!(hooks::xdp(here, interface)? == program, "taken over");
    ensure!(hooks::xdp(there, interface)? != program, "the same program");
    ensure!(ours.scan(5)? == 0, "unsolicited packets are delivered here");
    ensure!(
        theirs.hears(5)?,
        "monitored unsolicited packets are not delivered"
    );
    ensure!(second.end()?.success(), "{}", second.said());
    drop(second);

    ensure!(hooks::xdp(here, interface)? == program, "taken off");
    ensure!(hooks::egress(here, interface)? == 1, "taken off");
    first.start_again(&[])?;
    let packets = first.packets()?;
    ensure!(packets.of(DropNoFlow) == 20, "not adopted:{packets}");
    first.expect([(PassKnownFlow, 1)], || {
        talk.speak()?;
        ensure!(talk.hears(PATIENCE), "the answer is lost");
        Ok(())
    })?;
    Ok(())
}

fn index(host: &Namespace, interface: &str) -> Result<u32> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the name ends in zero.
    let index = host.run(|| unsafe { libc::if_nametoindex(name.as_ptr()) });
    (index != 0).then_some(index).context("no such interface")
}
