//! A frame that is sent again and again with other ports or another destination.

use guard_common::outcome::Family;

/// Behind the Ethernet header.
const NETWORK: usize = 14;

/// A frame without tags, options or extension headers, whose checksums stay right.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    /// Where the IPv4 header has its checksum.
    network_checksum: Option<usize>,
    /// Where the source's and the destination's address have their last two bytes.
    addresses: [usize; 2],
    transport: usize,
    /// Where the transport header has its checksum.
    transport_checksum: usize,
}

impl Template {
    /// Takes a TCP segment, or a datagram of UDP.
    pub fn new(bytes: Vec<u8>, family: Family, tcp: bool) -> Self {
        let (network_checksum, length, address) = match family {
            Family::Ipv4 | Family::Other => (Some(NETWORK + 10), 20, 4),
            Family::Ipv6 => (None, 40, 16),
        };
        let transport = NETWORK + length;
        Self {
            bytes,
            network_checksum,
            addresses: [transport - address - 2, transport - 2],
            transport,
            transport_checksum: transport + if tcp { 16 } else { 6 },
        }
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sends it between other ports.
    pub fn set_ports(&mut self, source: u16, destination: u16) {
        for (at, port) in [(0, source), (2, destination)] {
            let at = self.transport + at;
            let old = self.put(at, port);
            self.amend(self.transport_checksum, old, port);
        }
    }

    /// Sends it from another address, of which these are the last four bytes.
    pub fn set_source(&mut self, low: u32) {
        self.set_address(self.addresses[0], low);
    }

    /// Sends it to another address, likewise.
    pub fn set_destination(&mut self, low: u32) {
        self.set_address(self.addresses[1], low);
    }

    fn set_address(&mut self, end: usize, low: u32) {
        for (at, word) in [(end - 2, (low >> 16) as u16), (end, low as u16)] {
            let old = self.put(at, word);
            self.amend(self.transport_checksum, old, word);
            if let Some(checksum) = self.network_checksum {
                self.amend(checksum, old, word);
            }
        }
    }

    /// Writes a word, and returns the one before.
    fn put(&mut self, at: usize, word: u16) -> u16 {
        let old = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        self.bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
        old
    }

    /// Changes a checksum by the difference of one word: RFC 1624, equation 3.
    fn amend(&mut self, at: usize, old: u16, new: u16) {
        let checksum = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        self.put(at, !(sum as u16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{End, G, P, tcp, udp};

    #[test]
    fn checksums_stay_right() {
        let elsewhere = End {
            ipv4: "10.200.3.77".parse().expect("is an address"),
            ipv6: "fd09::ac8:34d".parse().expect("is an address"),
            ..G
        };
        for family in [Family::Ipv4, Family::Ipv6] {
            for is_tcp in [true, false] {
                let frame = |source, destination| match is_tcp {
                    true => tcp(source, destination).syn(),
                    false => udp(source, destination),
                };
                let mut template =
                    Template::new(frame(53, 40_000).received(family), family, is_tcp);
                template.set_ports(60_999, 32_768);
                assert_eq!(template.bytes(), frame(60_999, 32_768).received(family));
                template.set_destination(0x0ac8_034d);
                let there = frame(60_999, 32_768).to(elsewhere);
                assert_eq!(template.bytes(), there.received(family));
                template.set_source(0x0ac8_034d);
                let between = there.from(End {
                    mac: P.mac,
                    ..elsewhere
                });
                assert_eq!(template.bytes(), between.received(family));
            }
        }
    }
}
