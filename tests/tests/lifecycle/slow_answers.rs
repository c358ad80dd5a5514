//! A kernel that takes ten seconds to say what sockets, tracked connections or interfaces there are:
//! nothing else waits for it.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{build, guard::Guard, metrics};
use guard_userspace::base::slow_answers::Subject;

use super::{Lab, hooks};

/// How long the kernel takes.
const LONG: Duration = Duration::from_secs(10);
/// What an answer, a reload or an end may take meanwhile.
const PROMISED: Duration = Duration::from_secs(1);

/// Answers of the kernel that are kept back, in a folder of this test's own.
struct KeptBack(PathBuf);

impl KeptBack {
    fn new(lab: &Lab) -> Result<Self> {
        let name = format!("kept-back-{}", lab.topology.guarded.name());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn begin(&self, subject: Subject) -> Result<()> {
        Ok(fs::write(self.0.join(subject.name()), "")?)
    }

    fn end(&self, subject: Subject) -> Result<()> {
        Ok(fs::remove_file(self.0.join(subject.name()))?)
    }

    /// How many wait for an answer.
    fn waiting(&self, subject: Subject) -> usize {
        let text = fs::read_to_string(self.0.join(subject.name()));
        text.map_or(0, |text| text.lines().count())
    }
}

impl Drop for KeptBack {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Does something that must not take long, and names it if it does.
fn in_time<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = act().with_context(|| what.to_owned());
    let took = began.elapsed();
    ensure!(took < PROMISED, "{what}: {took:?}");
    done
}

fn asked(guard: &Guard, words: &str) -> Result<()> {
    let output = Command::new(build::binary())
        .arg(words)
        .arg("--control-socket")
        .arg(guard.control_socket())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(())
}

/// Has the kernel keep back what it knows of `subject`, and everything asked of the daemon meanwhile.
fn nothing_waits(lab: &Lab, subject: Subject) -> Result<()> {
    let kept_back = KeptBack::new(lab)?;
    let config = kept_back.0.join("portguard.toml");
    let configure = |text: &str| fs::write(&config, text);
    configure("listeners = \"expose\"\n")?;
    let (folder, path) = (
        kept_back.0.display().to_string(),
        config.display().to_string(),
    );
    let mut guard = Guard::start_altered(
        &lab.topology.guarded,
        lab.topology.interface(),
        &["--keep-back", &folder, "--sweep-rest", "200"],
        &["--config", &path],
    )?;
    kept_back.begin(subject)?;
    let began = Instant::now();
    while kept_back.waiting(subject) == 0 {
        ensure!(
            began.elapsed() < LONG,
            "nobody asks about {}",
            subject.name()
        );
        thread::sleep(Duration::from_millis(10));
    }
    let host = &lab.topology.guarded;
    let mut rounds = 0;
    while began.elapsed() < LONG {
        in_time("/healthz", || {
            let (code, said) = metrics::get(host, "/healthz")?;
            ensure!(code == 200, "{code}: {said}");
            Ok(())
        })?;
        in_time("/metrics", || metrics::scrape(host))?;
        in_time("status", || asked(&guard, "status"))?;
        configure(&format!(
            "listeners = \"expose\"\ntrust = [\"192.0.2.{rounds}/32\"]\n"
        ))?;
        in_time("a reload", || asked(&guard, "reload"))?;
        rounds += 1;
        thread::sleep(Duration::from_millis(200));
    }
    ensure!(rounds > 5, "{rounds} rounds are not all the time");
    // It goes on where the kernel goes on, and asks again.
    kept_back.end(subject)?;
    thread::sleep(PROMISED);
    let began = Instant::now();
    kept_back.begin(subject)?;
    while kept_back.waiting(subject) == 0 {
        ensure!(began.elapsed() < LONG, "it has lost its {}", subject.name());
        thread::sleep(Duration::from_millis(10));
    }
    in_time("the end", || {
        let status = guard.end()?;
        ensure!(status.success(), "{status}: {}", guard.said());
        Ok(())
    })?;
    ensure!(hooks::xdp(host, lab.topology.interface())?.is_none());
    ensure!(hooks::egress(host, lab.topology.interface())? == 0);
    Ok(())
}

#[test]
fn nothing_waits_for_a_list_of_sockets() -> Result<()> {
    nothing_waits(&Lab::new()?, Subject::Sockets)
}

#[test]
fn nothing_waits_for_a_list_of_interfaces() -> Result<()> {
    nothing_waits(&Lab::new()?, Subject::Interfaces)
}
