//! SIGHUP: another configuration, or a bad one.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassExempt, PassKnownFlow},
};
use guard_tests::{
    frames::P,
    guard::Guard,
    peers::{Exchange, Talk},
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
            ensure!(lab.scan(1)? == 0, "{what}: strangers are heard");
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
