//! The programs, and the host whose sockets and routes they ask.

use std::{
    iter,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{Decision, Direction, Family, Outcome, Verdict};
use guard_tests::{
    frames::{G, P},
    netns::Direct,
    peers::Connection,
    programs::{Entry, Programs},
    setup::{self, TIMEOUTS},
};

use super::{
    received::SOCKETS,
    row::{FLOW_PORT, MAX_FLOWS, Refill, Row, Variety},
};
use crate::{
    bpf, fields,
    known::make_known,
    programs::{BenchPrograms, Varying},
    recipe::Recipe,
    rounds::{Difference, difference},
    shape::Shape,
};

/// Runs of one round, where the number of flows does not say: a tenth of a millisecond, so that
/// many rounds are undisturbed.
const REPEAT: u32 = 4096;
/// Local ports of varied flows, at most.
const FLOW_PORTS: u32 = 10_000;
/// Longer than UDP flows live, in ticks.
const LONG: u32 = 2 * TIMEOUTS.udp;
/// Where the peers of the rescued sockets are.
const SERVICE: u16 = 53;

/// Two hosts on one link, and in the guarded one's network the programs.
pub struct Scene {
    guard: Programs,
    bare: BenchPrograms,
    /// Shows varied frames to the guard.
    to_guard: BenchPrograms,
    /// The same, to the programs that do nothing: one that drops, and one that passes.
    to_bare: [BenchPrograms; 2],
    /// They keep the XDP programs where the kernel can call them directly.
    _links: Vec<OwnedFd>,
    _sockets: Vec<UdpSocket>,
    _connections: Vec<Connection>,
}

impl Scene {
    /// Sets it up, from within the guarded host.
    pub fn new(hosts: &Direct) -> Result<Self> {
        let guard = Programs::load_with(Entry::Frags, MAX_FLOWS)?;
        let bare = BenchPrograms::load()?;
        let mut to_guard = BenchPrograms::load()?;
        to_guard.show_to(Varying::Received, guard.descriptor("ingress_frags")?)?;
        to_guard.show_to(Varying::Sent, guard.descriptor("egress")?)?;
        let mut to_bare = [BenchPrograms::load()?, BenchPrograms::load()?];
        for (varied, check) in to_bare.iter_mut().zip(["bare_drop", "bare_pass"]) {
            varied.show_to(Varying::Received, bare.descriptor(check)?)?;
            varied.show_to(Varying::Sent, bare.descriptor("bare_next")?)?;
        }

        let received = Varying::Received.name();
        let programs = [
            guard.descriptor("ingress_frags")?,
            bare.descriptor("bare_drop")?,
            bare.descriptor("bare_pass")?,
            to_guard.descriptor(received)?,
            to_bare[0].descriptor(received)?,
            to_bare[1].descriptor(received)?,
        ];
        let links = make_known(hosts, &programs.map(AsFd::as_fd))?;
        hosts.guarded.sysctl("net/ipv4/ip_forward", "1")?;
        hosts.guarded.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(Self {
            guard,
            bare,
            to_guard,
            to_bare,
            _links: links,
            _sockets: sockets()?,
            _connections: connections(hosts)?,
        })
    }

    /// What a row costs.
    pub fn compare(&mut self, row: &Row, shape: Shape, rounds: usize) -> Result<Difference> {
        self.prepare(row, shape)?;
        let (bare, guard) = self.contestants(row)?;
        let frame = row.bytes(shape);
        let repeat = match (row.refill, row.variety) {
            (Refill::Forget | Refill::Expire, Variety::Flows(flows)) => flows,
            _ => REPEAT,
        };
        let round = |program: &OwnedFd| {
            let start = Instant::now();
            bpf::run(program.as_fd(), &frame, repeat)?;
            Ok(start.elapsed().as_nanos() as f64 / f64::from(repeat))
        };

        let before = self.counted()?;
        let mut frames = 0;
        let difference = difference(
            rounds,
            || round(&bare),
            || {
                self.refill(row.refill)?;
                frames += u64::from(repeat);
                round(&guard)
            },
        )?;
        self.check(row, &before, frames)?;
        Ok(difference)
    }

    /// Makes the guard what the row says, and shows it what came before.
    fn prepare(&mut self, row: &Row, shape: Shape) -> Result<()> {
        self.guard.reset(row.setup)?;
        self.guard.configure(&row.config(), row.device)?;
        self.guard.set_page(&row.page())?;
        for frame in &row.sent {
            let frame = shape.of(frame).sent(shape.family());
            if let Variety::Flows(flows) = row.variety {
                let recipe = fields::of(&frame, Direction::Egress);
                self.to_guard.follow(varied(recipe, row.variety, shape))?;
                let program = self.to_guard.descriptor(Varying::Sent.name())?;
                bpf::run(program.as_fd(), &frame, flows)?;
            } else {
                self.guard.egress(&frame)?;
            }
        }
        for frame in &row.received {
            let frame = shape.of(frame).received(shape.family());
            self.guard.ingress(&frame)?;
        }

        if row.variety != Variety::One {
            let frame = row.bytes(shape);
            let recipe = fields::of(&frame, row.outcome().direction());
            let recipe = varied(recipe, row.variety, shape);
            for programs in iter::once(&mut self.to_guard).chain(&mut self.to_bare) {
                programs.follow(recipe)?;
            }
            if row.fills_the_map() {
                let program = self.to_guard.descriptor(Varying::Sent.name())?;
                bpf::run(program.as_fd(), &frame, 2 * MAX_FLOWS)?;
            }
        }
        Ok(())
    }

    /// The program that does nothing, and the guard's, as they are shown the row's frames.
    fn contestants(&self, row: &Row) -> Result<(OwnedFd, OwnedFd)> {
        let (varying, guard) = match row.outcome().direction() {
            Direction::Ingress => (Varying::Received, "ingress_frags"),
            Direction::Egress => (Varying::Sent, "egress"),
        };
        let programs = match row.variety {
            Variety::One => (
                self.bare.descriptor(row.bare())?,
                self.guard.descriptor(guard)?,
            ),
            Variety::Flows(_) | Variety::Unsolicited => {
                let passes = usize::from(row.verdict() == Verdict::Pass);
                (
                    self.to_bare[passes].descriptor(varying.name())?,
                    self.to_guard.descriptor(varying.name())?,
                )
            }
        };
        Ok((
            programs.0.as_fd().try_clone_to_owned()?,
            programs.1.as_fd().try_clone_to_owned()?,
        ))
    }

    fn refill(&mut self, refill: Refill) -> Result<()> {
        match refill {
            Refill::Never => Ok(()),
            Refill::Forget => self.guard.forget(),
            Refill::Expire => self.guard.age(LONG),
        }
    }

    /// Checks that all `frames` met the fate that the row is about.
    fn check(&self, row: &Row, before: &[u64], frames: u64) -> Result<()> {
        let after = self.counted()?;
        for (outcome, (before, after)) in Outcome::ALL.iter().zip(before.iter().zip(after)) {
            let expected = if *outcome == row.outcome() { frames } else { 0 };
            ensure!(
                after - before == expected,
                "{}: {outcome:?} happened {} times in {frames} frames",
                row.name(),
                after - before
            );
        }
        Ok(())
    }

    /// How often each outcome happened.
    fn counted(&self) -> Result<Vec<u64>> {
        let counters = self.guard.counters(setup::DEVICE)?;
        let slots = Decision::SLOTS as usize / Outcome::ALL.len();
        Ok(counters
            .chunks(slots)
            .map(|slots| slots.iter().sum())
            .collect())
    }
}

/// What turns the frame of a row into those of many.
fn varied(fields: Recipe, variety: Variety, shape: Shape) -> Recipe {
    let (flows, known_share) = match variety {
        Variety::One | Variety::Unsolicited => (1, 0),
        Variety::Flows(flows) => (flows, Recipe::ALL),
    };
    Recipe {
        known_share,
        flows,
        flow_ports: flows.min(FLOW_PORTS),
        flow_port: u32::from(FLOW_PORT),
        remote_port: u32::from(SERVICE),
        remote_address: fields::last_word(P.address(shape.family())),
        in_order: 1,
        unsolicited_port: u32::from(setup::FIRST),
        unsolicited_ports: u32::from(setup::LAST - setup::FIRST) + 1,
        ..fields
    }
}

/// Connected UDP sockets of both families, on the first ports of varied flows.
fn sockets() -> Result<Vec<UdpSocket>> {
    ends()
        .map(|(local, remote)| {
            let socket = UdpSocket::bind(local).with_context(|| local.to_string())?;
            socket.connect(remote)?;
            Ok(socket)
        })
        .collect()
}

/// TCP connections between the same ends.
fn connections(hosts: &Direct) -> Result<Vec<Connection>> {
    ends()
        .map(|(local, remote)| Connection::open_from(local, (&hosts.guarded, &hosts.peer), remote))
        .collect()
}

fn ends() -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
    [Family::Ipv4, Family::Ipv6].into_iter().flat_map(|family| {
        let (local, remote): (IpAddr, IpAddr) = (G.address(family), P.address(family));
        (FLOW_PORT..).take(SOCKETS as usize).map(move |port| {
            (
                SocketAddr::new(local, port),
                SocketAddr::new(remote, SERVICE),
            )
        })
    })
}
