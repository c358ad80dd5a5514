//! A sweep over tables in memory, as the daemon's is over maps.

use guard_common::{
    config::ConfigCell,
    filter::Filter,
    flow::Phase,
    parse::{Transport, Tuple},
    tables::Use,
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
            .map(|(key, flow)| (key, flow.phase == Phase::Query as u8))
            .chain(sockets.iter().map(|key| (*key, false)))
            .collect();
        for (key, query) in found {
            let (protocol, port, byte) = self.place_of(&key);
            // The protocol's number is in the key: TCP in two of the four maps alone.
            let transport = Transport::from_number(protocol as u8).unwrap_or(Transport::Udp);
            self.tuples[byte].mark(epoch);
            self.set_mark(Use::flow(transport), port, epoch);
            if query {
                self.set_mark(Use::Query, port, epoch);
            }
        }
        self.config.filter.span = Filter::TRUSTED;
        self.sweep(1);
    }

    /// Lets every packet to a port in use be looked up.
    pub fn doubt_filter(&mut self) {
        self.set_span(Filter::DOUBTED);
    }

    /// Lets the tuple filter decide.
    pub fn trust_filter(&mut self) {
        self.set_span(Filter::TRUSTED);
    }

    /// Whether it does.
    pub fn filters(&self) -> bool {
        self.config.filter.span == Filter::TRUSTED
    }

    fn set_span(&mut self, span: u32) {
        self.config.filter.span = span;
        self.cell = ConfigCell::new(self.config);
    }

    /// The protocol and the local port of a flow, and its byte in the filter.
    fn place_of(&self, key: &Key) -> (u32, u16, usize) {
        let filter = self.config.filter;
        match key {
            Key::V4(key) => {
                let ports = (key.local_port, key.remote_port);
                let byte = filter.index(&tuple(key.local, key.remote, ports));
                (key.protocol, u16::from_be(key.local_port), byte)
            }
            Key::V6(key) => {
                let ports = (key.local_port, key.remote_port);
                let byte = filter.index(&tuple(key.local, key.remote, ports));
                (key.protocol, u16::from_be(key.local_port), byte)
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
