//! A kernel that takes ten seconds to say what sockets, tracked connections or interfaces there are:
//! nothing else waits for it.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{build, clients::run, guard::Guard, metrics, netns::Namespace, scratch::Scratch};
use guard_userspace::base::slow_answers::Subject;

use super::{Lab, hooks};

/// How long the kernel takes.
const LONG: Duration = Duration::from_secs(10);
/// What an answer, a reload or an end may take meanwhile.
const PROMISED: Duration = Duration::from_secs(1);

/// Answers of the kernel that are kept back, in a folder of this test's own.
pub(super) struct KeptBack(Scratch);

impl KeptBack {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Scratch::new()?))
    }

    /// Where files say what is kept back, as a daemon is told.
    pub(super) fn folder(&self) -> String {
        self.0.path().display().to_string()
    }

    /// Writes a configuration file, and returns its path.
    pub(super) fn configure(&self, text: &str) -> Result<String> {
        let path = self.0.write("portguard.toml", text)?;
        Ok(path.display().to_string())
    }

    pub(super) fn begin(&self, subject: Subject) -> Result<()> {
        Ok(fs::write(self.0.file(subject.name()), "")?)
    }

    pub(super) fn end(&self, subject: Subject) -> Result<()> {
        Ok(fs::remove_file(self.0.file(subject.name()))?)
    }

    /// How many wait for an answer.
    pub(super) fn waiting(&self, subject: Subject) -> usize {
        let text = fs::read_to_string(self.0.file(subject.name()));
        text.map_or(0, |text| text.lines().count())
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
    let kept_back = KeptBack::new()?;
    let path = kept_back.configure("listeners = \"expose\"\n")?;
    let folder = kept_back.folder();
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
    let mut rounds = 0_u16;
    while began.elapsed() < LONG {
        in_time("/healthz", || {
            let (code, said) = metrics::get(host, "/healthz")?;
            ensure!(code == 200, "{code}: {said}");
            Ok(())
        })?;
        in_time("/metrics", || metrics::scrape(host))?;
        in_time("status", || asked(&guard, "status"))?;
        kept_back.configure(&format!(
            "listeners = \"expose\"\ntrust = [\"192.0.2.{rounds}/32\"]\n"
        ))?;
        in_time("a reload", || asked(&guard, "reload"))?;
        // Nobody has to be asked about ports that become open.
        let first = 40_000 + rounds;
        host.sysctl(RANGE, &format!("{first} 60999"))?;
        in_time("a narrower range", || wait_for_range(lab, first))?;
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

const RANGE: &str = "net/ipv4/ip_local_port_range";

/// The first port of the range that is in force.
fn first_port(lab: &Lab) -> Result<u64> {
    let samples = metrics::scrape(&lab.topology.guarded)?;
    let labels = [("bound", "first")];
    Ok(metrics::sum(&samples, "portguard_port_range", &labels))
}

/// Waits until a sweep has been complete since the start.
pub(super) fn wait_for_a_sweep(host: &Namespace) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut samples = metrics::scrape(host)?.into_iter();
        if samples.any(|sample| sample.name == "portguard_sweep_duration_seconds") {
            return Ok(());
        }
        ensure!(began.elapsed() < LONG, "no sweep");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the range that begins with this port is in force.
fn wait_for_range(lab: &Lab, first: u16) -> Result<()> {
    let began = Instant::now();
    loop {
        let in_force = first_port(lab)?;
        if in_force == u64::from(first) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < LONG,
            "the range still begins with {in_force}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Has the kernel track connections, without which it is not asked for them. Returns whether it can.
fn tracks_connections(host: &Namespace) -> Result<bool> {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: without nft there is no rule that has the kernel track connections");
        return Ok(false);
    }
    for line in [
        "nft add table inet t",
        "nft add chain inet t c { type filter hook output priority 0 ; }",
        "nft add rule inet t c ct state new accept",
    ] {
        run(host, line)?;
    }
    Ok(true)
}

/// Asks for a reload while a change is under way. It need not be done, but must be answered.
fn reload_or_later(guard: &Guard) -> Result<()> {
    // Without an answer it would wait for as long as the test.
    let output = Command::new("timeout")
        .arg(LONG.as_secs().to_string())
        .arg(build::binary())
        .arg("reload")
        .arg("--control-socket")
        .arg(guard.control_socket())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let later = said.contains("a change is under way");
    ensure!(
        output.status.success() || later,
        "{}: {said}",
        output.status
    );
    Ok(())
}

/// Has the kernel keep back what it knows of `subject` while the range changes, by the sysctl or by a
/// reload, and asks for everything meanwhile.
fn nothing_waits_for_a_change(subject: Subject, by_reload: bool) -> Result<()> {
    let lab = Lab::new()?;
    let kept_back = KeptBack::new()?;
    let host = &lab.topology.guarded;
    if subject == Subject::Conntrack && !tracks_connections(host)? {
        return Ok(());
    }
    let configured = |first: u16| {
        if by_reload {
            kept_back.configure(&format!("range = \"{first}-60999\"\n"))
        } else {
            kept_back.configure("")
        }
    };
    let path = configured(50_000)?;
    host.sysctl(RANGE, "50000 60999")?;
    let folder = kept_back.folder();
    let mut guard = Guard::start_altered(
        host,
        lab.topology.interface(),
        &["--keep-back", &folder, "--sweep-rest", "600000"],
        &["--config", &path],
    )?;
    // Sweeps ask too, and must not be taken for the change: there is one, and no other.
    wait_for_a_sweep(host)?;
    let socket = guard.control_socket().to_owned();
    let begin = |first: u16| -> Result<()> {
        configured(first)?;
        if by_reload {
            // Its answer comes when the kernel's does.
            Command::new(build::binary())
                .args(["reload", "--control-socket"])
                .arg(&socket)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            return Ok(());
        }
        host.sysctl(RANGE, &format!("{first} 60999"))
    };
    kept_back.begin(subject)?;
    let began = Instant::now();
    begin(40_000)?;
    while kept_back.waiting(subject) == 0 {
        ensure!(
            began.elapsed() < LONG,
            "the change asks for no {}",
            subject.name()
        );
        thread::sleep(Duration::from_millis(10));
    }
    let mut rounds = 0;
    while began.elapsed() < LONG {
        in_time("/healthz", || {
            let (code, said) = metrics::get(host, "/healthz")?;
            ensure!(code == 200, "{code}: {said}");
            Ok(())
        })?;
        let first = in_time("/metrics", || first_port(&lab))?;
        ensure!(first == 50_000, "the change does not wait: {first}");
        in_time("status", || asked(&guard, "status"))?;
        in_time("a reload", || reload_or_later(&guard))?;
        rounds += 1;
        thread::sleep(Duration::from_millis(200));
    }
    ensure!(rounds > 5, "{rounds} rounds are not all the time");
    kept_back.end(subject)?;
    wait_for_range(&lab, 40_000)?;
    in_time("a reload afterwards", || asked(&guard, "reload"))?;

    kept_back.begin(subject)?;
    let began = Instant::now();
    begin(35_000)?;
    while kept_back.waiting(subject) == 0 {
        ensure!(began.elapsed() < LONG, "it asks no more");
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

/// A range that has to wait for the kernel is given up for the next one, by the sysctl.
#[test]
fn a_range_takes_the_place_of_one_that_waits() -> Result<()> {
    let lab = Lab::new()?;
    let kept_back = KeptBack::new()?;
    let host = &lab.topology.guarded;
    host.sysctl(RANGE, "50000 60999")?;
    let folder = kept_back.folder();
    let mut guard = Guard::start_altered(
        host,
        lab.topology.interface(),
        &["--keep-back", &folder, "--sweep-rest", "600000"],
        &[],
    )?;
    wait_for_a_sweep(host)?;
    for subject in [Subject::Sockets, Subject::Conntrack] {
        if subject == Subject::Conntrack && !tracks_connections(host)? {
            continue;
        }
        let of_now = u16::try_from(first_port(&lab)?)?;
        kept_back.begin(subject)?;
        host.sysctl(RANGE, "40000 60999")?;
        let began = Instant::now();
        while kept_back.waiting(subject) == 0 {
            ensure!(began.elapsed() < LONG, "asks for no {}", subject.name());
            thread::sleep(Duration::from_millis(10));
        }
        // Back, and then on to less than before: neither has to ask anybody.
        host.sysctl(RANGE, &format!("{of_now} 60999"))?;
        in_time("the former range", || wait_for_range(&lab, of_now))?;
        host.sysctl(RANGE, "52000 60999")?;
        in_time("a narrower range", || wait_for_range(&lab, 52_000))?;
        // These wait, and only the last of them comes.
        host.sysctl(RANGE, "45000 60999")?;
        thread::sleep(PROMISED / 4);
        host.sysctl(RANGE, "44000 60999")?;
        thread::sleep(PROMISED / 4);
        ensure!(first_port(&lab)? == 52_000, "nobody was asked");
        kept_back.end(subject)?;
        in_time("the last range", || wait_for_range(&lab, 44_000))?;
    }
    ensure!(!guard.said().contains("-> 45000"), "{}", guard.said());
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

#[test]
fn nothing_waits_while_a_range_change_lists_sockets() -> Result<()> {
    nothing_waits_for_a_change(Subject::Sockets, false)
}

#[test]
fn nothing_waits_while_a_range_change_reads_conntrack() -> Result<()> {
    nothing_waits_for_a_change(Subject::Conntrack, false)
}

#[test]
fn nothing_waits_while_a_reload_lists_sockets() -> Result<()> {
    nothing_waits_for_a_change(Subject::Sockets, true)
}

#[test]
fn nothing_waits_while_a_reload_reads_conntrack() -> Result<()> {
    nothing_waits_for_a_change(Subject::Conntrack, true)
}

#[test]
fn nothing_waits_for_a_list_of_sockets() -> Result<()> {
    nothing_waits(&Lab::new()?, Subject::Sockets)
}

#[test]
fn nothing_waits_for_a_list_of_interfaces() -> Result<()> {
    nothing_waits(&Lab::new()?, Subject::Interfaces)
}
