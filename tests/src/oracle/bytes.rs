//! From an encoding to frames.

use std::net::IpAddr;

use guard_common::outcome::Family;

use super::{
    encoding::{Encoding, Extension, LinkAddress, Piece},
    ends::{Group, PEERS, Sender},
};
use crate::frames::{G, P};

const FRAGMENT: u8 = 44;

impl Encoding {
    /// The frames, in the order in which they are sent.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        if self.pieces.is_empty() {
            let (next, body) = self.body(false);
            return vec![self.frame(next, &body, None)];
        }
        let frame = |piece: &Piece| {
            let (next, body) = self.body(piece.forged);
            let end = piece.end.min(body.len());
            self.frame(next, &body[piece.start.min(end)..end], Some(*piece))
        };
        self.pieces.iter().map(frame).collect()
    }

    /// How long what can be cut into pieces is.
    pub fn body_length(&self) -> usize {
        self.body(false).1.len()
    }

    /// What can be cut into pieces, and what it starts with.
    fn body(&self, forged: bool) -> (u8, Vec<u8>) {
        let transport = self.transport(forged);
        let (first, mut bytes) = chain(&self.inner, self.carried.protocol(self.family));
        bytes.extend(transport);
        (first, bytes)
    }

    fn frame(&self, next: u8, body: &[u8], piece: Option<Piece>) -> Vec<u8> {
        let mut frame = self.link();
        frame.extend(match self.family {
            Family::Ipv6 => self.ipv6(next, body, piece),
            Family::Ipv4 | Family::Other => self.ipv4(body, piece),
        });
        frame.resize(frame.len() + self.padding, 0xa5);
        frame.truncate(frame.len().saturating_sub(self.missing).max(14));
        frame
    }

    fn link(&self) -> Vec<u8> {
        let to = match (self.link_address, self.sender) {
            (LinkAddress::Right, Sender::Group(Group::Link | Group::Prefix)) => [0xff; 6],
            (LinkAddress::Right, Sender::Group(Group::Hosts)) => match self.family {
                Family::Ipv6 => [0x33, 0x33, 0, 0, 0, 1],
                Family::Ipv4 | Family::Other => [1, 0, 0x5e, 0, 0, 1],
            },
            (LinkAddress::Right, _) => G.mac,
            (LinkAddress::Broadcast, _) => [0xff; 6],
            (LinkAddress::Multicast, _) => [1, 0, 0x5e, 1, 2, 3],
            (LinkAddress::Other, _) => [2, 0, 0, 0, 0, 0x77],
        };
        let mut bytes = [to, P.mac].concat();
        for (tag_type, id) in &self.tags {
            bytes.extend(tag_type.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        bytes.extend(match self.family {
            Family::Ipv6 => [0x86, 0xdd],
            Family::Ipv4 | Family::Other => [8, 0],
        });
        bytes
    }

    /// The number that pieces share, another one for each packet of a peer.
    fn identification(&self) -> u32 {
        self.id / PEERS
    }

    fn ipv4(&self, body: &[u8], piece: Option<Piece>) -> Vec<u8> {
        let header = 20 + self.options.len();
        let length = (header + body.len()) as i32 + self.length_off;
        let fragment = self.flags
            | piece.map_or(0, |piece| {
                (piece.start / 8) as u16 | u16::from(piece.more) << 13
            });
        let mut bytes = vec![0x40 | (header / 4) as u8, self.service];
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend((self.identification() as u16).to_be_bytes());
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([self.hops, self.carried.protocol(self.family), 0, 0]);
        bytes.extend(octets(self.source()));
        bytes.extend(octets(self.local().0));
        bytes.extend(&self.options);
        let sum = checksum(&bytes).to_be_bytes();
        bytes[10..12].copy_from_slice(&sum);
        bytes.extend(body);
        bytes
    }

    fn ipv6(&self, next: u8, body: &[u8], piece: Option<Piece>) -> Vec<u8> {
        let mut fragment = Vec::new();
        let mut follows = next;
        if let Some(piece) = piece {
            let word = piece.start as u16 & !7 | u16::from(piece.more);
            fragment = vec![next, 0];
            fragment.extend(word.to_be_bytes());
            fragment.extend(self.identification().to_be_bytes());
            follows = FRAGMENT;
        }
        let (first, outer) = chain(&self.outer, follows);
        let length = (outer.len() + fragment.len() + body.len()) as i32 + self.length_off;
        let mut bytes = vec![0x60 | self.service >> 4, self.service << 4, 0, 7];
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend([first, self.hops]);
        bytes.extend(octets(self.source()));
        bytes.extend(octets(self.local().0));
        bytes.extend(outer);
        bytes.extend(fragment);
        bytes.extend(body);
        bytes
    }
}

/// The number of the first of these headers, and their bytes, each naming the next.
pub(super) fn chain(extensions: &[Extension], last: u8) -> (u8, Vec<u8>) {
    let mut follows = last;
    let mut headers = Vec::new();
    for extension in extensions.iter().rev() {
        let mut bytes = extension.bytes.clone();
        bytes[0] = follows;
        follows = extension.kind;
        headers.push(bytes);
    }
    headers.reverse();
    (follows, headers.concat())
}

/// An address as it is written into a header.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// The checksum of the internet (RFC 1071), over bytes whose own is zero.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
