//! Clients that connect or ask, get their answer, and are gone.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;

use super::{
    Figures,
    budget::Budget,
    farm::{GREETING, KEEP_ALIVE, NAMES, PAGE, WEB},
};
use crate::{frames::P, netns::Namespace, peers::unspecified, sent};

/// How long a client waits before it has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// What takes this long has lost a packet: the first retransmission of a SYN comes after a second.
pub const LATE: Duration = Duration::from_millis(900);
/// Failures that are described; the others are only counted.
const MOST_SAID: u64 = 10;

/// What became of clients, counted by all of their threads.
#[derive(Debug, Default)]
pub struct Tally {
    made: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    worst: AtomicU64,
}

impl Tally {
    /// Does one piece of work, and takes note of how it ends.
    pub fn count(&self, what: &str, work: impl FnOnce() -> Result<()>) {
        let began = Instant::now();
        let result = work();
        let took = began.elapsed();
        self.made.fetch_add(1, Ordering::Relaxed);
        if result.is_ok() {
            let took = took.as_micros() as u64;
            self.worst.fetch_max(took, Ordering::Relaxed);
        }
        match result {
            Ok(()) if took < LATE => {}
            Ok(()) => {
                if self.late.fetch_add(1, Ordering::Relaxed) < MOST_SAID {
                    println!("{what}: late, after {} ms", took.as_millis());
                }
            }
            Err(error) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) < MOST_SAID {
                    println!("{what}: {error:#}, after {} ms", took.as_millis());
                }
            }
        }
    }

    /// What was counted so far.
    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            made: read(&self.made),
            failed: read(&self.failed),
            late: read(&self.late),
            worst: Duration::from_micros(read(&self.worst)),
            ..Figures::default()
        }
    }
}

/// Connects from `host` to the peer's web servers, on so many threads, until the budget is spent.
/// Every other connection is closed by the client first, every other pair is of IPv6.
pub fn connect(host: &Namespace, budget: &Budget, threads: usize, tally: &Tally) {
    on_threads(host, threads, |thread| {
        let mut number = thread;
        while budget.take() {
            number += threads;
            let server = SocketAddr::new(
                P.address(family(number / 2)),
                WEB.start + (number / 4 % WEB.len()) as u16,
            );
            tally.count("connection", || get(server, number.is_multiple_of(2)));
        }
    });
}

/// Asks the peer's name server from `host`, likewise, each time from a socket of its own, which
/// is connected or hears everybody.
pub fn query(host: &Namespace, budget: &Budget, threads: usize, tally: &Tally) {
    on_threads(host, threads, |thread| {
        let mut number = thread;
        while budget.take() {
            number += threads;
            let server = SocketAddr::new(P.address(family(number / 2)), NAMES);
            tally.count("query", || ask(server, number.is_multiple_of(2)));
        }
    });
}

fn on_threads(host: &Namespace, threads: usize, work: impl Fn(usize) + Sync) {
    let work = &work;
    host.run(|| {
        thread::scope(|scope| {
            for number in 0..threads {
                scope.spawn(move || work(number));
            }
        });
    });
}

const fn family(number: usize) -> Family {
    if number.is_multiple_of(2) {
        Family::Ipv4
    } else {
        Family::Ipv6
    }
}

fn get(server: SocketAddr, closes: bool) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = [0; GREETING.len()];
    stream
        .read_exact(&mut greeting)
        .context("read the greeting")?;
    ensure!(greeting == GREETING, "another greeting");
    let connection = if closes { KEEP_ALIVE } else { "close" };
    let request = format!("GET / HTTP/1.1\r\nHost: peer\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut page = [0; PAGE.len()];
    stream.read_exact(&mut page).context("read the page")?;
    ensure!(page == PAGE, "a page {:?}", String::from_utf8_lossy(&page));
    if !closes {
        let more = stream.read(&mut page).context("read to the end")?;
        ensure!(more == 0, "more than a page");
    }
    Ok(())
}

fn ask(server: SocketAddr, connected: bool) -> Result<()> {
    const QUERY: &[u8] = b"example.org";

    let socket = UdpSocket::bind((unspecified(server.ip()), 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    sent::hear_of_losses(&socket)?;
    if connected {
        socket.connect(server)?;
    }
    sent::send(&socket, QUERY, server)?;
    let mut answer = [0; 64];
    let began = Instant::now();
    loop {
        let (length, from) = socket.recv_from(&mut answer).context("no answer")?;
        if from == server {
            ensure!(&answer[..length] == QUERY, "another answer");
            return Ok(());
        }
        // As a resolver does: without a guard, an unsolicited datagram may meet an open port.
        ensure!(
            began.elapsed() < PATIENCE,
            "unsolicited senders' answers alone"
        );
    }
}
