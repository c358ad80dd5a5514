//! Connections on which nothing is said until the far end speaks.

use std::{
    io,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::Result;
use guard_common::outcome::Family;

use crate::{
    frames::P,
    netns::Direct,
    peers::{self, Connection, Exchange, Talk},
};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// Where connections go to.
const CONNECTIONS: u16 = 9000;
/// Where datagrams go to, which is another port for every lot: the server's socket stays.
static EXCHANGES: AtomicU16 = AtomicU16::new(9001);

/// TCP connections and connected UDP sockets of the guarded host.
pub struct Idle {
    talks: Vec<Box<dyn Talk + Send>>,
    next: usize,
}

impl Idle {
    /// Opens so many of each, half of them over IPv6.
    pub fn open(topology: &Direct, connections: usize, exchanges: usize) -> Result<Self> {
        let (host, peer) = (&topology.guarded, &topology.peer);
        allow_open_files()?;
        let asked = EXCHANGES.fetch_add(1, Ordering::Relaxed);
        let mut talks: Vec<Box<dyn Talk + Send>> = Vec::new();
        for family in FAMILIES {
            let server = P.address(family);
            for talk in Connection::open(host, peer, (server, CONNECTIONS), connections / 2)? {
                talks.push(Box::new(talk));
            }
            for talk in Exchange::open(host, peer, (server, asked), true, exchanges / 2)? {
                talks.push(Box::new(talk));
            }
        }
        Ok(Self { talks, next: 0 })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.talks.len()
    }

    /// How many hear what their far ends say, all of which speak first.
    pub fn alive(&mut self, patience: Duration) -> Result<usize> {
        peers::alive(&mut self.talks, patience)
    }

    /// Lets one far end speak, each in its turn, and returns whether it was heard.
    pub fn hears_next(&mut self, patience: Duration) -> Result<bool> {
        let count = self.talks.len();
        let talk = &mut self.talks[self.next % count];
        self.next += 1;
        talk.speak()?;
        Ok(talk.hears(patience))
    }
}

/// Lifts the limit of open files as far as it may be lifted.
pub fn allow_open_files() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is valid for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the structure is valid for the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
