//! Frames, byte by byte: plain, dressed up, or damaged.

use std::net::IpAddr;

use super::{random::Random, scene::Talk};

const TCP: u8 = 6;

/// The usual TCP flags, of opening, talking, closing and resetting, and unusual ones.
const FLAGS: [u8; 14] = [
    0x02, 0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x11, 0x01, 0x04, 0x14, 0x00, 0x06, 0x03,
];

/// Numbers of protocols and extension headers.
const NUMBERS: [u8; 15] = [0, 1, 2, 4, 6, 17, 33, 41, 43, 44, 47, 51, 58, 59, 60];

/// Who sends a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// This host.
    Here,
    /// The peer.
    There,
}

/// A frame of a conversation.
pub fn frame(random: &mut Random, talk: &Talk, sender: Sender) -> Vec<u8> {
    let transport = transport(random, talk, sender);
    let packet = packet(random, talk, sender, talk.protocol, transport);
    let group = match sender {
        Sender::Here => is_group(talk.remote.0),
        Sender::There => is_group(talk.local.0),
    };
    linked(random, talk.local.0.is_ipv6(), group, packet)
}

/// An ICMP message about a conversation, or about nothing.
pub fn message(random: &mut Random, talk: &Talk, router: IpAddr) -> Vec<u8> {
    let v6 = talk.local.0.is_ipv6();
    let kinds: &[u8] = if v6 {
        &[1, 2, 3, 4, 4, 127, 128, 129, 133, 137]
    } else {
        &[3, 3, 4, 5, 11, 12, 0, 8, 13, 2]
    };
    let mut bytes = vec![random.pick(kinds), random.byte() & 7, 0, 0, 0, 0, 5, 0];
    let quoted = transport(random, talk, Sender::Here);
    let mut quoted = packet(random, talk, Sender::Here, talk.protocol, quoted);
    let header = if v6 { 40 } else { 20 };
    if random.chance(50) {
        quoted.truncate(header + 8);
    } else if random.chance(20) {
        quoted.truncate(random.below(header + 12));
    }
    bytes.extend(quoted);
    if random.chance(5) {
        bytes.truncate(random.below(10));
    }
    let outer = Talk {
        protocol: if v6 { 58 } else { 1 },
        local: talk.local,
        remote: (router, 0),
    };
    let packet = packet(random, &outer, Sender::There, outer.protocol, bytes);
    linked(random, v6, false, packet)
}

/// A frame of anything else.
pub fn other(random: &mut Random, talk: &Talk) -> Vec<u8> {
    match random.below(3) {
        0 => {
            let length = 14 + random.below(80);
            random.bytes(length)
        }
        1 => {
            let mut frame = vec![2; 12];
            frame.extend(random.pick(&[[8, 6], [0x88, 0xcc], [0x91, 0], [0, 40], [8, 0]]));
            frame.extend(random.bytes(46));
            frame
        }
        _ => {
            let number = random.pick(&NUMBERS);
            let payload = random.bytes(24);
            let packet = packet(random, talk, Sender::There, number, payload);
            linked(random, talk.local.0.is_ipv6(), false, packet)
        }
    }
}

/// Damages a frame, but for its length below 14 bytes.
pub fn damage(random: &mut Random, frame: &mut Vec<u8>) {
    const ETHERNET: usize = 14;
    const TELLING: [u8; 12] = [
        0x00, 0x01, 0x06, 0x11, 0x20, 0x2c, 0x3c, 0x45, 0x60, 0x81, 0x9c, 0xff,
    ];

    for _ in 0..1 + random.below(3) {
        // Nearly everything is decided in the first bytes.
        let at = random.below(frame.len().min(100));
        match random.below(6) {
            0 | 1 => frame[at] ^= 1 << random.below(8),
            2 => frame[at] = random.pick(&TELLING),
            3 => frame[at] = random.byte(),
            4 => frame.truncate(ETHERNET + random.below(frame.len() - ETHERNET + 1)),
            _ => frame.insert(at, frame[at]),
        }
    }
}

fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

fn transport(random: &mut Random, talk: &Talk, sender: Sender) -> Vec<u8> {
    let (source, destination) = match sender {
        Sender::Here => (talk.local.1, talk.remote.1),
        Sender::There => (talk.remote.1, talk.local.1),
    };
    let mut bytes = source.to_be_bytes().to_vec();
    bytes.extend(destination.to_be_bytes());
    if talk.protocol == TCP {
        bytes.extend([0; 8]);
        let flags = if random.chance(90) {
            random.pick(&FLAGS)
        } else {
            random.byte()
        };
        bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        bytes.extend([0, 12, 0, 0]);
    }
    let payload = random.below(12);
    bytes.extend(random.bytes(payload));
    if random.chance(4) {
        bytes.truncate(random.below(16));
    }
    bytes
}

/// The Ethernet header and now and then tags in front of a packet.
fn linked(random: &mut Random, v6: bool, group: bool, packet: Vec<u8>) -> Vec<u8> {
    let group = group != random.chance(3);
    let mut frame = vec![2 | u8::from(group), 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let tags = match random.below(20) {
        0 => 1 + random.below(7),
        1 => 1,
        _ => 0,
    };
    for _ in 0..tags {
        frame.extend(random.pick(&[[0x81, 0], [0x88, 0xa8]]));
        frame.extend([0, random.pick(&[0, 0, 7])]);
    }
    frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
    frame.extend(packet);
    if random.chance(5) {
        frame.extend(vec![0; random.below(20)]);
    }
    frame
}

/// A network header in front of a transport header.
fn packet(
    random: &mut Random,
    talk: &Talk,
    sender: Sender,
    number: u8,
    transport: Vec<u8>,
) -> Vec<u8> {
    let (source, destination) = match sender {
        Sender::Here => (talk.local.0, talk.remote.0),
        Sender::There => (talk.remote.0, talk.local.0),
    };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ends = [source.octets(), destination.octets()].concat();
            ipv4(random, &ends, number, transport)
        }
        _ => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let ends = [octets(source), octets(destination)].concat();
            ipv6(random, &ends, number, transport)
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

fn ipv4(random: &mut Random, ends: &[u8], number: u8, transport: Vec<u8>) -> Vec<u8> {
    let words = if random.chance(8) {
        1 + random.below(10)
    } else {
        0
    };
    let (offset, more) = if random.chance(15) {
        piece(random)
    } else {
        (0, false)
    };
    let reserved = u16::from(random.chance(2)) << 15;
    let whole = u16::from(!more && random.chance(50)) << 14;
    let fragment = offset | u16::from(more) << 13 | whole | reserved;
    let length = if random.chance(5) {
        random.word()
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

fn ipv6(random: &mut Random, ends: &[u8], number: u8, transport: Vec<u8>) -> Vec<u8> {
    let count = match random.below(40) {
        0 => 7 + random.below(4),
        1..7 => 1 + random.below(3),
        _ => 0,
    };
    let mut chain: Vec<u8> = (0..count)
        .map(|_| random.pick(&[0, 43, 44, 51, 60, 60]))
        .collect();
    if random.chance(10) {
        let at = random.below(chain.len() + 1);
        chain.insert(at, 44);
    }
    let mut extensions = Vec::new();
    for (index, kind) in chain.iter().enumerate() {
        let next = chain.get(index + 1).copied().unwrap_or(number);
        extensions.extend(extension(random, *kind, next));
    }

    let length = if random.chance(5) {
        random.word()
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
