//! A daemon that is killed between the look at the sockets and the flip: egress goes on recording what
//! either policy guards, and nothing is lost, neither while no daemon runs nor after the next start.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    frames::{G, P},
    guard::Guard,
    peers::bound,
};
use guard_userspace::{
    base::slow_answers::Subject,
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

use super::{
    FAMILIES, Lab, MODES, PATIENCE,
    slow_answers::{KeptBack, wait_for_a_sweep},
};

/// Port of the far end.
const SERVER: u16 = 8081;
/// How long an answer is waited for that does not come.
const LOST: Duration = Duration::from_millis(300);

/// A change that is begun, and two local ports.
#[derive(Debug)]
struct Change {
    /// The configuration before and after it.
    texts: [&'static str; 2],
    /// A port that both policies guard.
    both: u16,
    /// One whose answers only a record from during the change can admit after it.
    next: u16,
}

const CHANGES: [Change; 3] = [
    Change {
        texts: ["range = \"50000-60999\"\n", "range = \"40000-60999\"\n"],
        both: 51_000,
        next: 41_000,
    },
    Change {
        texts: [
            "expose = [\"41000-41999/udp\"]\nlisteners = \"warn\"\n",
            "listeners = \"warn\"\n",
        ],
        both: 51_000,
        next: 41_000,
    },
    // What the wider filter has recorded names no port, so the narrower one cannot know it.
    Change {
        texts: ["udp-filter = \"address\"\n", ""],
        both: 51_000,
        next: 51_000,
    },
];

/// Queries of sockets that are not connected, which wait for their answers.
struct Queries {
    family: Family,
    clients: Vec<(u16, UdpSocket)>,
    server: UdpSocket,
}

impl Queries {
    fn new(lab: &Lab, family: Family) -> Result<Self> {
        let address = SocketAddr::new(P.address(family), SERVER);
        Ok(Self {
            family,
            clients: Vec::new(),
            server: bound(&lab.topology.peer, || UdpSocket::bind(address))?,
        })
    }

    /// Asks from this port, by a socket of its own.
    fn ask(&mut self, lab: &Lab, port: u16) -> Result<()> {
        let address = SocketAddr::new(P.address(self.family), SERVER);
        let local = SocketAddr::new(G.address(self.family), port);
        let client = bound(&lab.topology.guarded, || UdpSocket::bind(local))?;
        client.send_to(b"query", address)?;
        self.server.set_read_timeout(Some(PATIENCE))?;
        let (_, from) = self.server.recv_from(&mut [0; 16]).context("no query")?;
        ensure!(from.port() == port, "it came from {from}");
        self.clients.push((port, client));
        Ok(())
    }

    /// The ports that get no answer, each of which is answered once more.
    fn unanswered(&self, patience: Duration) -> Result<Vec<u16>> {
        let mut unanswered = Vec::new();
        for (port, client) in &self.clients {
            let to = SocketAddr::new(G.address(self.family), *port);
            self.server.send_to(b"answer", to)?;
            client.set_read_timeout(Some(patience))?;
            if client.recv(&mut [0; 16]).is_err() {
                unanswered.push(*port);
            }
        }
        Ok(unanswered)
    }

    fn require_answers(&self, when: &str) -> Result<()> {
        let unanswered = self.unanswered(PATIENCE)?;
        ensure!(unanswered.is_empty(), "{when}: no answer at {unanswered:?}");
        Ok(())
    }
}

/// Begins a change, asks meanwhile, kills the daemon before the flip, asks again and starts it with
/// the changed configuration. Returns the ports that are not answered then.
fn killed_before_the_flip(
    change: &Change,
    alterations: &[&str],
    (mode, family): (&str, Family),
) -> Result<Vec<u16>> {
    let lab = Lab::new()?;
    let host = &lab.topology.guarded;
    let kept_back = KeptBack::new()?;
    let path = kept_back.configure(change.texts[0])?;
    let folder = kept_back.folder();
    let held = ["--keep-back", &folder, "--sweep-rest", "600000"];
    let flags = ["--config", &path, "--xdp-mode", mode];
    let held = [&held, alterations].concat();
    let mut guard = Guard::start_altered(host, lab.topology.interface(), &held, &flags)?;
    let state = StateMemory::open(&Pins::new(guard.pins(), &host.run(namespace::name)?))?;
    ensure!(
        state.recorded() == state.in_force(),
        "a change at the start"
    );
    wait_for_a_sweep(host)?;
    let mut queries = Queries::new(&lab, family)?;
    queries.ask(&lab, change.both)?;

    kept_back.begin(Subject::Flows)?;
    kept_back.configure(change.texts[1])?;
    let before = state.in_force();
    guard.signal(libc::SIGHUP);
    let deadline = Instant::now() + PATIENCE;
    while kept_back.waiting(Subject::Flows) == 0 {
        ensure!(Instant::now() < deadline, "no change: {}", guard.said());
        thread::sleep(Duration::from_millis(5));
    }
    ensure!(
        alterations.is_empty() == (state.recorded() != before),
        "egress goes by {:?}",
        state.recorded()
    );
    queries.ask(&lab, change.next + 1)?;
    queries.ask(&lab, change.both + 2)?;
    queries.require_answers("while it looks at the sockets")?;
    guard.kill()?;
    ensure!(state.in_force() == before, "it was killed after the flip");
    queries.ask(&lab, change.next + 3)?;
    queries.ask(&lab, change.both + 4)?;
    queries.require_answers("without a daemon")?;

    kept_back.end(Subject::Flows)?;
    guard.start_again(&flags)?;
    ensure!(state.in_force() != before, "the next start changes nothing");
    ensure!(
        state.recorded() == state.in_force(),
        "egress records too much"
    );
    let unanswered = queries.unanswered(LOST)?;
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(unanswered)
}

#[test]
fn nothing_is_lost_by_a_daemon_that_is_killed_before_the_flip() -> Result<()> {
    for change in &CHANGES {
        for case in MODES.into_iter().zip(FAMILIES) {
            let unanswered = killed_before_the_flip(change, &[], case)
                .with_context(|| format!("{change:?}, {case:?}"))?;
            // What only the wider filter knows names no port.
            let due: &[u16] = match change.texts[1] {
                "" => &[change.both],
                _ => &[],
            };
            ensure!(
                unanswered == due,
                "{change:?}, {case:?}: no answer at {unanswered:?}"
            );
        }
        // The control: what begins before the flip is recorded by nobody.
        let without = ["--without", "both-recorded"];
        let unanswered = killed_before_the_flip(change, &without, ("native", Family::Ipv4))
            .with_context(|| format!("{change:?}, control"))?;
        ensure!(
            unanswered.contains(&(change.next + 1)) && unanswered.contains(&(change.next + 3)),
            "{change:?}, control: no answer only at {unanswered:?}"
        );
    }
    Ok(())
}
