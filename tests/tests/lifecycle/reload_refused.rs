//! Reloads for which the kernel, or a map, refuses something.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome::PassExempt;
use guard_tests::{
    guard::Guard,
    refused::{Refused, while_refused},
};
use guard_userspace::{
    bpf::{maps::Prefixes, pins::Pins},
    host::namespace,
};
use ipnet::IpNet;

use super::{
    Lab,
    reload::{Config, PATIENCE, portguard},
};

/// Programs may read a page until the kernel says that all of them have ended, and it says so by other
/// means where `membarrier` is refused: no change waits for the one before it.
#[test]
fn no_change_waits_where_membarrier_is_refused() -> Result<()> {
    while_refused(Refused::Membarrier, libc::EPERM, changes_without_membarrier)
}

fn changes_without_membarrier() -> Result<()> {
    const CHANGES: u32 = 8;
    /// Less than the time that would have to pass since the change before.
    const AT_ONCE: Duration = Duration::from_millis(800);

    ensure!(membarrier().is_err(), "membarrier is not refused");
    let lab = Lab::new()?;
    let config = Config::new()?;
    let path = config.path.display().to_string();
    let mut guard = lab.guard(&["--config", &path])?;
    let mut took = Vec::new();
    for text in ["expose = [\"40000/udp\"]", ""]
        .iter()
        .cycle()
        .take(CHANGES as usize)
    {
        let began = Instant::now();
        config.reload(&mut guard, text, "reloaded: expose")?;
        took.push(began.elapsed());
    }
    println!("changes: {took:?}");
    ensure!(took[1..].iter().all(|took| *took < AT_ONCE), "{took:?}");
    // Half of the time that they would wait for each other.
    let all: Duration = took.iter().sum();
    ensure!(all < Duration::from_secs(1) * CHANGES / 2, "{took:?}");
    ensure!(lab.scan(1)? == 0, "the port is open");
    let said = guard.said();
    ensure!(!said.contains("membarrier"), "{said}");
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

/// `MEMBARRIER_CMD_GLOBAL`.
fn membarrier() -> io::Result<()> {
    // SAFETY: the call has no pointers.
    match unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What only the former configuration trusts is taken out of the map behind the change, which is in
/// force by then: where that fails, it is said and tried again.
#[test]
fn what_cannot_be_taken_out_at_once_is_taken_out_later() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new()?;
    let trusting = "trust = [\"198.51.100.0/24\"]";
    config.write(trusting)?;
    let path = config.path.display().to_string();
    let mut guard = lab.guard(&["--config", &path])?;
    let pins = Pins::new(guard.pins(), &lab.topology.guarded.run(namespace::name)?);
    let prefix: IpNet = "198.51.100.0/24".parse()?;
    let mut trusted = Prefixes::open(&pins, "trusted")?;
    ensure!(!trusted.is_empty(), "no prefix is trusted");

    // The daemon does not know, and the kernel refuses to take out what is not there.
    trusted.set([] as [IpNet; 0])?;
    config.reload(&mut guard, "expose = [\"40000/udp\"]", "reloaded: ")?;
    let said = guard.said();
    ensure!(said.contains("may still get in"), "not said: {said}");
    ensure!(!said.contains("not reloaded"), "{said}");
    guard.expect([(PassExempt, 2)], || {
        ensure!(lab.hears(1)?, "the change is not in force");
        Ok(())
    })?;

    trusted.set([prefix])?;
    let deadline = Instant::now() + 3 * PATIENCE;
    while !Prefixes::open(&pins, "trusted")?.is_empty() {
        ensure!(
            Instant::now() < deadline,
            "trusted for ever: {}",
            guard.said()
        );
        thread::sleep(Duration::from_millis(50));
    }
    let times = guard.said().matches("may still get in").count();
    ensure!(times == 1, "said {times} times: {}", guard.said());
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

/// More prefixes than the map has room for: nothing of such a file comes into force.
#[test]
fn a_change_that_does_not_fit_leaves_the_former_one() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new()?;
    config.write("expose = [\"40000/udp\"]")?;
    let path = config.path.display().to_string();
    let mut guard = lab.guard(&["--config", &path])?;
    let many: Vec<_> = (0..20_000_u32)
        .map(|number| format!("\"100.{}.{}.1\"", number >> 8, number & 0xff))
        .collect();
    let many = format!("trust = [{}]", many.join(", "));
    config.reload(&mut guard, &many, "not reloaded")?;
    guard.expect([(PassExempt, 2)], || {
        ensure!(lab.hears(1)?, "the former configuration is not in force");
        Ok(())
    })?;
    let pins = Pins::new(guard.pins(), &lab.topology.guarded.run(namespace::name)?);
    ensure!(
        Prefixes::open(&pins, "trusted")?.is_empty(),
        "some are trusted"
    );
    config.reload(&mut guard, "", "reloaded: expose")?;
    ensure!(lab.scan(1)? == 0, "the port is open");
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

/// What there was no time for before a change is learned once it is in force. Where that fails, the
/// change stays, and the answer says both.
#[test]
fn a_change_stays_in_force_when_the_rest_cannot_be_learned() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new()?;
    config.write("range = \"50000-60999\"")?;
    let path = config.path.display().to_string();
    let mut guard = Guard::start_altered(
        &lab.topology.guarded,
        lab.topology.interface(),
        &["--without", "late-list"],
        &["--config", &path],
    )?;
    ensure!(lab.hears(1)?, "a port outside the range is shut");
    config.write("range = \"32768-60999\"")?;
    let (code, printed) = portguard(&guard, &lab, &["reload"])?;
    ensure!(
        code.is_some_and(|code| code != 0)
            && printed.contains("the change is in force, but not all flows are known")
            && printed.contains("the sockets cannot be listed"),
        "{code:?}: {printed}"
    );
    ensure!(lab.scan(1)? == 0, "the change is not in force");
    let (code, printed) = portguard(&guard, &lab, &["reload"])?;
    ensure!(
        code == Some(0) && printed.contains("nothing has changed"),
        "{code:?}: {printed}"
    );
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}
