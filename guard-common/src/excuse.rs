//! What is asked before a packet that answers nothing is dropped.

use crate::{
    address::Address,
    config::Config,
    key::{AddressKey, FlowKey},
    outcome::Outcome,
    parse::Tuple,
    tables::{Socket, Tables, Tally},
};

/// Why a packet that answers nothing passes all the same: it is none of this host's business, or
/// the user trusts the sender. Neither is asked where it cannot apply.
#[inline(always)]
pub(crate) fn excuse<A: Address>(
    tuple: &Tuple<A>,
    sender: A,
    tables: &impl Tables,
) -> Option<Outcome> {
    let excuses = tables.config().excuses();
    if excuses & Config::FORWARDS != 0 && is_for_another(tuple, tables) {
        return Some(Outcome::PassNotLocal);
    }
    if excuses & Config::TRUSTS != 0 && tables.trusts(&AddressKey::new(sender)) {
        return Some(Outcome::PassTrusted);
    }

    None
}

/// Whether the packet goes through this host to another. Broadcast, multicast and anycast count
/// as local, and so does whatever the routes do not clearly send on.
#[inline(always)]
fn is_for_another<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    let Some(device) = tables.device() else {
        return false;
    };
    device.forwards != 0
        && !tuple.local.is_own(device)
        && !tuple.local.ends_here()
        && !tables.is_local(&AddressKey::new(tuple.local))
        && tables.forwards(tuple.transport, A::FlowKey::new(tuple).sized())
}

/// In monitor mode the packet passes, and whoever takes it would have lost it.
#[inline(always)]
pub(crate) fn tally_would_drop<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) {
    match tables.socket(tuple.transport, A::FlowKey::new(tuple).sized()) {
        Socket::None => {}
        Socket::Connected => tables.tally(Tally::WouldDropConnected),
        Socket::Listener => tables.tally(Tally::WouldDropListener),
    }
}
