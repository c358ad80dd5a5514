//! The part `clients`: what connections of the guarded host notice.
//!
//! Client, server and whatever stands between them share one processor, so that nothing depends on
//! how fast processors wake each other, and all that is added shows.

mod bulk;
mod connect;
mod shared;

use anyhow::{Context, Result};
use guard_common::outcome::Family;
use serde::Serialize;

pub use self::{
    bulk::{Bulk, Direction},
    connect::Connects,
    shared::{Echo, Shared},
};
use crate::{
    contender::{Contender, Terms},
    rig::{self, Lane, Rig},
    rounds::Sample,
};

/// What answers pass through.
const CONTENDERS: [Contender; 10] = [
    Contender::BarePass,
    Contender::BareUdpDrop,
    Contender::Portguard,
    Contender::PortguardClsact,
    Contender::PortguardGeneric,
    Contender::NftInput,
    Contender::NftPrerouting,
    Contender::NftIngress,
    Contender::IptablesInput,
    Contender::IptablesRaw,
];

/// Turns of a client that opens connections or carries much, for each of others: they are short,
/// and what tells contenders apart is a few percent.
const SHORT_TURNS: usize = 8;

/// What connections notice.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Clients {
    /// Of being opened.
    pub connects: Vec<Connects>,
    /// Of sending and receiving much.
    pub bulk: Vec<Bulk>,
    /// Of a flood.
    pub shared: Vec<Shared>,
}

/// What goes through a program that passes everything.
fn limit<'a>(lanes: &[Lane<'_>], samples: &'a [Sample]) -> Result<&'a Sample> {
    let limit = lanes
        .iter()
        .position(|lane| lane.contender == Contender::BarePass);

    limit
        .and_then(|limit| samples.get(limit))
        .context("nothing was measured to compare with")
}

/// Measures all of it.
///
/// # Errors
/// When a contender that must not be missing is, or lets a client down.
pub fn measure(
    rounds: usize,
    left_out: impl FnMut(Contender, anyhow::Error),
    mut seen: impl FnMut(&dyn std::fmt::Display),
) -> Result<Clients> {
    let hosts = rig::hosts(CONTENDERS.len() + 1)?;
    let mut rig = Rig::new(
        &hosts,
        &CONTENDERS,
        // A port with a socket is no port for another connection, and looking for one takes longer.
        Terms {
            sockets: false,
            ..Terms::default()
        },
        Some(Family::Ipv4),
        left_out,
    )?;
    let mut clients = Clients::default();

    seen(&connect::HEADING);
    clients.connects = connect::measure(&rig.lanes, SHORT_TURNS * rounds)?;
    clients.connects.iter().for_each(|line| seen(line));
    seen(&bulk::HEADING);
    clients.bulk = bulk::measure(&rig.lanes, SHORT_TURNS * rounds)?;
    clients.bulk.iter().for_each(|line| seen(line));
    seen(&shared::HEADING);
    clients.shared = shared::measure(&mut rig, rounds)?;
    clients.shared.iter().for_each(|line| seen(line));
    Ok(clients)
}
