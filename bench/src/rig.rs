//! Hosts of our own, one pair for each contender, with live flows.
//!
//! On each pair a generator in the peer's network can send into a veth pair, whose other end is
//! guarded. One processor makes the frames and decides them, so a flood is as fast as both together.

mod attack;
mod flood;
mod holder;
mod lane;
mod population;
mod sender;

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use guard_common::outcome::Family;
use guard_tests::netns::Direct;

pub use self::{
    attack::{Attack, Flood},
    flood::{Flooded, HEADING, in_turns},
    holder::{Hold, hold},
    lane::Lane,
    sender::Sender,
};
use crate::{
    contender::{Contender, Terms},
    known::make_known,
    programs::BenchPrograms,
};

/// Hosts for so many contenders.
pub fn hosts(count: usize) -> Result<Vec<Direct>> {
    (0..count).map(|_| Direct::new()).collect()
}

/// Contenders on hosts of their own, and what floods them.
pub struct Rig<'a> {
    /// Each contender.
    pub lanes: Vec<Lane<'a>>,
    /// What floods them.
    pub generator: BenchPrograms,
    /// Programs that do nothing.
    pub bare: BenchPrograms,
    _known: Vec<OwnedFd>,
}

impl<'a> Rig<'a> {
    /// Installs a contender on each pair of hosts but the first, which is the generator's own, and
    /// opens flows of a family, or none.
    /// Those that cannot be installed are named and left out.
    ///
    /// # Errors
    /// When portguard, or what it is measured against, cannot be installed.
    pub fn new(
        hosts: &'a [Direct],
        contenders: &[Contender],
        terms: Terms,
        family: Option<Family>,
        mut left_out: impl FnMut(Contender, anyhow::Error),
    ) -> Result<Self> {
        let bare = BenchPrograms::load()?;
        let generator = BenchPrograms::load()?;
        let known = make_known(&hosts[0], &[generator.descriptor("generate")?.as_fd()])?;
        let mut lanes = Vec::new();
        for (contender, hosts) in contenders.iter().zip(&hosts[1..]) {
            match Lane::new(*contender, hosts, &bare, terms, family) {
                Ok(lane) => lanes.push(lane),
                Err(error) if contender.is_peer() => left_out(*contender, error),
                Err(error) => return Err(error),
            }
        }
        if family.is_some() {
            lanes.iter().try_for_each(Lane::settle)?;
        }
        Ok(Self {
            lanes,
            generator,
            bare,
            _known: known,
        })
    }
}
