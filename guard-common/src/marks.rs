//! What is left in the occupancy table and the tuple filter of what this host uses.

use crate::{
    address::Address,
    filter::remember,
    lookup::as_recorded,
    owner::Users,
    parse::Tuple,
    tables::{Tables, Use},
};

/// Notes that this flow is in use, and its port.
#[inline(always)]
pub(crate) fn mark_flow<A: Address>(tuple: &Tuple<A>, port: usize, tables: &impl Tables) {
    mark_port(tuple, port, tables);
    remember(&as_recorded(tuple, tables), tables);
}

/// Notes that a port is in use with this remote address.
#[inline(always)]
pub(crate) fn mark_port<A: Address>(tuple: &Tuple<A>, port: usize, tables: &impl Tables) {
    let purpose = Use::flow(tuple.transport);
    let epoch = tables.config().epoch() as u8;
    // Most are marked already, and need not be asked whose they are.
    if tables
        .occupancy(purpose, port)
        .is_some_and(|occupancy| occupancy.is(epoch))
    {
        return;
    }
    let owned = tables
        .owner(purpose, port)
        .is_some_and(|owner| owner.load() == Users::one(tuple.remote, &tables.config().filter()));
    // Its owner does not mark a port: it would look as if it were used with others too.
    if !owned {
        mark(purpose, port, tables);
    }
}

/// Notes that a port is in use with anybody.
#[inline(always)]
pub(crate) fn mark(purpose: Use, port: usize, tables: &impl Tables) {
    let epoch = tables.config().epoch() as u8;
    if let Some(occupancy) = tables.occupancy(purpose, port) {
        occupancy.mark(epoch);
    }
}
