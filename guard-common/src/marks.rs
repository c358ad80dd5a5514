//! What is left in the occupancy table and the tuple filter of what this host uses.

use crate::{
    address::Address,
    filter::remember,
    lookup::as_recorded,
    parse::Tuple,
    tables::{Tables, Use},
};

/// Notes that this flow is in use, and its port.
#[inline(always)]
pub(crate) fn mark_flow<A: Address>(tuple: &Tuple<A>, port: usize, tables: &impl Tables) {
    mark(Use::flow(tuple.transport), port, tables);
    remember(&as_recorded(tuple, tables), tables);
}

/// Notes that a port is in use.
#[inline(always)]
pub(crate) fn mark(purpose: Use, port: usize, tables: &impl Tables) {
    let epoch = tables.config().epoch() as u8;
    if let Some(occupancy) = tables.occupancy(purpose, port) {
        occupancy.mark(epoch);
    }
}
