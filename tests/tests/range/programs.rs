//! Y01: what is said about programs that listen, and about those that only seem to.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    frames::{G, P},
    guard::Guard,
    netns::{Direct, Namespace},
    peers::{Connection, Talk},
    scratch::Scratch,
    wire::QUIET,
};

use crate::{MODES, blocked};

/// How long it may take until a program is named: two looks, and its name.
const NAMED: Duration = Duration::from_secs(13);
/// How long a UDP socket is silent until it is one of a server.
const SILENT: Duration = Duration::from_secs(18);
/// How long a port may stay open behind its listener.
const WITHDRAWN: Duration = Duration::from_secs(5);

/// A program that runs until it is dropped.
struct Program(Child);

impl Program {
    fn start(host: &Namespace, line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let mut command = host.command(words.next().context("a program")?);
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(Self(command.stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until what the guard has said is as wanted.
fn says(guard: &Guard, patience: Duration, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !wanted(&guard.said()) {
        ensure!(Instant::now() < deadline, "it says {}", guard.said());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn lines_about(said: &str, program: &str) -> usize {
    let about = |line: &&str| line.contains(&format!("({program}, "));
    said.lines().filter(about).count()
}

#[test]
fn y01_what_sends_is_a_client_and_what_waits_has_one_line_a_program() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let guard = Guard::start(host, topology.interface(), &[])?;
    // Two processes that wait, and one socket that sends to anyone who does not answer.
    let _servers = [
        Program::start(host, "socat -u UDP6-RECV:45200 STDOUT")?,
        Program::start(host, "socat -u UDP6-RECV:45204 STDOUT")?,
    ];
    let client = host.run(|| UdpSocket::bind(("0.0.0.0", 45_300)))?;
    let deadline = Instant::now() + SILENT;
    while blocked(&guard)? != 2 {
        ensure!(Instant::now() < deadline, "{}", guard.said());
        client.send_to(b"anybody there?", (P.ipv4, 9))?;
        thread::sleep(Duration::from_millis(500));
    }
    says(&guard, NAMED, |said| lines_about(said, "socat") > 0)?;
    let said = guard.said();
    ensure!(lines_about(&said, "socat") == 1, "{said}");
    for flag in ["--expose 45200/udp", "--expose 45204/udp"] {
        ensure!(said.contains(flag), "{flag}: {said}");
    }
    ensure!(
        !said.contains("45300"),
        "a client is taken for a server: {said}"
    );
    Ok(())
}

#[test]
fn y01_a_program_whose_port_changes_is_not_told_to_expose_it() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let guard = Guard::start(host, topology.interface(), &[])?;
    {
        let _first = Program::start(host, "socat TCP6-LISTEN:0,fork STDOUT")?;
        says(&guard, NAMED, |said| lines_about(said, "socat") == 1)?;
        let said = guard.said();
        ensure!(
            said.contains("a port that was not set explicitly"),
            "{said}"
        );
    }
    let _second = Program::start(host, "socat TCP6-LISTEN:0,fork STDOUT")?;
    says(&guard, NAMED, |said| lines_about(said, "socat") == 2)?;
    let said = guard.said();
    let second = said.lines().filter(|line| line.contains("(socat, ")).nth(1);
    let second = second.context("a second line")?;
    let right = second.contains("its ports change") && !second.contains("--expose");
    ensure!(right, "{second}");
    Ok(())
}

fn connect(host: &Namespace, address: SocketAddr) -> std::io::Result<TcpStream> {
    host.run(|| TcpStream::connect_timeout(&address, QUIET))
}

#[test]
fn y01_a_port_is_exposed_for_as_long_as_something_listens() -> Result<()> {
    for mode in MODES {
        for own in [IpAddr::V4(G.ipv4), IpAddr::V6(G.ipv6)] {
            let topology = Direct::new()?;
            let (host, peer) = (&topology.guarded, &topology.peer);
            let address = SocketAddr::new(own, 45_000);
            let flags = ["--xdp-mode", mode, "--no-rescue", "--listeners", "expose"];
            let guard = Guard::start(host, topology.interface(), &flags)?;
            let row = || format!("Y01, {mode}, {own}");
            let silent = connect(peer, address).map_err(|error| error.kind());
            let dropped = matches!(silent, Err(std::io::ErrorKind::TimedOut));
            ensure!(dropped, "{}: before anything listens: {silent:?}", row());

            for round in 0..2 {
                let listener = host.run(|| TcpListener::bind(address))?;
                let began = Instant::now();
                let far = loop {
                    match connect(peer, address) {
                        Ok(far) => break far,
                        Err(error) => ensure!(
                            began.elapsed() < Duration::from_secs(2),
                            "{}, {round}: {error}: {}",
                            row(),
                            guard.said()
                        ),
                    }
                };
                let (near, _) = listener.accept()?;
                drop(listener);
                let ended = Instant::now();
                loop {
                    // Without a guard before it, a port on which nothing listens answers.
                    match connect(peer, address) {
                        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => break,
                        other => ensure!(
                            ended.elapsed() < WITHDRAWN,
                            "{}, {round}: still open: {other:?}",
                            row()
                        ),
                    }
                }
                let mut session = Connection {
                    client: near,
                    server: far,
                };
                session.speak().with_context(row)?;
                ensure!(session.hears(QUIET), "{}: accepted and cut off", row());
            }
        }
    }
    Ok(())
}

/// A program may be called whatever its file is.
#[test]
fn y01_a_name_with_a_line_end_forges_no_line() -> Result<()> {
    const NAME: &str = "x\nerror: forged";
    const SHOWN: &str = "x?error: forged";

    let topology = Direct::new()?;
    let host = &topology.guarded;
    let scratch = Scratch::new()?;
    let file = scratch.file(NAME);
    std::fs::copy("/usr/bin/socat", &file).context("copy socat")?;
    let mut command = host.command(&file);
    command
        .args(["TCP-LISTEN:40000", "OPEN:/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _program = Program(command.spawn()?);
    for format in ["text", "json"] {
        let guard = Guard::start(host, topology.interface(), &["--log-format", format])?;
        says(&guard, NAMED, |said| said.contains(SHOWN))?;
        let said = guard.said();
        let forged = |text: &str| text.lines().any(|line| line.starts_with("error: forged"));
        ensure!(!forged(&said), "{said}");
        for line in said.lines().filter(|_| format == "json") {
            let line: serde_json::Value = serde_json::from_str(line).context(said.clone())?;
            ensure!(line["message"].is_string(), "{said}");
        }
        // Every line is a sample.
        guard.scrape()?;

        let status = |more: &[&str]| -> Result<String> {
            let mut command = host.command(guard_tests::build::binary());
            command.arg("status").arg("--control-socket");
            let output = command.arg(guard.control_socket()).args(more).output()?;
            Ok(String::from_utf8(output.stdout)?)
        };
        let printed = status(&[])?;
        ensure!(printed.contains(SHOWN) && !forged(&printed), "{printed}");
        let printed = status(&["--json"])?;
        let answer: serde_json::Value = serde_json::from_str(&printed)?;
        ensure!(printed.lines().count() == 1, "{printed}");
        let process = answer["listeners"][0]["process"].as_str();
        ensure!(process == Some(NAME) || process == Some(SHOWN), "{printed}");
    }
    Ok(())
}
