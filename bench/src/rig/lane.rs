//! One contender on hosts of its own, so that contenders can take turns without being attached
//! anew.

use std::{os::fd::AsFd, time::Instant};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::netns::Direct;

use super::{Attack, population::Population};
use crate::{
    bpf,
    contender::{Contender, Installed, Terms},
    processor,
    programs::BenchPrograms,
    recipe::Recipe,
    shape::Shape,
};

/// Frames that the generator hands over at a time: as many as a poll of a driver takes.
const BATCH: u32 = 64;

/// A contender, and its hosts.
pub struct Lane<'a> {
    /// Who it is.
    pub contender: Contender,
    hosts: &'a Direct,
    installed: Installed<'a>,
    _population: Option<Population>,
}

impl<'a> Lane<'a> {
    /// Installs a contender, and lets its host open flows.
    pub fn new(
        contender: Contender,
        hosts: &'a Direct,
        bare: &BenchPrograms,
        terms: Terms,
        family: Family,
    ) -> Result<Self> {
        prepare(hosts)?;
        let installed = contender
            .install(hosts, bare, terms)
            .with_context(|| contender.to_string())?;
        let population = match contender {
            // Nothing would come through.
            Contender::BareDrop => None,
            _ => {
                let with_sockets = contender == Contender::Portguard;
                Some(Population::new(hosts, family, with_sockets)?)
            }
        };
        Ok(Self {
            contender,
            hosts,
            installed,
            _population: population,
        })
    }

    /// Sends so many frames, and returns how many nanoseconds each took until it was judged.
    pub fn flood(
        &self,
        generator: &mut BenchPrograms,
        attack: Attack,
        shape: Shape,
        frames: u32,
    ) -> Result<f64> {
        let (frame, recipe) = attack.frames(shape);
        self.hosts.peer.run(|| {
            processor::pin(processor::measured())?;
            generator.follow(Recipe {
                interface: bpf::interface_index(self.hosts.peer_interface())?,
                ..recipe
            })?;
            let program = generator.descriptor("generate")?.as_fd();
            let start = Instant::now();
            bpf::send(program, &frame, frames, BATCH).context("send frames")?;
            Ok(start.elapsed().as_nanos() as f64 / f64::from(frames))
        })
    }

    /// Checks that the guard judges a flood as it should, and that all of it arrives.
    pub fn check(&self, generator: &mut BenchPrograms, attack: Attack, shape: Shape) -> Result<()> {
        const FRAMES: u32 = 20_000;

        let Installed::Guard(guard) = &self.installed else {
            return Ok(());
        };
        let before = guard.packets()?;
        self.flood(generator, attack, shape, FRAMES)?;
        let moved = guard.packets()?.since(&before);
        let judged = moved.of(attack.outcome());
        ensure!(
            judged * 100 >= u64::from(FRAMES) * 98,
            "{attack} ({shape}): {judged} of {FRAMES} frames were judged as they should be:{moved}"
        );
        Ok(())
    }
}

/// Makes the hosts ready for floods: frames are received in batches also where no XDP program is
/// attached, and senders may have any address.
fn prepare(hosts: &Direct) -> Result<()> {
    let interface = hosts.interface();
    let mut offload = hosts.guarded.command("ethtool");
    let offload = offload.args(["-K", interface, "gro", "on"]);
    crate::contender::succeed(offload)?;
    for interface in ["all", interface] {
        let setting = format!("net/ipv4/conf/{interface}/rp_filter");
        hosts.guarded.sysctl(&setting, "0")?;
    }
    Ok(())
}
