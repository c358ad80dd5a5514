//! What a daemon does long after it has given up its privileges.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{PassKnownFlow, PassOutsideRange},
};
use guard_tests::{
    bad_input::Capability,
    capabilities::{self, Capabilities},
    frames::{P, udp},
    guard::Guard,
    netns::Namespace,
    peers::{Exchange, Talk},
    scratch::Scratch,
    wire::Wire,
};
use guard_userspace::api::control::{self, Client};

use super::{Lab, PATIENCE, PORT, egress_hooks, hooks, interfaces};

/// How long a new listener may stay unnoticed: they are looked for every 5 s.
const NOTICED: Duration = Duration::from_secs(15);
const NOBODY: u32 = 65_534;

/// A program that listens.
struct Listening(Child);

impl Listening {
    fn start(host: &Namespace, port: u16, user: u32) -> Result<Self> {
        // It opens the socket itself: who has it open when it is found is who is named.
        let program = host.run(|| {
            Command::new("socat")
                .args([&format!("TCP4-LISTEN:{port}"), "PIPE"])
                .uid(user)
                .spawn()
        });
        Ok(Self(program.context("run socat")?))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the daemon has said this.
fn says(guard: &Guard, part: &str, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !guard.said().contains(part) {
        ensure!(Instant::now() < deadline, "no {part:?}: {}", guard.said());
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// No thread has anything but what it takes to attach.
fn is_humble(guard: &Guard) -> Result<()> {
    let kept = Capability::NetAdmin.bit() | Capability::Bpf.bit();
    for capabilities in Capabilities::of_threads(guard.pid())? {
        ensure!(
            capabilities.permitted == kept,
            "it may do more: {capabilities:x?}"
        );
    }
    Ok(())
}

#[test]
fn a_humble_daemon_does_all_that_it_is_there_for() -> Result<()> {
    for hook in egress_hooks() {
        let lab = Lab::new()?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let files = Scratch::new()?;
        let config = files.write("portguard.toml", "")?;
        let path = config.display().to_string();
        let flags = ["--egress-hook", hook, "--config", &path];
        let mut guard = lab.guard(&flags)?;
        is_humble(&guard)?;
        let row = |what: &str| format!("{hook}: {what}");

        // Anyone who comes later, of root's and of somebody else's.
        let later = [(0, 41_000), (NOBODY, 41_001)];
        let start = |&(user, port)| Ok((Listening::start(host, port, user)?, port));
        for (program, port) in later.iter().map(start).collect::<Result<Vec<_>>>()? {
            knows(&guard, port, program.0.id()).with_context(|| row("listener"))?;
        }

        host.ip("link del vg")?;
        thread::sleep(Duration::from_millis(300));
        lab.topology.connect()?;
        interfaces::guarded_again(&guard, host, "vg").with_context(|| row("interface"))?;
        interfaces::works(&lab.topology, &lab.listener, "vg")?;

        host.sysctl("net/ipv4/ip_local_port_range", "45000 50000")?;
        says(&guard, "port range 32768-60999 -> 45000-50000", PATIENCE)
            .with_context(|| row("range"))?;
        let wire = Wire::open(peer, lab.topology.peer_interface())?;
        guard.expect([(PassOutsideRange, 1)], || {
            wire.send(&udp(53, PORT).received(Family::Ipv4))
        })?;
        host.sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
        says(&guard, "-> 32768-60999", PATIENCE).with_context(|| row("range"))?;

        fs::write(&config, "expose = [\"40001/udp\"]\n")?;
        guard.signal(libc::SIGHUP);
        says(&guard, "reloaded: ", PATIENCE).with_context(|| row("reload"))?;
        is_humble(&guard)?;

        let server = P.address(Family::Ipv4);
        let mut talk = Exchange::open(host, peer, (server, 8090), false, 1)?.remove(0);
        guard.kill()?;
        guard.start_again(&[&flags[..], &["--no-rescue"]].concat())?;
        is_humble(&guard)?;
        guard.expect([(PassKnownFlow, 1)], || {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{}", row("a flow is lost"));
            Ok(())
        })?;

        ensure!(guard.end()?.success(), "{}", guard.said());
        ensure!(hooks::egress(host, "vg")? == 0, "{}", row("egress stays"));
        ensure!(hooks::xdp(host, "vg")?.is_none(), "{}", row("XDP stays"));
        ensure!(!guard.pins().exists(), "{}", row("pins stay"));
    }
    Ok(())
}

/// Sends a signal to processes that the daemon has started.
fn signal(processes: &[u32], signal: libc::c_int) {
    for process in processes {
        // SAFETY: no memory is involved, and the process is one that this test's daemon started.
        unsafe { libc::kill(*process as libc::pid_t, signal) };
    }
}

/// Waits until the daemon knows which process listens on a port.
fn knows(guard: &Guard, port: u16, process: u32) -> Result<()> {
    let client = Client::new(&guard.control_socket());
    let deadline = Instant::now() + NOTICED;
    loop {
        let status = client.status()?;
        let named = |listener: &control::ListenerJson| {
            listener.port == port && listener.pid == Some(process)
        };
        if status.listeners.iter().any(named) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{port}, {process}: {:?}: {}",
            status.listeners,
            guard.said()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whichever of the processes ends that name listeners, another takes its place.
#[test]
fn who_names_listeners_is_started_again() -> Result<()> {
    let lab = Lab::new()?;
    let host = &lab.topology.guarded;
    let mut guard = lab.guard(&[])?;
    let names = ["portguard-names", "portguard-walks"];
    // Who ends twice in a row is started again a moment later.
    for (port, name) in (41_000..).zip([names[0], names[1], names[1], names[0]]) {
        let deadline = Instant::now() + NOTICED;
        let (killed, other) = loop {
            let all = capabilities::descendants(guard.pid());
            let (killed, other): (Vec<u32>, Vec<u32>) = all
                .into_iter()
                .partition(|process| capabilities::name(*process).as_deref() == Some(name));
            if killed.len() == 1 && other.len() == 1 {
                break (killed, other);
            }
            ensure!(Instant::now() < deadline, "{name}: {killed:?}, {other:?}");
            thread::sleep(Duration::from_millis(5));
        };
        ensure!(
            capabilities::children(guard.pid()).len() == 1,
            "{name}: {killed:?}, {other:?}"
        );
        signal(&killed, libc::SIGKILL);
        let program = Listening::start(host, port, 0)?;
        knows(&guard, port, program.0.id()).with_context(|| name.to_owned())?;
    }
    let left = capabilities::descendants(guard.pid());
    ensure!(left.len() == 2, "{left:?}");
    ensure!(guard.end()?.success(), "{}", guard.said());
    ensure!(
        !left.iter().any(|process| capabilities::runs(*process)),
        "{left:?}"
    );
    Ok(())
}

/// The processes that name listeners are gone: that is said, and everything else goes on.
#[test]
fn a_daemon_that_can_name_nobody_guards_on() -> Result<()> {
    let lab = Lab::new()?;
    let host = &lab.topology.guarded;
    let mut guard = lab.guard(&[])?;
    // So that none of them can start another.
    let processes = capabilities::descendants(guard.pid());
    signal(&processes, libc::SIGSTOP);
    signal(&processes, libc::SIGKILL);
    let _program = Listening::start(host, 41_000, 0)?;
    let lost = "the processes that name listeners are gone";
    says(&guard, lost, NOTICED)?;
    says(&guard, "tcp port 41000 (unknown process)", NOTICED)?;
    lab.topology.guarded.ip("link del vg")?;
    thread::sleep(Duration::from_millis(300));
    lab.topology.connect()?;
    interfaces::guarded_again(&guard, host, "vg")?;
    interfaces::works(&lab.topology, &lab.listener, "vg")?;
    ensure!(guard.said().matches(lost).count() == 1, "{}", guard.said());
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}
