//! Two hosts, clients on the one and servers on the other, and an unsolicited sender between them.

use std::{
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    frames::N,
    guard::Guard,
    netns::Direct,
    soak::{self, Budget, Farm, Figures, Tally, Tap, UnsolicitedSender},
    wire::{Acceptor, Listener, QUIET},
};

/// Guarded ports that somebody listens on, by UDP and TCP. Every range of the scenarios has them.
pub const TARGETS: [u16; 4] = [42_000, 43_000, 44_000, 45_000];
/// Clients that connect at a time.
const CLIENTS: usize = 8;

/// One scenario at a time: they measure how long things take.
static TURN: Mutex<()> = Mutex::new(());

/// What runs beside an act.
#[derive(Debug)]
pub struct Load {
    /// Connections that are opened, used and closed.
    pub connections: Budget,
    /// Queries that are answered.
    pub queries: Budget,
    /// Frames of an unsolicited sender.
    pub strange: Budget,
    /// The ports that they go to, which are guarded all the while.
    pub ports: RangeInclusive<u16>,
}

impl Load {
    fn end(&self) {
        for budget in [&self.connections, &self.queries, &self.strange] {
            budget.end();
        }
    }
}

/// The hosts.
pub struct Lab {
    pub topology: Direct,
    listeners: Vec<Listener>,
    acceptors: Vec<Acceptor>,
    tap: Tap,
    _farm: Farm,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    pub fn new() -> Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        soak::allow_open_files()?;
        let topology = Direct::new()?;
        let host = &topology.guarded;
        // Who answers the unsolicited sender need not ask for it.
        for address in [N.ipv4.to_string(), N.ipv6.to_string()] {
            host.ip(&format!(
                "neigh replace {address} lladdr 02:00:00:00:00:03 dev vg nud permanent"
            ))?;
        }
        let listen = |port: &u16| Listener::new(host, *port);
        let accept = |port: &u16| Acceptor::new(host, *port);
        Ok(Self {
            listeners: TARGETS.iter().map(listen).collect::<Result<_>>()?,
            acceptors: TARGETS.iter().map(accept).collect::<Result<_>>()?,
            tap: Tap::new(host, topology.interface(), &N)?,
            _farm: Farm::start(&topology.peer)?,
            topology,
            _turn: turn,
        })
    }

    pub fn guard(&self, flags: &[&str]) -> Result<Guard<'_>> {
        Guard::start(&self.topology.guarded, self.topology.interface(), flags)
    }

    pub fn guard_altered(&self, alterations: &[&str], flags: &[&str]) -> Result<Guard<'_>> {
        let (host, interface) = (&self.topology.guarded, self.topology.interface());
        Guard::start_altered(host, interface, alterations, flags)
    }

    /// Runs a load until `act` has ended.
    pub fn beside(&self, load: &Load, act: impl FnOnce() -> Result<()>) -> Result<Figures> {
        let began = Instant::now();
        let (host, peer) = (&self.topology.guarded, &self.topology.peer);
        let passed = self.tap.passed()?;
        let mut unsolicited = UnsolicitedSender::new(
            (peer, self.topology.peer_interface()),
            load.ports.clone(),
            &TARGETS,
        )?;
        let tally = Tally::default();
        let (acted, strange) = thread::scope(|scope| {
            scope.spawn(|| soak::connect(host, &load.connections, CLIENTS, &tally));
            scope.spawn(|| soak::query(host, &load.queries, 1, &tally));
            let strange = scope.spawn(|| unsolicited.send(&load.strange));
            let acted = act();
            load.end();
            (
                acted,
                strange
                    .join()
                    .expect("an unsolicited sender does not panic"),
            )
        });
        acted?;

        let heard = self.heard();
        let leaked = self.tap.passed()? - passed;
        ensure!(
            heard <= leaked,
            "{heard} heard of {leaked} that got through"
        );
        Ok(Figures {
            strange: strange?,
            leaked,
            took: began.elapsed(),
            ..tally.figures()
        })
    }

    /// What listeners on guarded ports have heard.
    fn heard(&self) -> u64 {
        thread::sleep(QUIET);
        let at_once = Duration::from_millis(1);
        let datagrams = self.listeners.iter().map(|each| each.delivered(at_once));
        let connections = self.acceptors.iter().map(|each| each.accepted(at_once));
        datagrams.chain(connections).sum::<usize>() as u64
    }
}
