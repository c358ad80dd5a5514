//! From an encoding to what the network carries: a datagram, a segment or an ICMP message.

use std::net::IpAddr;

use guard_common::outcome::Family;

use super::{
    bytes::{chain, checksum, octets},
    encoding::{Carried, Checksum, Datagram, Encoding, Problem},
};

/// What TCP carries instead of the number itself, so that some data behind it does not matter.
pub const SPREAD: u32 = 64;

/// Set in the number of what a sender has forged.
pub const FORGED: u32 = 1 << 25;

/// Where the checksum of an ICMP message is.
const ICMP_CHECKSUM: usize = 2;

impl Encoding {
    /// Its bytes, or those of what a sender has forged in its name: with another port of the
    /// sender, and another number.
    pub(super) fn transport(&self, forged: bool) -> Vec<u8> {
        let (remote, local) = (self.remote().1, self.local().1);
        let (remote, id) = if forged {
            (remote ^ 0x1000, self.id | FORGED)
        } else {
            (remote, self.id)
        };
        let (mut bytes, checksum_at) = match self.carried {
            Carried::Udp | Carried::UdpLite => (self.datagram([remote, local], id), 6),
            Carried::Syn => (self.segment([remote, local], id, 0x02), 16),
            Carried::Ack(flags) => (self.segment([remote, local], id, 0x10 | flags), 16),
            Carried::Error(problem, about) => {
                let mut bytes = self.complaint(problem);
                bytes.extend(self.quoted(about, [local, remote], id));
                (bytes, ICMP_CHECKSUM)
            }
            Carried::Echo => (self.echo(id), ICMP_CHECKSUM),
        };
        let sum = match self.checksum {
            Checksum::Absent => 0,
            Checksum::Right => self.checksum_of(&bytes),
            Checksum::Wrong => self.checksum_of(&bytes) ^ 0x0100,
        };
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// How many bytes tell whose it is: both ports, its own or those of what it quotes, or that it
    /// is nobody's.
    pub(super) fn telling(&self) -> usize {
        const PORTS: usize = 4;

        match self.carried {
            Carried::Udp | Carried::UdpLite | Carried::Syn | Carried::Ack(_) => PORTS,
            Carried::Error(problem, about) => {
                let quoted = self.quoted(about, [0, 0], 0).len();
                self.complaint(problem).len() + quoted - 8 - self.data + PORTS
            }
            Carried::Echo => 1,
        }
    }

    fn datagram(&self, ports: [u16; 2], id: u32) -> Vec<u8> {
        let length = self.transport_length.unwrap_or(8 + self.data as u16);
        let mut bytes = ports.map(u16::to_be_bytes).concat();
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data(id, self.data));
        bytes
    }

    fn segment(&self, ports: [u16; 2], id: u32, flags: u8) -> Vec<u8> {
        let number = id.wrapping_mul(SPREAD).to_be_bytes();
        let words = self.transport_length.unwrap_or(5) as u8;
        let mut bytes = ports.map(u16::to_be_bytes).concat();
        bytes.extend([number, number].concat());
        bytes.extend([words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(data(id, self.data));
        bytes
    }

    /// The header of an ICMP error.
    fn complaint(&self, problem: Problem) -> Vec<u8> {
        /// Of a link that is narrow, and wide enough for all that the hosts say.
        const MTU: u16 = 1_400;

        let [high, low] = MTU.to_be_bytes();
        let length = self.transport_length.unwrap_or(0) as u8;
        match (self.family, problem) {
            (Family::Ipv6, Problem::Unreachable) => vec![1, 4, 0, 0, length, 0, 0, 0],
            (Family::Ipv6, Problem::TooBig) => vec![2, 0, 0, 0, 0, 0, high, low],
            (Family::Ipv6, Problem::TimeExceeded) => vec![3, 0, 0, 0, length, 0, 0, 0],
            (Family::Ipv6, Problem::Parameter) => vec![4, 0, 0, 0, 0, 0, 0, 6],
            (_, Problem::Unreachable) => vec![3, 3, 0, 0, 0, length, 0, 0],
            (_, Problem::TooBig) => vec![3, 4, 0, 0, 0, length, high, low],
            (_, Problem::TimeExceeded) => vec![11, 0, 0, 0, 0, length, 0, 0],
            (_, Problem::Parameter) => vec![12, 0, 0, 0, 9, length, 0, 0],
        }
    }

    /// The datagram that the host is said to have sent.
    fn quoted(&self, about: Datagram, ports: [u16; 2], id: u32) -> Vec<u8> {
        let mut datagram = ports.map(u16::to_be_bytes).concat();
        datagram.extend((8 + self.data as u16).to_be_bytes());
        datagram.extend([0x12, 0x34]);
        datagram.extend(data(id, self.data));

        let mut bytes = match self.family {
            Family::Ipv6 => {
                let (first, extensions) = chain(&self.quote.extensions, about.protocol());
                let length = (extensions.len() + datagram.len()) as u16;
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([first, 1]);
                header.extend(octets(self.local().0));
                header.extend(octets(self.remote().0));
                header.extend(extensions);
                header
            }
            Family::Ipv4 | Family::Other => {
                let header = 20 + self.quote.options.len();
                let length = (header + datagram.len()) as u16;
                let mut header = vec![0x40 | (header / 4) as u8, 0];
                header.extend(length.to_be_bytes());
                header.extend((id as u16).to_be_bytes());
                header.extend(self.quote.fragment.to_be_bytes());
                header.extend([1, about.protocol(), 0, 0]);
                header.extend(octets(self.local().0));
                header.extend(octets(self.remote().0));
                header.extend(&self.quote.options);
                header
            }
        };
        bytes.extend(datagram);
        bytes
    }

    fn echo(&self, id: u32) -> Vec<u8> {
        let request = match self.family {
            Family::Ipv6 => 128,
            Family::Ipv4 | Family::Other => 8,
        };
        let mut bytes = vec![request, 0, 0, 0];
        bytes.extend(id.to_be_bytes());
        bytes.extend(data(id, self.data));
        bytes
    }

    fn checksum_of(&self, transport: &[u8]) -> u16 {
        let length = transport.len();
        // The kernel looks at no more than a datagram says that it has, or is covered.
        let (length, covered) = match (self.carried, self.transport_length) {
            (Carried::Udp, Some(said)) if said >= 8 => (length.min(said.into()), said.into()),
            (Carried::UdpLite, Some(said)) if said >= 8 => (length, said.into()),
            _ => (length, length),
        };
        let mut summed = Vec::new();
        let in_ipv4 = matches!(self.source(), IpAddr::V4(_));
        if !(in_ipv4 && matches!(self.carried, Carried::Error(..) | Carried::Echo)) {
            summed.extend(octets(self.source()));
            summed.extend(octets(self.local().0));
            summed.extend((length as u32).to_be_bytes());
            summed.extend([0, 0, 0, self.carried.protocol(self.family)]);
        }
        summed.extend(&transport[..covered.min(transport.len())]);
        match checksum(&summed) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// The number, and bytes that depend on it, so that two datagrams differ everywhere.
fn data(id: u32, length: usize) -> Vec<u8> {
    let number = id.to_be_bytes();
    (0..length)
        .map(|at| number.get(at).copied().unwrap_or((id as usize + at) as u8))
        .collect()
}
