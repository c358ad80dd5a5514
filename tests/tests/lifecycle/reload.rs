//! SIGHUP and `portguard reload`: another configuration, or a bad one.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassExempt, PassKnownFlow},
};
use guard_tests::{
    build,
    frames::P,
    guard::Guard,
    peers::{Exchange, Talk},
    scratch::Scratch,
};

use super::Lab;

pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// A configuration file of this test's own.
pub(super) struct Config {
    pub(super) path: PathBuf,
    _folder: Scratch,
}

impl Config {
    pub(super) fn new() -> Result<Self> {
        let folder = Scratch::new()?;
        Ok(Self {
            path: folder.write("portguard.toml", "")?,
            _folder: folder,
        })
    }

    pub(super) fn write(&self, text: &str) -> Result<()> {
        fs::write(&self.path, text).with_context(|| format!("write {}", self.path.display()))
    }

    /// Writes `text`, has it read, and waits until the guard says so in its `times`th line with
    /// `answer`.
    pub(super) fn reload(&self, guard: &mut Guard, text: &str, answer: &str) -> Result<()> {
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
pub(super) fn portguard(guard: &Guard, lab: &Lab, words: &[&str]) -> Result<(Option<i32>, String)> {
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
