//! The part `policies`: what a flood costs where the policy, or the host, has something to be asked
//! before a drop.

use std::fmt::Display;

use anyhow::{Context, Result};

use crate::{
    bpf::Mode,
    contender::{Contender, Terms},
    floods::Reading,
    rig::{self, Attack, Flooded, Rig, in_turns},
    shape::Shape,
};

/// What is compared, and the limits of either.
const CONTENDERS: [Contender; 8] = [
    Contender::BareDrop,
    Contender::BarePass,
    Contender::Portguard,
    Contender::PortguardForwarding,
    Contender::PortguardTrusting,
    Contender::PortguardExposing,
    Contender::PortguardAsking,
    Contender::PortguardMonitoring,
];

/// Sprays hosts without flows, over IPv4 and IPv6.
///
/// # Errors
/// When portguard cannot be set up, or decides otherwise than it should.
pub fn measure(rounds: usize, mut seen: impl FnMut(&dyn Display)) -> Result<Vec<Reading>> {
    let attack = Attack::Spray;
    seen(&format!("\n{}", rig::HEADING));
    let hosts = rig::hosts(CONTENDERS.len() + 1)?;
    let mut rig = Rig::new(&hosts, &CONTENDERS, Terms::default(), None, |_, _| {})?;
    let mut readings = Vec::new();
    for shape in [Shape::Ipv4, Shape::Ipv6] {
        let Rig {
            lanes, generator, ..
        } = &mut rig;
        let met: Vec<_> = lanes.iter().collect();
        for lane in &met {
            lane.check(generator, attack, shape)?;
        }
        let samples = in_turns(&met, generator, &attack.flood(shape), rounds)?;
        for (lane, sample) in met.iter().zip(&samples) {
            let limit = met
                .iter()
                .zip(&samples)
                .find(|(other, _)| other.contender == lane.contender.limit_of_a_drop());
            let (_, limit) = limit.context("nothing was measured to compare with")?;
            let flooded = Flooded {
                attack,
                shape,
                contender: lane.contender,
                cost: sample.summary(),
                of_limit: sample.of_limit(limit),
            };
            seen(&flooded);
            readings.push(Reading {
                mode: Mode::Native,
                flooded,
            });
        }
    }
    Ok(readings)
}
