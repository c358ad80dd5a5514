//! What is logged, how it is told to the journal, and what is said about a guard that leaves much open.

use std::{
    fs,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    bad_input::Host,
    frames::udp,
    guard::Guard,
    metrics,
    netns::Direct,
    wire::{Listener, Wire},
};
use serde_json::Value;

use super::{PATIENCE, PORT};

/// The whole line that starts so.
fn line<'a>(said: &'a str, start: &str) -> Result<&'a str> {
    said.lines()
        .find(|line| line.starts_with(start))
        .with_context(|| format!("no {start:?}: {said}"))
}

#[test]
fn a_guard_that_drops_nothing_does_not_say_that_it_guards() -> Result<()> {
    let host = Host::new()?;
    let mut daemon = host
        .run(&["--xdp-mode", "native", "--mode", "monitor"])
        .says("monitoring vg (")?;
    ensure!(!daemon.said().contains("guarding"), "{}", daemon.said());
    ensure!(
        daemon.said().contains(": nothing is dropped\n"),
        "{}",
        daemon.said()
    );
    let socket = host.files().join("control.sock").display().to_string();
    let status = ["status", "--control-socket", &socket];
    let (_, printed) = host.attempt(&status).output()?;
    ensure!(printed.starts_with("monitoring vg ("), "{printed}");
    daemon.wait_until_it_says("monitoring")?;
    daemon.stop()?;

    let flags = [
        "--trust",
        "0.0.0.0/1",
        "--trust",
        "128.0.0.0/1",
        "--trust",
        "fd00::/8",
        "--expose",
        "22/tcp",
        "--range",
        "40000-40010",
        "--expose",
        "39000-41000/udp",
    ];
    let said = [
        "warning: trust names every IPv4 host",
        "warning: exposed 22/tcp: not in the range 40000-40010",
        "warning: every UDP port of 40000-40010 is exposed or reserved",
    ];
    let mut daemon = host.run(&flags).says("guarding vg")?;
    for part in said {
        daemon.wait_until_it_says(part)?;
    }
    let log = daemon.said();
    let start = line(&log, "guarding vg")?;
    let trusting = ", ports 40000-40010, trusting 0.0.0.0/1, 128.0.0.0/1, fd00::/8";
    ensure!(start.ends_with(trusting), "{start}");
    let (_, printed) = host.attempt(&status).output()?;
    ensure!(
        printed.contains("\ntrust     0.0.0.0/1 128.0.0.0/1 fd00::/8\n"),
        "{printed}"
    );
    let (_, printed) = host.attempt(&status).flags(&["--json"]).output()?;
    let status: Value = serde_json::from_str(&printed)?;
    ensure!(status["trust"][2] == "fd00::/8", "{printed}");
    daemon.stop()?;

    let (code, printed) = host
        .attempt(&["check", "--iface", "vg"])
        .flags(&flags)
        .output()?;
    ensure!(code == Some(0), "{printed}");
    for part in said {
        let part = part.replace("warning: ", "note     configuration  ");
        ensure!(printed.contains(&part), "{part}: {printed}");
    }
    host.require_clean()
}

#[test]
fn an_end_says_what_it_has_left() -> Result<()> {
    let host = Host::new()?;
    for (flags, left) in [
        (&[][..], "\nvg: detached (XDP, egress)\n"),
        (&["--keep-attached"], "\nvg: left in force (XDP, egress)"),
    ] {
        let daemon = host.run(flags).keeps_guarding()?;
        let log = daemon.log().to_owned();
        daemon.stop()?;
        let said = fs::read_to_string(log)?;
        let stopping = said.find("\nstopping: SIGTERM\n").context(said.clone())?;
        ensure!(said[stopping..].contains(left), "{said}");
    }
    host.run(&[]).guards()
}

