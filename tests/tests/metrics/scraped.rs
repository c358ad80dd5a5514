//! Scrapes, many and malicious.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{Family, Outcome::DropNoFlow};
use guard_tests::{
    crowd,
    frames::udp,
    guard::Guard,
    metrics,
    netns::{Direct, Namespace},
    wire::Wire,
};

use super::hush;

/// How much memory the daemon may gain, in KiB.
const GROWTH: u64 = 5 * 1024;
/// How long a scrape may take, by most of them: the machine has other work.
const SCRAPE: Duration = Duration::from_millis(200);

#[test]
fn m02_garbage_and_crowds_do_no_harm() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let guard = Guard::start(host, topology.interface(), &[])?;
    for _ in 0..10 {
        guard.scrape()?;
    }
    let before = resident(&guard)?;

    for garbage in garbage() {
        say(host, &garbage)?;
    }
    guard.scrape().context("a scrape after garbage")?;

    let slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = host.run(|| TcpStream::connect(metrics::ADDRESS))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX-")?;
            Ok(stream)
        })
        .collect::<Result<_>>()?;
    let took = median(|| guard.scrape().map(drop))?;
    ensure!(took <= SCRAPE, "{took:?} a scrape beside slow clients");
    thread::scope(|scope| {
        let scrapes: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| metrics::get(host, "/metrics")))
            .collect();
        for scrape in scrapes {
            let (code, body) = scrape.join().expect("a scrape ends")?;
            ensure!(code == 200 && body.ends_with("# EOF\n"), "{code}: {body}");
        }
        Ok(())
    })?;
    for mut stream in slow {
        // They are let go of after five seconds: `request` in the server's limits.
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let _ = stream.read_to_end(&mut Vec::new());
    }

    let grown = resident(&guard)?.saturating_sub(before);
    ensure!(grown < GROWTH, "the daemon has grown by {grown} KiB");
    let said = guard.said();
    ensure!(!said.contains("panicked"), "{said}");
    ensure!(guard.stop()?.success(), "the daemon ends well");
    Ok(())
}

/// A process without privileges that opens connections and says nothing, or not all.
#[test]
fn m02_a_crowd_of_slow_clients_delays_nobody() -> Result<()> {
    crowd::most()?;
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let guard = Guard::start(host, topology.interface(), &[])?;
    for said in ["", "GET /metrics HTTP/1.1\r\nX-"] {
        let slow: Vec<TcpStream> = host.run(|| {
            (0..1500)
                .map(|_| {
                    let mut stream = TcpStream::connect(metrics::ADDRESS)?;
                    // It may be closed already.
                    let _ = stream.write_all(said.as_bytes());
                    Ok(stream)
                })
                .collect::<Result<_>>()
        })?;
        let asked = Instant::now();
        guard.scrape()?;
        let took = asked.elapsed();
        println!("M02, 1,500 slow clients that say {said:?}: {took:?}");
        ensure!(
            took < Duration::from_secs(1),
            "{said:?}: a scrape took {took:?}"
        );
        drop(slow);
    }
    ensure!(guard.stop()?.success(), "the daemon ends well");
    Ok(())
}

#[test]
fn m02_a_flood_does_not_delay_scrapes() -> Result<()> {
    let topology = Direct::new()?;
    hush(&topology)?;
    let guard = Guard::start(&topology.guarded, topology.interface(), &[])?;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let frame = udp(53, 40_000).received(Family::Ipv4);
    let (before, done) = (guard.packets()?, AtomicBool::new(false));
    let took = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                wire.send(&frame).expect("the flood flows");
            }
        });
        let took = median(|| guard.scrape().map(drop));
        done.store(true, Ordering::Relaxed);
        flood.join().expect("the flood ends");
        took
    })?;
    let dropped = guard.packets()?.since(&before).of(DropNoFlow);
    ensure!(dropped > 10_000, "{dropped} frames are no flood");
    ensure!(took <= SCRAPE, "{took:?} a scrape");
    Ok(())
}

fn garbage() -> Vec<Vec<u8>> {
    let line = b"GET /metrics HTTP/1.1\r\n".to_vec();
    vec![
        b"\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /metrics HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(9),
        vec![0; 70_000],
        vec![0xff; 70_000],
        [
            b"GET /".to_vec(),
            vec![b'a'; 100_000],
            b" HTTP/1.1\r\n\r\n".to_vec(),
        ]
        .concat(),
        [line.clone(), b"X: y\r\n".repeat(10_000), b"\r\n".to_vec()].concat(),
        [
            line,
            b"Content-Length: 99999999999999999999\r\n\r\n".to_vec(),
        ]
        .concat(),
        b"POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    ]
}

/// Whatever is answered, it is no success, and no silence for ever.
fn say(host: &Namespace, garbage: &[u8]) -> Result<()> {
    let mut stream = host.run(|| TcpStream::connect(metrics::ADDRESS))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // The server may have hung up before the end.
    let _ = stream.write_all(garbage);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let start = &garbage[..garbage.len().min(40)];
    ensure!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{:?} is answered",
        String::from_utf8_lossy(start)
    );
    Ok(())
}

fn median(mut act: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut took = Vec::new();
    for _ in 0..15 {
        let start = Instant::now();
        act()?;
        took.push(start.elapsed());
    }
    took.sort();
    Ok(took[took.len() / 2])
}

/// The memory of the daemon, in KiB.
fn resident(guard: &Guard<'_>) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", guard.pid()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let number = line.split_whitespace().next().context("no number")?;
    Ok(number.parse()?)
}
