//! From a description to bytes.

use etherparse::{EtherType, Ethernet2Header, SingleVlanHeader, VlanId};
use guard_common::outcome::{Family, Protocol};

use super::{Carried, Edit, End, Frame, G, P, PPPOE, SeenAs, Session};

impl Frame {
    /// Whether the frame exists in this family.
    pub fn exists_in(&self, family: Family) -> bool {
        self.only.is_none_or(|only| only == family)
    }

    /// The labels the frame is counted under.
    pub fn labels(&self, family: Family) -> (Family, Protocol) {
        let family = self.only.unwrap_or(family);
        match (&self.seen_as, &self.carried) {
            (Some(SeenAs::Nothing), _) => (Family::Other, Protocol::Other),
            (Some(SeenAs::Family), _) => (family, Protocol::Other),
            (Some(SeenAs::Protocol(protocol)), _) => (family, *protocol),
            (None, Carried::Ip(_, payload, _)) => (family, payload.label()),
            (None, Carried::Other(..) | Carried::Raw(_)) => (Family::Other, Protocol::Other),
        }
    }

    /// The bytes of the frame as the guarded host receives it: from [`P`] to [`G`].
    pub fn received(&self, family: Family) -> Vec<u8> {
        self.build(family, P, G)
    }

    /// The bytes of the frame as the guarded host sends it: from [`G`] to [`P`].
    pub fn sent(&self, family: Family) -> Vec<u8> {
        self.build(family, G, P)
    }

    fn build(&self, family: Family, source: End, destination: End) -> Vec<u8> {
        let family = self.only.unwrap_or(family);
        let source = self.source.unwrap_or(source);
        let destination = self.destination.unwrap_or(destination);
        if let Carried::Raw(bytes) = &self.carried {
            return bytes.clone();
        }
        let (ether_type, packet) = self.packet(family, &source, &destination);
        let (ether_type, packet) = match self.session {
            None => (ether_type, packet),
            Some(session) => (PPPOE, in_session(session, ether_type, &packet)),
        };

        let types: Vec<u16> = self
            .tags
            .iter()
            .map(|(tag_type, _)| *tag_type)
            .chain([ether_type])
            .collect();
        let mut frame = Ethernet2Header {
            source: source.mac,
            destination: destination.mac,
            ether_type: EtherType(types[0]),
        }
        .to_bytes()
        .to_vec();
        for ((_, id), next) in self.tags.iter().zip(&types[1..]) {
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(*id).expect("a VLAN id has 12 bits"),
                ether_type: EtherType(*next),
                ..SingleVlanHeader::default()
            };
            frame.extend(tag.to_bytes());
        }
        frame.extend(packet);
        frame
    }

    /// The Ethernet type and what follows the link headers.
    fn packet(&self, family: Family, source: &End, destination: &End) -> (u16, Vec<u8>) {
        let (network, payload, data) = match &self.carried {
            Carried::Ip(network, payload, data) => (network, payload, data),
            Carried::Other(ether_type, bytes) => return (*ether_type, bytes.clone()),
            Carried::Raw(bytes) => return (0, bytes.clone()),
        };
        let transport = payload.bytes(data, family, source, destination);
        let number = payload.number(family);
        let packet = network.wrap(family, (source, destination), number, transport);
        let (start, mut bytes) = (packet.transport, packet.bytes);
        for edit in &self.edits {
            match edit {
                Edit::Network(at, new) => bytes[*at..at + new.len()].copy_from_slice(new),
                Edit::Transport(at, new) => {
                    bytes[start + at..start + at + new.len()].copy_from_slice(new);
                }
                Edit::CutTransport(length) => bytes.truncate(start + length),
                Edit::Pad(length) => bytes.resize(bytes.len() + length, 0),
            }
        }

        match family {
            Family::Ipv6 => (EtherType::IPV6.0, bytes),
            Family::Ipv4 | Family::Other => (EtherType::IPV4.0, bytes),
        }
    }

    /// The packet as it is quoted by an error that `source` is told of.
    pub(super) fn quoted(&self, family: Family, source: &End, transport_bytes: usize) -> Vec<u8> {
        let mut quoted = self.clone();
        quoted.edits.push(Edit::CutTransport(transport_bytes));
        let source = self.source.unwrap_or(*source);
        let destination = self.destination.unwrap_or(P);
        quoted.packet(family, &source, &destination).1
    }
}

/// A packet in a PPPoE session.
fn in_session(session: Session, ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let number = if ether_type == EtherType::IPV6.0 {
        0x57
    } else {
        0x21
    };
    let number: &[u8] = match session {
        Session::TwoBytes => &[0, number],
        Session::OneByte => &[number],
    };
    let length = (number.len() + packet.len()) as u16;
    let [high, low] = length.to_be_bytes();
    [&[0x11, 0, 0, 1, high, low], number, packet].concat()
}
