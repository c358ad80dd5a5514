//! Network headers, with options, extension headers and pieces of datagrams.

use std::net::IpAddr;

use super::Sender;
use crate::differential::{random::Random, scene::Talk};

/// A network header in front of a transport header.
pub(super) fn packet(
    random: &mut Random,
    talk: &Talk,
    sender: Sender,
    number: u8,
    transport: Vec<u8>,
    pieces: usize,
) -> Vec<u8> {
    let (source, destination) = match sender {
        Sender::Here => (talk.local.0, talk.remote.0),
        Sender::There => (talk.remote.0, talk.local.0),
    };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ends = [source.octets(), destination.octets()].concat();
            ipv4(random, &ends, number, transport, pieces)
        }
        _ => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let ends = [octets(source), octets(destination)].concat();
            ipv6(random, &ends, number, transport, pieces)
        }
    }
}

/// An offset of a fragment in units of 8 bytes, and whether more follow.
fn piece(random: &mut Random) -> (u16, bool) {
    match random.below(4) {
        0 | 1 => (0, true),
        2 => (random.pick(&[1, 2, 185, 0x1fff, 0x1000]), random.chance(50)),
        _ => (1 << random.below(13), random.chance(50)),
    }
}

/// Hardly ever right: none, one that ends within the headers, or any.
fn wrong_length(random: &mut Random) -> u16 {
    let any = random.word();
    random.pick(&[0, 8, 16, 20, 28, 48, any])
}

fn ipv4(
    random: &mut Random,
    ends: &[u8],
    number: u8,
    transport: Vec<u8>,
    pieces: usize,
) -> Vec<u8> {
    let words = if random.chance(8) {
        1 + random.below(10)
    } else {
        0
    };
    let (offset, more) = if random.chance(pieces) {
        piece(random)
    } else {
        (0, false)
    };
    let reserved = u16::from(random.chance(2)) << 15;
    let whole = u16::from(!more && random.chance(50)) << 14;
    let fragment = offset | u16::from(more) << 13 | whole | reserved;
    let length = if random.chance(5) {
        wrong_length(random)
    } else {
        (20 + words * 4 + transport.len()) as u16
    };

    let mut bytes = vec![0x45 + words as u8, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, random.pick(&[1, 1, 2])]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, number, 0, 0]);
    bytes.extend(ends);
    // Options that read like ports.
    bytes.extend([0, 80, 0x9c, 0x40].repeat(words));
    bytes.extend(transport);
    if random.chance(1) {
        bytes[0] = random.byte();
    }
    bytes
}

fn ipv6(
    random: &mut Random,
    ends: &[u8],
    number: u8,
    transport: Vec<u8>,
    pieces: usize,
) -> Vec<u8> {
    let count = match random.below(40) {
        0 => 7 + random.below(4),
        1..7 => 1 + random.below(3),
        _ => 0,
    };
    let mut chain: Vec<u8> = (0..count)
        .map(|_| random.pick(&[0, 43, 44, 51, 60, 60]))
        .collect();
    if random.chance(pieces) {
        let at = random.below(chain.len() + 1);
        chain.insert(at, 44);
    }
    let mut extensions = Vec::new();
    for (index, kind) in chain.iter().enumerate() {
        let next = chain.get(index + 1).copied().unwrap_or(number);
        extensions.extend(extension(random, *kind, next));
    }

    let length = if random.chance(5) {
        wrong_length(random)
    } else {
        (extensions.len() + transport.len()) as u16
    };
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([chain.first().copied().unwrap_or(number), 64]);
    bytes.extend(ends);
    bytes.extend(extensions);
    bytes.extend(transport);
    if random.chance(1) {
        bytes[0] = random.byte();
    }
    bytes
}

fn extension(random: &mut Random, kind: u8, next: u8) -> Vec<u8> {
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;

    if kind == FRAGMENT {
        let (offset, more) = if random.chance(30) {
            (0, false)
        } else {
            piece(random)
        };
        let reserved = u16::from(random.chance(5)) << 1;
        let [high, low] = (offset << 3 | reserved | u16::from(more)).to_be_bytes();
        return vec![next, 0, high, low, 0, 0, 0, random.pick(&[1, 1, 2])];
    }
    let length = match random.below(20) {
        0 => random.byte(),
        1..4 => random.pick(&[1, 2, 3]),
        _ => 0,
    };
    // What follows the length reads like ports.
    let bytes = match kind {
        AUTHENTICATION => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    };
    let mut header = vec![next, length];
    header.extend([0x9c, 0x40].repeat(bytes / 2 - 1));
    header
}
