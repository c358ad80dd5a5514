//! SIGHUP and `portguard reload`: another configuration, or a bad one.

use std::{
    fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use guard_common::{
    outcome::{
        Family,
        Outcome::{DropNoFlow, PassExempt, PassKnownFlow},
    },
    ports::occupancy::Use,
};
use guard_tests::{
    build,
    frames::P,
    guard::Guard,
    peers::{Exchange, Talk},
    refused::{Refused, while_refused},
    scratch::Scratch,
    wire::QUIET,
};
use guard_userspace::{
    bpf::{
        maps::{Prefixes, StateMemory},
        pins::Pins,
    },
    host::namespace,
};
use ipnet::IpNet;

use super::Lab;

const PATIENCE: Duration = Duration::from_secs(3);

/// A configuration file of this test's own.
struct Config {
    path: PathBuf,
    _folder: Scratch,
}

impl Config {
    fn new() -> Result<Self> {
        let folder = Scratch::new()?;
        Ok(Self {
            path: folder.write("portguard.toml", "")?,
            _folder: folder,
        })
    }

    fn write(&self, text: &str) -> Result<()> {
        fs::write(&self.path, text).with_context(|| format!("write {}", self.path.display()))
    }

    /// Writes `text`, has it read, and waits until the guard says so in its `times`th line with
    /// `answer`.
    fn reload(&self, guard: &mut Guard, text: &str, answer: &str) -> Result<()> {
        let before = guard.said().matches(answer).count();
        self.write(text)?;
        guard.signal(libc::SIGHUP);
        let deadline = Instant::now() + PATIENCE;
        while guard.said().matches(answer).count() == before {
            ensure!(
                Instant::now() < deadline,
                "no {answer:?} to {text:?}: {}",
                guard.said()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

#[test]
fn a_reload_takes_effect_and_a_bad_one_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new()?;
    let path = config.path.display().to_string();
    let mut guard = lab.guard(&["--config", &path])?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let server = P.address(Family::Ipv4);
    let mut talk = Exchange::open(host, peer, (server, 8081), false, 1)?.remove(0);
    let shut = |guard: &Guard, what: &str| {
        guard.expect([(DropNoFlow, 2)], || {
            ensure!(
                lab.scan(1)? == 0,
                "{what}: unsolicited packets are delivered: {}",
                guard.said()
            );
            Ok(())
        })
    };
    let open = |guard: &Guard, reason, what: &str| {
        guard.expect([(reason, 2)], || {
            ensure!(
                lab.hears(1)?,
                "{what}: unsolicited packets are not delivered"
            );
            Ok(())
        })
    };

    shut(&guard, "an empty file")?;
    config.reload(&mut guard, "expose = [\"40000/udp\"]", "reloaded: ")?;
    open(&guard, PassExempt, "exposed")?;
    for bad in [
        "expose = [",
        "expose = [\"nonsense\"]",
        "exposed = []",
        "max-flows = 1000",
        "range = \"9-1\"",
    ] {
        config.reload(&mut guard, bad, "not reloaded")?;
        open(&guard, PassExempt, bad)?;
    }
    config.reload(&mut guard, "mode = \"monitor\"", "reloaded: ")?;
    open(&guard, DropNoFlow, "monitored")?;
    config.reload(&mut guard, "max-flows = 1024", "takes a restart")?;
    shut(&guard, "no longer monitored")?;
    // A closed terminal says the same, and must end nothing.
    config.reload(&mut guard, "max-flows = 1024", "nothing has changed")?;
    guard.expect([(PassKnownFlow, 1)], || {
        talk.speak()?;
        ensure!(talk.hears(PATIENCE), "reloading has cost a flow");
        Ok(())
    })?;
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

#[test]
fn another_filter_cuts_nobody_it_can_know() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new()?;
    let path = config.path.display().to_string();
    let mut guard = lab.guard(&["--config", &path])?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let server = P.address(Family::Ipv4);
    let mut unconnected = Exchange::open(host, peer, (server, 8081), false, 1)?.remove(0);
    let mut connected = Exchange::open(host, peer, (server, 8082), true, 1)?.remove(0);
    let heard = |guard: &Guard, talk: &mut Exchange, what: &str| {
        guard.expect([(PassKnownFlow, 1)], || {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{what} has cost a flow");
            Ok(())
        })
    };

    heard(&guard, &mut unconnected, "nothing")?;
    config.reload(&mut guard, "udp-filter = \"address\"", "reloaded: ")?;
    heard(&guard, &mut unconnected, "a wider filter")?;
    heard(&guard, &mut connected, "a wider filter")?;
    let mut late = Exchange::open(host, peer, (server, 8083), false, 1)?.remove(0);
    heard(&guard, &mut late, "nothing")?;
    config.reload(&mut guard, "", "reloaded: udp-filter")?;
    heard(&guard, &mut connected, "a narrower filter")?;
    // Which port it had asked is not known any more, until it asks again.
    guard.expect([(DropNoFlow, 1)], || {
        late.speak()?;
        ensure!(!late.hears(QUIET), "a port that nobody asked is heard");
        Ok(())
    })?;
    late.client.send_to(b"query", (server, 8083))?;
    heard(&guard, &mut late, "asking again")?;
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

/// Sweeps forget the port of a flow that has expired. Where the timer becomes longer and the flow
/// lives again, the next sweep does not wait for its turn.
#[test]
fn longer_timers_bring_ports_back_at_once() -> Result<()> {
    const REST: Duration = Duration::from_secs(4);

    let lab = Lab::new()?;
    let config = Config::new()?;
    config.write("timeout = { udp = 1 }")?;
    let path = config.path.display().to_string();
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let rest = REST.as_millis().to_string();
    let mut guard = Guard::start_altered(
        host,
        lab.topology.interface(),
        &["--sweep-rest", &rest],
        &["--config", &path],
    )?;
    let server = (P.address(Family::Ipv4), 8081);
    let mut talk = Exchange::open(host, peer, server, false, 1)?.remove(0);
    let port = talk.client.local_addr()?.port();
    let state = StateMemory::open(&Pins::new(guard.pins(), &host.run(namespace::name)?))?;
    let deadline = Instant::now() + 10 * REST;
    while state.in_use(Use::Udp, port) {
        ensure!(Instant::now() < deadline, "{port} is in use for ever");
        thread::sleep(Duration::from_millis(10));
    }
    // A sweep has just ended, so none is due.
    let epoch = state.epoch();
    config.reload(&mut guard, "timeout = { udp = 300 }", "reloaded: ")?;
    let deadline = Instant::now() + REST * 3 / 4;
    while state.epoch() == epoch {
        ensure!(Instant::now() < deadline, "no sweep has begun");
        thread::sleep(Duration::from_millis(10));
    }
    guard.expect([(PassKnownFlow, 1)], || {
        talk.speak()?;
        ensure!(talk.hears(PATIENCE), "a flow that lives again is not heard");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_start_with_a_wider_filter_keeps_flows() -> Result<()> {
    for size in [[].as_slice(), &["--max-flows", "131072"]] {
        let lab = Lab::new()?;
        let mut guard = lab.guard(&[])?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let server = (P.address(Family::Ipv4), 8081);
        let mut talk = Exchange::open(host, peer, server, false, 1)?.remove(0);
        guard.kill()?;
        guard.start_again(&[&["--udp-filter", "address"], size].concat())?;
        guard.expect([(PassKnownFlow, 1)], || {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{size:?}: the start has cost a flow");
            Ok(())
        })?;
    }
    Ok(())
}

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

/// What a range leaves open or shut is said when it comes into force too, and once.
#[test]
fn a_live_change_brings_its_warnings() -> Result<()> {
    const WARNING: &str = "exposed 62000/tcp: not in the range";
    const EXPOSED: &str = "expose = [\"62000/tcp\"]";
    const WIDE: &str = "32768 62000";

    let lab = Lab::new()?;
    let host = &lab.topology.guarded;
    host.sysctl("net/ipv4/ip_local_port_range", WIDE)?;
    let config = Config::new()?;
    config.write(EXPOSED)?;
    let path = config.path.display().to_string();
    let mut guard = lab.guard(&["--config", &path])?;
    ensure!(!guard.said().contains(WARNING), "{}", guard.said());
    let narrow = format!("{EXPOSED}\nrange = \"32768-60999\"");
    config.reload(&mut guard, &narrow, "reloaded: range")?;
    let times = guard.said().matches(WARNING).count();
    ensure!(times == 1, "said {times} times: {}", guard.said());
    // The kernel's range, which the file does not name.
    config.reload(&mut guard, EXPOSED, "reloaded: range")?;
    ensure!(
        guard.said().matches(WARNING).count() == 1,
        "{}",
        guard.said()
    );
    host.sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
    let deadline = Instant::now() + PATIENCE;
    while guard.said().matches(WARNING).count() == 1 {
        ensure!(Instant::now() < deadline, "not said: {}", guard.said());
        thread::sleep(Duration::from_millis(10));
    }
    let times = guard.said().matches(WARNING).count();
    ensure!(times == 2, "said {times} times: {}", guard.said());
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

/// The exit code of `portguard` with these words, and all that it prints.
fn portguard(guard: &Guard, lab: &Lab, words: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = lab.topology.guarded.command(build::binary());
    command.args(words);
    if words[0] == "reload" {
        command.arg("--control-socket").arg(guard.control_socket());
    }
    let output = command.output()?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(printed)?))
}

#[test]
fn anyone_who_asks_for_a_reload_is_told_what_came_of_it() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new()?;
    let path = config.path.display().to_string();
    let guard = lab.guard(&["--config", &path])?;
    let pins = guard.pins().display().to_string();
    let check = |word: &str| {
        let words = ["check", "--iface", "vg", "--pin-dir", &pins, word, &path];
        portguard(&guard, &lab, &words)
    };
    // file, exit code, what is said
    let table = [
        ("expose = [\"40000/udp\"]", 0, "reloaded: expose"),
        (
            "expose = [\"40000/udp\"]",
            0,
            "reloaded, nothing has changed",
        ),
        (
            "max-flows = 1024\nmode = \"monitor\"",
            0,
            "reloaded: mode, expose; takes a restart: max-flows",
        ),
        ("mode = \"of\"", 78, "stays: "),
        ("mode = ", 78, ":1:8: "),
        ("", 0, "reloaded: mode"),
    ];
    for (text, code, said) in table {
        config.write(text)?;
        let (checked, printed) = check("--config")?;
        ensure!(
            checked == Some(code),
            "{text}: check: {checked:?}: {printed}"
        );
        if code == 0 {
            let beside = format!("note     instance       pid {} guards", guard.pid());
            ensure!(printed.contains(&beside), "{text}: {printed}");
        }
        let (done, printed) = portguard(&guard, &lab, &["reload"])?;
        ensure!(
            done == Some(code) && printed.contains(said) && printed.lines().count() == 1,
            "{text}: {done:?}: {printed}"
        );
        if code != 0 {
            ensure!(printed.contains(&path), "{printed}");
        }
    }
    let times = guard
        .said()
        .matches("reload: asked for by uid 0, pid ")
        .count();
    ensure!(times == table.len(), "{times}: {}", guard.said());
    ensure!(lab.scan(1)? == 0, "unsolicited packets are delivered");
    Ok(())
}

/// Which configuration is in force, whether the file was taken, and when.
#[test]
fn metrics_tell_which_configuration_is_in_force() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new()?;
    let path = config.path.display().to_string();
    let guard = lab.guard(&["--config", &path])?;
    let now = || -> Result<(String, f64, f64)> {
        let samples = guard.scrape()?;
        let mut hashes = samples
            .iter()
            .filter(|sample| sample.name == "portguard_config_info")
            .filter_map(|sample| sample.labels.get("hash"));
        let hash = hashes.next().context("no hash")?.clone();
        ensure!(hashes.next().is_none(), "two configurations are in force");
        let of = |name: &str| {
            let name = format!("portguard_config_last_reload_{name}");
            let sample = samples.iter().find(|sample| sample.name == name);
            sample.map_or(f64::NAN, |sample| sample.value)
        };
        Ok((hash, of("successful"), of("success_timestamp_seconds")))
    };

    let start = now()?;
    let since = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64() - start.2;
    ensure!(start.1 == 1.0 && (0.0..60.0).contains(&since), "{start:?}");
    config.write("expose = [\"40000/udp\"]")?;
    portguard(&guard, &lab, &["reload"])?;
    let changed = now()?;
    ensure!(
        changed.0 != start.0 && changed.1 == 1.0 && changed.2 > start.2,
        "{start:?}, {changed:?}"
    );
    config.write("expose = ")?;
    portguard(&guard, &lab, &["reload"])?;
    let refused = now()?;
    ensure!(
        refused == (changed.0.clone(), 0.0, changed.2),
        "{changed:?}, {refused:?}"
    );
    config.write("")?;
    portguard(&guard, &lab, &["reload"])?;
    let back = now()?;
    ensure!(
        back.0 == start.0 && back.1 == 1.0 && back.2 > changed.2,
        "{start:?}, {back:?}"
    );
    Ok(())
}

#[test]
fn a_guard_without_a_file_has_nothing_to_reload() -> Result<()> {
    let lab = Lab::new()?;
    let mut guard = lab.guard(&[])?;
    let (code, printed) = portguard(&guard, &lab, &["reload"])?;
    ensure!(
        code == Some(2)
            && printed.contains("no configuration file to read; start it with --config"),
        "{code:?}: {printed}"
    );
    ensure!(guard.end()?.success(), "{}", guard.said());
    let (code, printed) = portguard(&guard, &lab, &["reload"])?;
    ensure!(
        code == Some(69) && printed.contains("no daemon answers"),
        "{code:?}: {printed}"
    );
    Ok(())
}

/// What systemd does with the unit, as far as that can be told without it.
#[test]
fn the_unit_comes_before_the_network_and_tells_of_bad_files() -> Result<()> {
    const UNIT: &str = include_str!("../../../packaging/portguard.service");

    let values = |key: &str| -> Vec<&str> {
        UNIT.lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .flat_map(str::split_whitespace)
            .collect()
    };
    let has = |key: &str, value: &str| values(key).contains(&value);
    ensure!(has("Before", "network-pre.target") && has("Wants", "network-pre.target"));
    ensure!(has("DefaultDependencies", "no") && has("Conflicts", "shutdown.target"));
    for key in ["After", "Wants", "Requires"] {
        for waited in ["network-online.target", "network.target", "basic.target"] {
            ensure!(!has(key, waited), "{key}={waited}");
        }
    }
    ensure!(values("ExecReload") == ["/usr/local/sbin/portguard", "reload"]);
    Ok(())
}
