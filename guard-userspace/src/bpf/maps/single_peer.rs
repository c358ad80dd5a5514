//! Who uses each port, as far as one sweep has found.

use std::cell::Cell;

use guard_common::ports::{class::PORTS, occupancy::Use, peer::PeerHash};

use super::StateMemory;

/// What ports are used for by flows. Queries to groups are anybody's.
const FLOWS: [Use; 3] = [Use::Tcp, Use::Udp, Use::UdpLite];

/// What a sweep has found of each port, before programs are told.
#[derive(Debug)]
pub struct PortUsers([Box<[Cell<PeerHash>]>; FLOWS.len()]);

impl PortUsers {
    /// Nothing found yet.
    pub fn none() -> Self {
        Self(FLOWS.map(|_| vec![Cell::new(PeerHash::NONE); PORTS].into()))
    }

    /// Notes that these use a port, given in host byte order.
    pub fn add(&self, purpose: Use, port: u16, users: PeerHash) {
        if let Some(index) = FLOWS.iter().position(|flow| *flow == purpose) {
            self.0[index][usize::from(port)].update(|before| before.merge(users));
        }
    }

    /// Tells the programs, once the sweep has seen everything: the `epoch` may begin then.
    pub fn settle(&self, state: &StateMemory, epoch: u8) {
        for (purpose, ports) in FLOWS.into_iter().zip(&self.0) {
            for (port, users) in ports.iter().enumerate() {
                state.settle(purpose, port, users.get(), epoch);
            }
        }
    }
}