#[test]
fn lines_are_json_and_few_where_that_is_asked_for() -> Result<()> {
    let host = Host::new()?;
    let file = host.write("guard.toml", "log-format = \"json\"\niface = [\"eth7\"]\n")?;
    let config = ["--config", &file.display().to_string()];
    // On a veth, the mode that is chosen else has a warning, and so has the hook before Linux 6.6.
    let native = ["--xdp-mode", "native", "--egress-hook", "clsact"];
    let daemon = host.run(&native).flags(&config).says("\"guarding vg")?;
    let log = daemon.log().to_owned();
    daemon.stop()?;
    let said = fs::read_to_string(log)?;
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| said.clone())?;
        let time = line["time"].as_str().unwrap_or_default();
        ensure!(time.ends_with('Z') && time.len() == 24, "{said}");
        ensure!(line["level"] == "info", "{said}");
        ensure!(line["message"].is_string(), "{said}");
    }

    for (flags, all) in [
        (&["--log-level", "error"][..], true),
        (
            &[
                "--xdp-mode",
                "native",
                "--egress-hook",
                "clsact",
                "--log-level",
                "warning",
                "--trust",
                "::/0",
            ],
            false,
        ),
    ] {
        let daemon = host.run(flags).starts()?;
        // A start that is ended by a signal need not say what it would have.
        let answers = || metrics::get(&host.topology.guarded, "/healthz");
        while !matches!(answers(), Ok((200, _))) {
            thread::sleep(Duration::from_millis(20));
        }
        let log = daemon.log().to_owned();
        daemon.stop()?;
        let said = fs::read_to_string(log)?;
        let others = said
            .lines()
            .filter(|line| !line.starts_with("warning: trust"));
        ensure!(
            others.count() == 0 && said.is_empty() == all,
            "{flags:?}: {said}"
        );
    }
    host.require_clean()
}

#[test]
fn the_journal_is_told_how_much_a_line_matters() -> Result<()> {
    const AS_THE_JOURNAL: &str =
        "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";

    let host = Host::new()?;
    let daemon = host
        .run_by("/bin/sh", &["-c", AS_THE_JOURNAL])
        .flags(&["--trust", "::/0"])
        .says("<6>guarding vg")?;
    let log = daemon.log().to_owned();
    daemon.stop()?;
    let said = fs::read_to_string(log)?;
    for part in [
        "<6>existing flows: ",
        "<4>warning: trust names",
        "<6>stopping: SIGTERM",
    ] {
        line(&said, part)?;
    }
    host.run_by("/bin/sh", &["-c", AS_THE_JOURNAL])
        .flags(&["--egress-iface", "lo"])
        .is_refused(69, &["<3>lo: loopback interface"])
}

/// A program reads the log and stands still, from before the start. The guard comes into force, follows
/// the range and ends as ever, and what it has to say is said when the program reads on.
#[test]
fn a_reader_that_stands_still_delays_nothing() -> Result<()> {
    /// From a signal to the end of the process.
    const END: Duration = Duration::from_secs(2);

    let topology = Direct::new()?;
    let host = &topology.guarded;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let listener = Listener::new(host, PORT)?;
    let (mut reader, mut writer) = small_pipe()?;
    fill(&mut writer)?;
    let stderr = writer.try_clone()?;
    let mut guard = Guard::start_with(host, topology.interface(), &[], |daemon| {
        daemon.stderr(stderr);
    })?;
    let follows = |range: &str, opens: bool| -> Result<()> {
        host.sysctl("net/ipv4/ip_local_port_range", range)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            wire.send(&udp(53, PORT).received(Family::Ipv4))?;
            if (listener.delivered(Duration::from_millis(20)) == 1) == opens {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{range} is not in force");
        }
    };
    follows("50000 60999", true)?;
    follows("32768 60999", false)?;

    let mut said = String::new();
    let deadline = Instant::now() + PATIENCE;
    while !(said.contains("\nguarding vg (") && said.contains("50000-60999")) {
        let mut bytes = [0; 4096];
        match reader.read(&mut bytes) {
            Ok(read) => said.push_str(&String::from_utf8_lossy(&bytes[..read])),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        ensure!(Instant::now() < deadline, "it says nothing: {said}");
    }
    ensure!(!said.contains("lost"), "{said}");

    fill(&mut writer)?;
    follows("50000 60999", true)?;
    follows("32768 60999", false)?;
    let began = Instant::now();
    ensure!(guard.end()?.success(), "it does not end well");
    let took = began.elapsed();
    ensure!(took < END, "it ends after {took:?}");
    Ok(())
}

/// A pipe of a page, whose reader does not wait.
fn small_pipe() -> Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: no memory is involved, and both ends are open.
    let sized = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    ensure!(sized == 4096, "a pipe of {sized} bytes");
    waits(&reader, false)?;
    Ok((reader, writer))
}

/// Whether who uses this end of a pipe waits.
fn waits(end: &impl AsRawFd, waits: bool) -> Result<()> {
    let flags = if waits { 0 } else { libc::O_NONBLOCK };
    // SAFETY: no memory is involved, and the end is open.
    let set = unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, flags) };
    ensure!(set == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// Writes until there is no room.
fn fill(writer: &mut PipeWriter) -> Result<()> {
    waits(writer, false)?;
    while writer.write(b".").is_ok() {}
    waits(writer, true)
}
