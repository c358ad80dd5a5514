//! Beside programs of others that see what the host sends (TC order, traps E5 and H10).

mod clsact;
mod life;
mod rewriting;
mod tcx;

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    bpffs, build,
    frames::P,
    guard::Guard,
    kernel::Kernel,
    metrics,
    netns::{Direct, Namespace},
    peers::{Connection, Exchange, alive, unspecified},
    scratch::Scratch,
};
use socket2::{Domain, Socket, Type};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer is waited for that does not come.
const LOST: Duration = Duration::from_millis(300);
/// Within so long the daemon looks at the interfaces, and has done what there is to do.
const LOOK: Duration = Duration::from_secs(6);

/// Whether the kernel has TCX: <https://github.com/torvalds/linux/commit/e420bed02507>.
fn has_tcx() -> bool {
    !Kernel::new(6, 6).is_missing("TCX")
}

/// Where recording can happen on this kernel.
fn hooks() -> &'static [&'static str] {
    if Kernel::running() < Kernel::new(6, 6) {
        &["clsact"]
    } else {
        &["tcx", "clsact"]
    }
}

/// Asks a few times over each family by sockets that nothing but a record knows of, and says how many
/// of the ten answers come.
fn answered(topology: &Direct, patience: Duration) -> Result<usize> {
    let mut talks = Vec::new();
    for family in FAMILIES {
        let server = (P.address(family), 8081);
        let (host, peer) = (&topology.guarded, &topology.peer);
        talks.extend(Exchange::open(host, peer, server, false, 5)?);
    }
    alive(&mut talks, patience)
}

/// Whether new connections and new questions are answered.
fn require_answers(topology: &Direct, what: &str) -> Result<()> {
    let heard = answered(topology, PATIENCE)?;
    ensure!(heard == 10, "{what}: {heard} of 10 answers over UDP");
    for family in FAMILIES {
        let server = (P.address(family), 8080);
        let opened = Connection::open(&topology.guarded, &topology.peer, server, 2);
        let mut opened = opened.with_context(|| format!("{what}: connect, {family:?}"))?;
        let heard = alive(&mut opened, PATIENCE)?;
        ensure!(heard == 2, "{what}: {heard} of 2 over TCP, {family:?}");
    }
    Ok(())
}

/// Waits until `holds`, or says `what` does not.
fn within(patience: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What `/healthz` answers.
fn health(host: &Namespace) -> Result<u16> {
    Ok(metrics::get(host, "/healthz")?.0)
}

/// What a start says that is to be refused, and its exit code.
fn refused(host: &Namespace, interface: &str, flags: &[&str]) -> Result<(Option<i32>, String)> {
    let pins = bpffs::Folder::new()?;
    let mut start = host.command("/usr/bin/timeout");
    start.args(["5"]).arg(build::binary());
    start.args(["run", "--iface", interface]);
    start.arg("--pin-dir").arg(pins.path());
    let files = Scratch::new()?;
    start.arg("--control-socket");
    start.arg(files.file("control.sock")).args(flags);
    said(&mut start)
}

fn said(command: &mut Command) -> Result<(Option<i32>, String)> {
    let output = command.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

/// What `portguard check` prints with these flags.
fn checked(host: &Namespace, interface: &str, flags: &[&str]) -> Result<(Option<i32>, String)> {
    let mut check = host.command(build::binary());
    said(check.args(["check", "--iface", interface]).args(flags))
}

/// What `portguard status` prints about a guard.
fn status(host: &Namespace, guard: &Guard<'_>) -> Result<String> {
    let mut status = host.command(build::binary());
    status.arg("status").arg("--control-socket");
    Ok(said(status.arg(guard.control_socket()))?.1)
}

/// A port of the range that a program changes to another, and that one.
const PORTS: (u16, u16) = (42_001, 43_002);

/// Asks by UDP from the first of the ports, and says whether the question came from `port`, and its answer
/// was heard.
fn question_from_another_port(topology: &Direct, family: Family, port: u16) -> Result<bool> {
    let server = topology
        .peer
        .run(|| UdpSocket::bind((P.address(family), 8081)))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let local = unspecified(P.address(family));
    let client = topology.guarded.run(|| UdpSocket::bind((local, PORTS.0)))?;
    client.set_read_timeout(Some(LOST))?;
    client.send_to(b"query", (P.address(family), 8081))?;
    let (_, from) = server.recv_from(&mut [0; 16]).context("no query")?;
    ensure!(from.port() == port, "it came from {from}");
    server.send_to(b"answer", from)?;
    Ok(client.recv(&mut [0; 16]).is_ok())
}

/// Connects likewise by TCP.
fn connection_from_another_port(topology: &Direct, family: Family) -> Result<bool> {
    let address = SocketAddr::new(P.address(family), 8080);
    let _listener = topology.peer.run(|| TcpListener::bind(address))?;
    let local = SocketAddr::new(unspecified(address.ip()), PORTS.0);
    topology.guarded.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
        // No TIME_WAIT is to be in the way of the next.
        socket.set_linger(Some(Duration::ZERO))?;
        Ok(socket.connect_timeout(&address.into(), LOST).is_ok())
    })
}
