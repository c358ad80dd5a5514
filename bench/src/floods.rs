//! The part `floods`: what each contender does with each flood, over IPv4 and IPv6, plain and
//! tagged, and where XDP runs in the stack.

use std::fmt::Display;

use anyhow::Result;
use guard_common::outcome::Family;
use serde::Serialize;

use crate::{
    bpf::Mode,
    contender::{Contender, Terms},
    rig::{self, Attack, Flooded, Rig},
    shape::Shape,
};

/// A flood, and where XDP programs ran.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// Where XDP programs ran.
    pub mode: Mode,
    /// What was measured.
    #[serde(flatten)]
    pub flooded: Flooded,
}

impl Reading {
    /// Whether the same frames met either, in the same place.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.mode == other.mode
            && self.flooded.attack == other.flooded.attack
            && self.flooded.shape == other.flooded.shape
    }
}

/// What is set up, and shown which frames.
struct Stage {
    mode: Mode,
    family: Family,
    peers: bool,
    shapes: &'static [Shape],
}

const STAGES: [Stage; 3] = [
    Stage {
        mode: Mode::Native,
        family: Family::Ipv4,
        peers: true,
        shapes: &[Shape::Ipv4, Shape::Tagged],
    },
    Stage {
        mode: Mode::Native,
        family: Family::Ipv6,
        peers: false,
        shapes: &[Shape::Ipv6],
    },
    Stage {
        mode: Mode::Generic,
        family: Family::Ipv4,
        peers: false,
        shapes: &[Shape::Ipv4],
    },
];

/// Measures all of it, or the first stage alone.
///
/// # Errors
/// When portguard cannot be set up, or decides otherwise than it should.
pub fn measure(
    rounds: usize,
    short: bool,
    mut left_out: impl FnMut(Contender, anyhow::Error),
    mut seen: impl FnMut(&dyn Display),
) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let stages = if short { &STAGES[..1] } else { &STAGES[..] };
    for stage in stages {
        let mut contenders = vec![
            Contender::BareDrop,
            Contender::BarePass,
            Contender::BareUdpDrop,
            Contender::Portguard,
        ];
        if stage.peers && !short {
            contenders.extend(Contender::PEERS);
        }
        seen(&format!("\nXDP {}\n{}", stage.mode, rig::HEADING));
        let terms = Terms {
            mode: stage.mode,
            ..Terms::default()
        };
        let hosts = rig::hosts(contenders.len() + 1)?;
        let mut rig = Rig::new(
            &hosts,
            &contenders,
            terms,
            Some(stage.family),
            &mut left_out,
        )?;
        for attack in Attack::ALL {
            for shape in stage.shapes {
                for flooded in rig.flood(attack, *shape, rounds)? {
                    let reading = Reading {
                        mode: stage.mode,
                        flooded,
                    };
                    seen(&reading.flooded);
                    readings.push(reading);
                }
            }
        }
    }
    Ok(readings)
}
