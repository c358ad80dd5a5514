//! The part `footprint`: memory, and how long changes take.

use std::{
    fmt, fs,
    io::{BufRead, BufReader},
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use guard_tests::{
    bpffs, build,
    frames::{G, P},
    guard::Guard,
    netns::Direct,
    scratch::Scratch,
};
use serde::Serialize;

use crate::{
    contender::{Contender, Installed, Terms, pinned},
    programs::BenchPrograms,
    rounds::{Sample, Summary},
};

/// Memory, and how long changes take.
#[derive(Clone, Debug, Serialize)]
pub struct Footprint {
    /// Bytes of kernel memory for each IPv4 flow there is room for.
    pub bytes_a_flow_v4: f64,
    /// The same for IPv6.
    pub bytes_a_flow_v6: f64,
    /// Resident memory of the daemon, in MiB.
    pub resident: f64,
    /// From starting the daemon to the line that says it guards, in milliseconds.
    pub start: Summary,
    /// From writing the sysctl until packets to a port that has entered the range are dropped, in
    /// milliseconds.
    pub range: Summary,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nfootprint")?;
        writeln!(
            f,
            "kernel memory a flow, IPv4       {:8.1} bytes",
            self.bytes_a_flow_v4
        )?;
        writeln!(
            f,
            "kernel memory a flow, IPv6       {:8.1} bytes",
            self.bytes_a_flow_v6
        )?;
        writeln!(
            f,
            "resident memory of the daemon    {:8.1} MiB",
            self.resident
        )?;
        writeln!(
            f,
            "start to guarded                 {:8.1} ms",
            self.start.low
        )?;
        write!(
            f,
            "range change to enforced         {:8.1} ms",
            self.range.median
        )
    }
}

/// How often each change is timed.
const TIMES: usize = 9;

/// Measures all of it.
///
/// # Errors
/// When the daemon does not start, or a change is not enforced.
pub fn measure() -> Result<Footprint> {
    let hosts = Direct::new()?;
    let start = repeat(|| start(&hosts))?;

    let bare = BenchPrograms::load()?;
    let installed = Contender::Portguard.install(&hosts, &bare, Terms::default())?;
    let Installed::Guard(guard) = &installed else {
        unreachable!("portguard is installed as a guard")
    };
    let range = repeat(|| range(&hosts))?;
    Ok(Footprint {
        bytes_a_flow_v4: bytes_a_flow(guard, "flows_udp4")?,
        bytes_a_flow_v6: bytes_a_flow(guard, "flows_udp6")?,
        resident: resident(guard)?,
        start,
        range,
    })
}

fn repeat(time: impl FnMut() -> Result<f64>) -> Result<Summary> {
    let mut time = time;
    let times = (0..TIMES).map(|_| time()).collect::<Result<Vec<_>>>()?;
    Ok(Sample::from(times).summary())
}

/// From starting the daemon to the line that says it guards.
fn start(hosts: &Direct) -> Result<f64> {
    let pins = bpffs::Folder::new()?;
    let scratch = Scratch::new()?;
    let mut command = Command::new(build::binary());
    command
        .args(["run", "--iface", hosts.interface(), "--control-socket"])
        .arg(scratch.file("control.sock"))
        .arg("--pin-dir")
        .arg(pins.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let began = Instant::now();
    let daemon = hosts.guarded.run(|| command.spawn());
    let mut daemon = daemon.context("run the daemon")?;
    let lines = BufReader::new(daemon.stderr.take().context("no output")?).lines();
    let mut said = Vec::new();
    let mut took = None;
    for line in lines {
        let line = line?;
        if line.starts_with("guarding ") {
            took = Some(began.elapsed());
            break;
        }
        said.push(line);
    }
    // SAFETY: no memory is involved, and the process is our own child, not yet waited for.
    unsafe { libc::kill(daemon.id() as libc::pid_t, libc::SIGTERM) };
    daemon.wait()?;
    let took = took.with_context(|| format!("the daemon does not guard: {}", said.join(", ")))?;
    Ok(took.as_secs_f64() * 1e3)
}

/// From writing the sysctl until nothing comes through to a port that has entered the range.
fn range(hosts: &Direct) -> Result<f64> {
    const PORT: u16 = 25_000;
    const SETTING: &str = "net/ipv4/ip_local_port_range";
    const USUAL: &str = "32768 60999";
    const WIDER: &str = "20000 60999";
    const PAUSE: Duration = Duration::from_micros(500);
    const PATIENCE: Duration = Duration::from_secs(3);
    /// So long without a packet means that they are dropped.
    const SILENCE: Duration = Duration::from_millis(100);

    hosts.guarded.sysctl(SETTING, USUAL)?;
    let listener = hosts.guarded.run(|| UdpSocket::bind((G.ipv4, PORT)))?;
    listener.set_nonblocking(true)?;
    let sender = hosts.peer.run(|| UdpSocket::bind((P.ipv4, 0)))?;
    let mut last_heard = None;
    let mut probe = || -> Result<Option<Instant>> {
        let now = Instant::now();
        sender.send_to(b"probe", (G.ipv4, PORT))?;
        while listener.recv(&mut [0; 8]).is_ok() {
            last_heard = Some(now);
        }
        thread::sleep(PAUSE);
        Ok(last_heard)
    };

    let deadline = Instant::now() + PATIENCE;
    while probe()?.is_none() {
        ensure!(
            Instant::now() < deadline,
            "a port outside the range is not reachable"
        );
    }
    let written = Instant::now();
    hosts.guarded.sysctl(SETTING, WIDER)?;
    let last = loop {
        ensure!(
            written.elapsed() < PATIENCE,
            "a wider range is not enforced"
        );
        match probe()? {
            Some(last) if last.elapsed() > SILENCE => break last,
            Some(_) | None => {}
        }
    };
    hosts.guarded.sysctl(SETTING, USUAL)?;
    Ok(last.saturating_duration_since(written).as_secs_f64() * 1e3)
}

/// Kernel memory of a map, for each entry that it has room for.
fn bytes_a_flow(guard: &Guard<'_>, name: &str) -> Result<f64> {
    let pin = pinned(guard, name)?;
    let map = MapData::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
    let fd = map.fd().as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let exact = number(&info, "memlock:")? / number(&info, "max_entries:")?;
    // The map as such takes some hundred bytes more.
    Ok((exact * 10.0).round() / 10.0)
}

/// What the daemon keeps in memory, in MiB.
fn resident(guard: &Guard<'_>) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", guard.pid()))?;
    Ok(number(&status, "VmRSS:")? / 1024.0)
}

/// The number behind a name, in a file of the kernel's.
fn number(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .with_context(|| format!("no {name} in {text}"))?
        .parse()
        .with_context(|| format!("{name} is no number"))
}
