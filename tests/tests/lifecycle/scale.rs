//! What a daemon needs of a host that is large, or that gives it little; and one that does nothing.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    build,
    frames::udp,
    guard::Guard,
    metrics,
    netns::Direct,
    scratch::Scratch,
    wire::{Listener, Wire},
};

use super::{Lab, PATIENCE, PORT, interfaces};

/// Interfaces that one guard serves at most.
const MOST: usize = 32;
/// Descriptors of a guard that is idle: far from what a login shell allows.
const IDLE: usize = 256;

/// A guard of as many interfaces as there can be has room for slow clients, and follows the range
/// beside them, with as many files as a login shell allows.
#[test]
fn many_interfaces_leave_room_for_what_matters() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let mut flags = vec!["--xdp-mode".to_owned(), "generic".to_owned()];
    for number in 1..MOST {
        host.ip(&format!("link add m{number} type veth peer name n{number}"))?;
        host.ip(&format!("link set m{number} up"))?;
        flags.extend(["--iface".to_owned(), format!("m{number}")]);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let listener = Listener::new(host, PORT)?;
    let guard = Guard::start_with(host, topology.interface(), &flags, |daemon| {
        limit_files(daemon, 1024);
    })?;
    let idle = descriptors(&guard)?;
    println!("{MOST} interfaces: {idle} descriptors");
    ensure!(idle < IDLE, "{idle} descriptors when idle");

    let slow: Vec<TcpStream> = host.run(|| {
        (0..100)
            .map(|_| {
                let mut stream = TcpStream::connect(metrics::ADDRESS)?;
                stream.write_all(b"GET /metrics HTTP/1.1\r\nX-")?;
                Ok(stream)
            })
            .collect::<Result<_>>()
    })?;
    for (range, opens) in [("50000 60999", true), ("32768 60999", false)] {
        host.sysctl("net/ipv4/ip_local_port_range", range)?;
        let began = Instant::now();
        loop {
            wire.send(&udp(53, PORT).received(Family::Ipv4))?;
            if (listener.delivered(Duration::from_millis(20)) == 1) == opens {
                break;
            }
            ensure!(began.elapsed() < PATIENCE, "{range}: {}", guard.said());
        }
    }
    drop(slow);
    ensure!(guard.stop()?.success(), "it does not end well");
    Ok(())
}

/// Anyone who asks a daemon that is stopped hears of it soon.
#[test]
fn a_stopped_daemon_is_given_up_soon() -> Result<()> {
    let lab = Lab::new()?;
    let mut guard = lab.guard(&[])?;
    guard.signal(libc::SIGSTOP);
    for words in ["status", "flows"] {
        let began = Instant::now();
        let output = Command::new(build::binary())
            .arg(words)
            .arg("--control-socket")
            .arg(guard.control_socket())
            .output()?;
        let (took, said) = (began.elapsed(), String::from_utf8_lossy(&output.stderr));
        ensure!(took < Duration::from_secs(4), "{words}: {took:?}");
        let named = format!("process {} is stopped", guard.pid());
        let right = output.status.code() == Some(1) && said.contains(&named);
        ensure!(right, "{words}: {}: {said}", output.status);
    }
    guard.signal(libc::SIGCONT);
    interfaces::works(&lab.topology, &lab.listener, "vg")
}

/// The service manager hears of a daemon while it works, and not while it does nothing.
#[test]
fn the_watchdog_is_fed_by_a_daemon_that_works() -> Result<()> {
    let topology = Direct::new()?;
    let files = Scratch::new()?;
    let socket = files.file("watchdog");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut guard = Guard::start_with(&topology.guarded, topology.interface(), &[], |daemon| {
        daemon
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "900000");
    })?;
    let mut message = [0; 256];
    let mut hear = |part: &str| -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let length = manager.recv(&mut message).context("nothing is heard")?;
            if String::from_utf8_lossy(&message[..length]).contains(part) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no {part}");
        }
    };
    hear("READY=1")?;
    for _ in 0..5 {
        hear("WATCHDOG=1")?;
    }
    guard.signal(libc::SIGSTOP);
    // What it has said before it stopped may still be heard.
    let silent = (0..20).any(|_| hear("WATCHDOG=1").is_err());
    guard.signal(libc::SIGCONT);
    ensure!(silent, "a stopped daemon is heard");
    hear("WATCHDOG=1")?;
    ensure!(guard.end()?.success(), "it does not end well");
    Ok(())
}

/// Has a process begin with this limit of open files.
fn limit_files(daemon: &mut Command, files: u64) {
    use std::os::unix::process::CommandExt;

    let limit = libc::rlimit {
        rlim_cur: files,
        rlim_max: files,
    };
    let set = move || {
        // SAFETY: the limit outlives the call.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { daemon.pre_exec(set) };
}

fn descriptors(guard: &Guard) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", guard.pid()))?.count())
}
