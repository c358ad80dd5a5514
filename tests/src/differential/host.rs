//! The policy in memory, on the host that a session describes.

use std::{cell::RefCell, net::IpAddr, rc::Rc};

use guard_common::{
    flow::key::{AddressKey, KernelPortKey, SizedKey},
    frame::{ethernet::MacAddress, transport::Transport},
    policy::datapath::{Locality, SocketMatch},
};
use guard_reference::policy::{Host, Prefix, Taker};

use super::{session::Session, translate};
use crate::memory::{self, MemoryDatapath};

/// Flows that the tables have room for.
const ROOM: usize = 2048;

/// The host, whom the user trusts, and where the kernel receives.
pub type Around = Rc<RefCell<(Host, Vec<Prefix>, Vec<(IpAddr, u16)>)>>;

struct Described(Around);

impl memory::Host for Described {
    fn socket(&self, transport: Transport, key: SizedKey<'_>) -> SocketMatch {
        let (_, local, remote) = translate::ends(key);
        match self.0.borrow().0.taker(transport.number(), local, remote) {
            Taker::Nobody => SocketMatch::None,
            Taker::Connected => SocketMatch::Connected,
            Taker::Listener => SocketMatch::Listener,
        }
    }

    fn trusts(&self, address: &AddressKey) -> bool {
        covers(&self.0.borrow().1, translate::ip(address))
    }

    fn locality(&self, address: &AddressKey) -> Locality {
        let (host, address) = (&self.0.borrow().0, translate::ip(address));
        if covers(&host.local_table, address) {
            Locality::Local
        } else if covers(&host.diverted, address) {
            Locality::Diverted
        } else {
            Locality::Unknown
        }
    }

    fn is_neighbour(&self, address: &AddressKey) -> bool {
        covers(&self.0.borrow().0.addresses, translate::ip(address))
    }

    fn kernel_receives(&self, port: &KernelPortKey) -> bool {
        let around = self.0.borrow();
        let mut kernel = around.2.iter();
        kernel.any(|end| translate::kernel_port(*end) == *port)
    }

    fn is_own_mac(&self, address: MacAddress) -> bool {
        self.0.borrow().0.own_links.contains(&address.octets())
    }

    fn forwards(&self, source: &AddressKey, destination: &AddressKey) -> bool {
        let [from, to] = [source, destination].map(translate::ip);
        self.0.borrow().0.sends_on(from, to)
    }
}

fn covers(prefixes: &[Prefix], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.covers(address))
}

/// The tables that a session begins with, and what is around them.
pub fn tables(session: &Session) -> (MemoryDatapath, Around) {
    let (policy, host) = (&session.policy, &session.host);
    let around = (host.clone(), policy.trusted.clone(), policy.kernel.clone());
    let around = Rc::new(RefCell::new(around));
    let tables = MemoryDatapath::with(
        translate::config(policy, host),
        translate::page(policy, host),
        translate::device(host),
        if host.room { ROOM } else { 0 },
        Box::new(Described(Rc::clone(&around))),
    );
    (tables, around)
}
