//! A sweep over tables in memory, as the daemon's is over maps.

use std::collections::HashMap;

use guard_common::{
    abi::{config::ConfigCell, state::State},
    flow::state::Phase,
    frame::{ip::Tuple, transport::Transport},
    ports::{bloom::BloomSize, class::PORTS, occupancy::Use, peer::PeerHash},
};

use super::{Key, MemoryTables};

impl MemoryTables {
    /// Completes a sweep that finds every flow, and these sockets, and trusts the filter from then
    /// on.
    pub fn sweep_all(&mut self, sockets: &[Key]) {
        let epoch = (self.config.epoch + 1) as u8;
        let timeouts = self.config.timeouts;
        let found: Vec<_> = self
            .all_flows()
            .filter(|(_, flow)| flow.alive(self.now, &timeouts))
            .map(|(key, flow)| (key, flow.phase == Phase::Multicast as u8))
            .chain(sockets.iter().map(|key| (*key, false)))
            .collect();
        let mut users: HashMap<usize, PeerHash> = self
            .users
            .keys()
            .map(|place| (*place, PeerHash::NONE))
            .collect();
        for (key, query) in found {
            let (protocol, port, places, one) = self.place_of(&key);
            // The protocol's number is in the key: TCP in two of the four maps alone.
            let transport = Transport::from_number(protocol as u8).unwrap_or(Transport::Udp);
            for place in places {
                self.tuples[place - size_of::<State>()].mark(epoch);
            }
            let these = if query {
                self.set_mark(Use::Multicast, port, epoch);
                PeerHash::MANY
            } else {
                one
            };
            let place = Use::flow(transport) as usize * PORTS + usize::from(port);
            let before = users.entry(place).or_insert(PeerHash::NONE);
            *before = before.merge(these);
        }
        for (place, users) in &users {
            self.single_peers[*place].update(*users, &self.occupancy[*place], epoch);
        }
        self.users = users;
        self.config.filter.size = self.config.filter.size.validated();
        self.sweep(1);
    }

    /// Lets every packet to a port in use be looked up.
    pub fn doubt_filter(&mut self) {
        self.set_size(BloomSize::invalidated);
    }

    /// Lets the tuple filter decide.
    pub fn trust_filter(&mut self) {
        self.set_size(BloomSize::validated);
    }

    /// Makes the filter as long as suits so many marks.
    pub fn fit_filter(&mut self, marks: u64) {
        self.set_size(|size| size.fitting(marks, 1));
    }

    /// Whether it does.
    pub fn filters(&self) -> bool {
        self.config.filter.size.is_valid()
    }

    fn set_size(&mut self, change: impl Fn(BloomSize) -> BloomSize) {
        self.config.filter.size = change(self.config.filter.size);
        self.cell = ConfigCell::new(self.config);
    }

    /// The protocol and the local port of a flow, the places of its bytes, and with whom it is.
    fn place_of(&self, key: &Key) -> (u32, u16, [usize; 2], PeerHash) {
        let filter = self.config.filter;
        match key {
            Key::V4(key) => {
                let ports = (key.local_port, key.remote_port);
                let places = filter.places(&tuple(key.local, key.remote, ports));
                let one = PeerHash::of(key.remote, &filter);
                (key.protocol, u16::from_be(key.local_port), places, one)
            }
            Key::V6(key) => {
                let ports = (key.local_port, key.remote_port);
                let places = filter.places(&tuple(key.local, key.remote, ports));
                let one = PeerHash::of(key.remote, &filter);
                (key.protocol, u16::from_be(key.local_port), places, one)
            }
        }
    }
}

/// The filter does not tell transports apart.
fn tuple<A>(local: A, remote: A, (local_port, remote_port): (u16, u16)) -> Tuple<A> {
    Tuple {
        transport: Transport::Udp,
        local,
        remote,
        local_port,
        remote_port,
    }
}
