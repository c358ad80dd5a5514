//! The part `clients`: what connections of the guarded host notice.
//!
//! Client, server and whatever stands between them share one processor, so that nothing depends on
//! how fast processors wake each other, and all that is added shows.

mod bulk;
mod connect;
mod shared;

use anyhow::Result;
use guard_common::outcome::Family;
use serde::Serialize;

pub use self::{
    bulk::{Bulk, Direction},
    connect::Connects,
    shared::{Echo, Shared},
};
use crate::{
    contender::{Contender, Terms},
    rig::{self, Rig},
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

/// Turns of a client that opens connections, for each of others: they are short, and what tells
/// contenders apart is a few percent.
const CONNECT_TURNS: usize = 8;

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
        Terms::default(),
        Some(Family::Ipv4),
        left_out,
    )?;
    let mut clients = Clients::default();

    seen(&connect::HEADING);
    clients.connects = connect::measure(&rig.lanes, CONNECT_TURNS * rounds)?;
    clients.connects.iter().for_each(|line| seen(line));
    seen(&bulk::HEADING);
    clients.bulk = bulk::measure(&rig.lanes, rounds)?;
    clients.bulk.iter().for_each(|line| seen(line));
    seen(&shared::HEADING);
    clients.shared = shared::measure(&mut rig, rounds)?;
    clients.shared.iter().for_each(|line| seen(line));
    Ok(clients)
}
