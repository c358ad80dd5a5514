//! Y02: queries of sockets that are not connected, which only a record can prove, while what is
//! guarded changes, or how it is recorded.

use std::{
    collections::VecDeque,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    build,
    clients::run,
    frames::{G, P},
    guard::Guard,
    netns::Direct,
    scratch::Scratch,
};

use crate::{MODES, change};

/// Changes of the range there and back, and of the configuration, which take less time.
const ROUNDS: [usize; 2] = [16, 32];
/// How long the far end takes to answer: some answers come after the change, of queries from before.
const THINKS: Duration = Duration::from_millis(12);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Port of the far end.
const SERVER: u16 = 5203;

/// Ports of one range or the other, each once, in no order.
fn ports() -> impl Iterator<Item = u16> {
    const PORTS: u32 = 5001 + 11_000;
    (0..PORTS).map(|number| match number * 7919 % PORTS {
        low @ ..5001 => 40_000 + low as u16,
        high => 50_000 + (high - 5001) as u16,
    })
}

/// Answers each query after a while, until all is over.
fn answer(server: &UdpSocket, over: &AtomicBool) -> Result<()> {
    let mut due: VecDeque<(Instant, SocketAddr)> = VecDeque::new();
    server.set_read_timeout(Some(Duration::from_millis(1)))?;
    while !over.load(Relaxed) {
        if let Ok((_, from)) = server.recv_from(&mut [0; 16]) {
            due.push_back((Instant::now() + THINKS, from));
        }
        while let Some((_, from)) = due.pop_front_if(|(at, _)| *at <= Instant::now()) {
            server.send_to(b"answer", from)?;
        }
    }
    Ok(())
}

/// Whether the answer is there.
fn is_answered(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 16]).is_ok()
}

/// What changes, back and forth.
#[derive(Clone, Copy, Debug)]
enum Changes {
    /// The kernel's range.
    Range,
    /// The configuration, whose text is this or that.
    Configuration([&'static str; 2]),
}

/// Has the guard read another text than is in its file.
fn reload(guard: &Guard, config: &Path, text: &str) -> Result<()> {
    fs::write(config, text)?;
    let mut reload = Command::new(build::binary());
    reload.arg("reload").arg("--control-socket");
    let output = reload.arg(guard.control_socket()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{text}: {said}");
    Ok(())
}

/// Sends queries from one port after the other while something changes back and forth. Returns how
/// many, and how many of them have no answer.
fn query_while(
    changes: Changes,
    alterations: &[&str],
    flags: &[&str],
    family: usize,
) -> Result<(usize, usize)> {
    let (local, peer) = [
        (IpAddr::V4(G.ipv4), IpAddr::V4(P.ipv4)),
        (IpAddr::V6(G.ipv6), IpAddr::V6(P.ipv6)),
    ][family];
    let topology = Direct::new()?;
    let (guest, host) = (&topology.guarded, &topology.peer);
    // What was sent before the first look is known to conntrack alone.
    run(guest, "nft add table inet t")?;
    run(
        guest,
        "nft add chain inet t c { type filter hook output priority 0 ; }",
    )?;
    run(guest, "nft add rule inet t c ct state new accept")?;
    let server = host.run(|| UdpSocket::bind((peer, SERVER)))?;
    let files = Scratch::new()?;
    let config = files.write("portguard.toml", "")?;
    let path = config.display().to_string();
    let flags = [flags, &["--config", &path]].concat();
    let guard = Guard::start_altered(guest, topology.interface(), alterations, &flags)?;
    let alternate = |number: usize| match changes {
        Changes::Range => change(guest, &guard, ["40000 45000", "50000 60999"][number]),
        Changes::Configuration(texts) => reload(&guard, &config, texts[number]),
    };
    alternate(0)?;
    let rounds = ROUNDS[usize::from(!matches!(changes, Changes::Range))];
    let (done, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let ask = || -> Result<(usize, usize)> {
        let (mut open, mut asked, mut lost) = (VecDeque::new(), 0, 0);
        let mut end = |open: &mut VecDeque<(Instant, UdpSocket)>, all: bool| {
            while let Some((since, socket)) = open.pop_front() {
                if is_answered(&socket) {
                    continue;
                }
                if since.elapsed() < PATIENCE && all {
                    thread::sleep(Duration::from_millis(1));
                    open.push_front((since, socket));
                } else if since.elapsed() < PATIENCE {
                    open.push_front((since, socket));
                    break;
                } else {
                    lost += 1;
                }
            }
        };
        for port in ports() {
            if done.load(Relaxed) {
                break;
            }
            let socket = UdpSocket::bind((local, port))?;
            socket.set_nonblocking(true)?;
            socket.send_to(b"query", (peer, SERVER))?;
            open.push_back((Instant::now(), socket));
            asked += 1;
            end(&mut open, false);
            thread::sleep(Duration::from_micros(500));
        }
        end(&mut open, true);
        Ok((asked, lost))
    };
    thread::scope(|scope| {
        let answering = scope.spawn(|| answer(&server, &over));
        let asking = scope.spawn(|| guest.run(ask));
        let changed = (0..rounds).try_for_each(|_| {
            alternate(1)?;
            alternate(0)
        });
        done.store(true, Relaxed);
        let counted = asking.join().expect("it does not panic");
        over.store(true, Relaxed);
        answering.join().expect("it does not panic")?;
        changed?;
        counted
    })
}

/// Shows that every query is answered, and that some are not where none is recorded that begins
/// between the look and the change.
fn every_query_is_answered(changes: Changes) -> Result<()> {
    for (family, mode) in MODES.into_iter().enumerate() {
        let flags = ["--xdp-mode", mode];
        let (asked, lost) = query_while(changes, &[], &flags, family)?;
        println!("Y02, {changes:?}, {mode}: {asked} queries");
        ensure!(
            asked > 1000,
            "Y02, {changes:?}, {mode}: only {asked} queries"
        );
        ensure!(
            lost == 0,
            "Y02, {changes:?}, {mode}: {lost} of {asked} have no answer"
        );
    }
    let without = ["--without", "both-recorded"];
    let (asked, lost) = query_while(changes, &without, &[], 0)?;
    println!("Y02, {changes:?}, control: {lost} of {asked} have no answer");
    ensure!(
        lost > 0,
        "Y02, {changes:?}, control: all of {asked} are answered"
    );
    Ok(())
}

#[test]
fn y02_every_query_is_answered_while_the_range_changes() -> Result<()> {
    every_query_is_answered(Changes::Range)
}

#[test]
fn y02_every_query_is_answered_while_the_filter_changes() -> Result<()> {
    let texts = ["", "udp-filter = \"address\"\n"];
    every_query_is_answered(Changes::Configuration(texts))
}

#[test]
fn y02_every_query_is_answered_while_ports_cease_to_be_exposed() -> Result<()> {
    let texts = ["", "expose = [\"40000-45000/udp\", \"50000-60999/udp\"]\n"];
    every_query_is_answered(Changes::Configuration(texts))
}
