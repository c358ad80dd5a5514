//! What must be true whenever a daemon was killed, and when the next one guards.

use anyhow::{Result, ensure};
use guard_common::abi::layout::LAYOUT_VERSION;
use guard_tests::{
    frames::P,
    guard::{Came, Guard},
    peers::{Connection, Exchange, Talk, alive},
};

use crate::{FAMILIES, Lab, PATIENCE, hooks, layouts::folders};

/// What must survive, and how it is looked at.
pub struct Witness<'a> {
    lab: &'a Lab,
    talks: Vec<Box<dyn Talk + Send>>,
}

impl<'a> Witness<'a> {
    /// Opens connections; and, if they are to be remembered, exchanges of sockets that are not
    /// connected, of whose peers nothing but a map knows.
    pub fn new(lab: &'a Lab, remembered: bool) -> Result<Self> {
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let mut talks: Vec<Box<dyn Talk + Send>> = Vec::new();
        for family in FAMILIES {
            let server = (P.address(family), 8080);
            for connection in Connection::open(host, peer, server, 2)? {
                talks.push(Box::new(connection));
            }
            for exchange in Exchange::open(host, peer, server, !remembered, 5)? {
                talks.push(Box::new(exchange));
            }
        }
        Ok(Self { lab, talks })
    }

    /// Checks that XDP does not stand alone, and that all answers arrive. Returns whether anybody
    /// guards.
    pub fn sound(&mut self) -> Result<bool> {
        let (host, interface) = (&self.lab.topology.guarded, self.lab.topology.interface());
        let guarded = hooks::xdp(host, interface)?.is_some();
        let recorded = hooks::egress(host, interface)? > 0;
        ensure!(recorded || !guarded, "XDP stands alone");
        let mut new = self.new_exchanges()?;
        ensure!(alive(&mut new, PATIENCE)? == 2, "new ones hear nothing");
        let heard = alive(&mut self.talks, PATIENCE)?;
        let all = self.talks.len();
        ensure!(heard == all, "{heard} of {all} hear their far ends");
        Ok(guarded)
    }

    fn new_exchanges(&self) -> Result<Vec<Exchange>> {
        let (host, peer) = (&self.lab.topology.guarded, &self.lab.topology.peer);
        let mut new = Vec::new();
        for family in FAMILIES {
            let server = (P.address(family), 8090);
            new.extend(Exchange::open(host, peer, server, false, 1)?);
        }
        Ok(new)
    }

    /// Checks that a guard that was started after a crash is whole, and nothing of the crash's is
    /// left.
    pub fn whole(&mut self, guard: &Guard, shape: Shape) -> Result<()> {
        ensure!(self.sound()?, "not guarded");
        let (host, interface) = (&self.lab.topology.guarded, self.lab.topology.interface());
        let recording = hooks::egress(host, interface)?;
        ensure!(recording == 1, "{recording} programs record");
        let folders = folders(guard)?;
        let own = format!("v{}", shape.layout);
        ensure!(folders == [own], "left: {folders:?}");
        Ok(())
    }

    /// Checks that nothing is left of a guard that has ended.
    pub fn none(&self, guard: &Guard) -> Result<()> {
        let (host, interface) = (&self.lab.topology.guarded, self.lab.topology.interface());
        ensure!(hooks::xdp(host, interface)?.is_none(), "XDP is left");
        ensure!(hooks::egress(host, interface)? == 0, "egress is left");
        let left = std::fs::read_dir(guard.pins()).map_or(0, Iterator::count);
        ensure!(left == 0, "{left} folders are left");
        Ok(())
    }
}

/// Maps that a run may have: room for so many flows, in this layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub size: &'static str,
    pub layout: u32,
}

impl Shape {
    /// That of a run without flags.
    pub const OWN: Self = Self {
        size: "65536",
        layout: LAYOUT_VERSION,
    };

    pub fn start(self, guard: &mut Guard, flags: &[&str]) -> Result<()> {
        guard.alter(&["--layout", &self.layout.to_string()]);
        guard.start_again(&[flags, &["--max-flows", self.size]].concat())
    }

    pub fn start_until(self, step: usize, guard: &mut Guard, flags: &[&str]) -> Result<Came> {
        guard.alter(&["--layout", &self.layout.to_string()]);
        guard.start_until(step, &[flags, &["--max-flows", self.size]].concat())
    }
}
