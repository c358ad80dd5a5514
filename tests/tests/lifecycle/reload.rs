//! SIGHUP and `portguard reload`: another configuration, or a bad one.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
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
    wire::QUIET,
};
use guard_userspace::{
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

use super::Lab;

const PATIENCE: Duration = Duration::from_secs(3);

/// A configuration file of this test's own.
struct Config(PathBuf);

impl Config {
    fn new(lab: &Lab) -> Result<Self> {
        let name = format!("{}.toml", lab.topology.guarded.name());
        let config = Self(std::env::temp_dir().join(name));
        config.write("")?;
        Ok(config)
    }

    fn write(&self, text: &str) -> Result<()> {
        fs::write(&self.0, text).with_context(|| format!("write {}", self.0.display()))
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

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_reload_takes_effect_and_a_bad_one_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new(&lab)?;
    let path = config.0.display().to_string();
    let mut guard = lab.guard(&["--config", &path])?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let server = P.address(Family::Ipv4);
    let mut talk = Exchange::open(host, peer, (server, 8081), false, 1)?.remove(0);
    let shut = |guard: &Guard, what: &str| {
        guard.expect([(DropNoFlow, 2)], || {
            ensure!(
                lab.scan(1)? == 0,
                "{what}: strangers are heard: {}",
                guard.said()
            );
            Ok(())
        })
    };
    let open = |guard: &Guard, reason, what: &str| {
        guard.expect([(reason, 2)], || {
            ensure!(lab.hears(1)?, "{what}: strangers are not heard");
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
    let config = Config::new(&lab)?;
    let path = config.0.display().to_string();
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
    let config = Config::new(&lab)?;
    config.write("timeout = { udp = 1 }")?;
    let path = config.0.display().to_string();
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
fn whoever_asks_for_a_reload_is_told_what_came_of_it() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new(&lab)?;
    let path = config.0.display().to_string();
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
    ensure!(lab.scan(1)? == 0, "strangers are heard");
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
