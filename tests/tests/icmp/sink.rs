//! A web server that takes uploads, and answers with their length.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use guard_tests::netns::Namespace;

/// Serves until it is dropped.
pub struct Sink {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on port 80 of a host.
    pub fn new(host: &Namespace) -> Result<Self> {
        let listener = host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    // An upload that stalls is what the client reports.
                    Ok((stream, _)) => drop(thread::spawn(move || take(stream))),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn take(stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut answer = stream.try_clone()?;
    let mut request = BufReader::new(stream);
    let mut length = None;
    loop {
        let mut line = String::new();
        request.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length:") {
            length = Some(value.trim().parse::<u64>()?);
        }
    }
    let length = length.context("no length")?;
    let taken = std::io::copy(&mut request.take(length), &mut std::io::sink())?.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", taken.len());
    answer.write_all((head + &taken).as_bytes())?;
    Ok(())
}
