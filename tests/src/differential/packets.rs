//! Frames, byte by byte: plain, dressed up, or damaged.

mod ip;

use std::net::IpAddr;

use super::{
    places::{ELSEWHERE, OWN_LINKS},
    random::Random,
    scene::Talk,
};

use ip::packet;

const TCP: u8 = 6;

/// The usual TCP flags, of opening, talking, closing and resetting, and unusual ones.
const FLAGS: [u8; 14] = [
    0x02, 0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x11, 0x01, 0x04, 0x14, 0x00, 0x06, 0x03,
];

/// Numbers of protocols and extension headers.
const NUMBERS: [u8; 15] = [0, 1, 2, 4, 6, 17, 33, 41, 43, 44, 47, 51, 58, 59, 60];

/// A group of each family.
const GROUPS: [IpAddr; 2] = [ELSEWHERE[0][4], ELSEWHERE[1][3]];

/// Pieces among a hundred frames, where nothing else is asked for.
pub const PIECES: usize = 10;

/// Who sends a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// This host.
    Here,
    /// The peer.
    There,
}

/// A frame of a conversation. So many out of a hundred are pieces of a datagram.
pub fn frame(random: &mut Random, talk: &Talk, sender: Sender, pieces: usize) -> Vec<u8> {
    let transport = transport(random, talk, sender);
    let packet = packet(random, talk, sender, talk.protocol, transport, pieces);
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
    let mut about = *talk;
    if random.chance(15) {
        // What this host may have asked a group.
        about.remote.0 = GROUPS[usize::from(v6)];
        about.protocol = random.pick(&[17, 17, 17, 136]);
    }
    let mut quoted = transport(random, &about, Sender::Here);
    let mut number = about.protocol;
    if random.chance(10) {
        // An echo reply, or nearly.
        number = if v6 { 58 } else { random.pick(&[1, 1, 1, 58]) };
        quoted.insert(0, random.pick(&[0, 0, 8, 129]));
    }
    let mut quoted = packet(random, &about, Sender::Here, number, quoted, PIECES);
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
    let packet = packet(random, &outer, Sender::There, outer.protocol, bytes, PIECES);
    // What bridges make of it may depend on what it is, and not on what it quotes.
    let group = random.chance(20);
    linked(random, v6, group, packet)
}

/// A frame of anything else.
pub fn other(random: &mut Random, talk: &Talk) -> Vec<u8> {
    match random.below(4) {
        3 => looped(random, talk),
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
            let packet = packet(random, talk, Sender::There, number, payload, PIECES);
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

/// The Ethernet type of a PPPoE session, its header, and the number of what it carries.
fn session(random: &mut Random, v6: bool) -> Vec<u8> {
    let number = if v6 { 0x57 } else { 0x21 };
    let mut bytes = vec![0x88, 0x64, 0x11, 0, 0, 1, 0, 0];
    match random.below(8) {
        0 => bytes.push(number),
        1 => bytes.extend([0, random.pick(&[0x21, 0x57, 0x00, 0x3d])]),
        2 => bytes.extend([random.pick(&[0x21, 0x57, 0xc0, 0x01]), number]),
        _ => bytes.extend([0, number]),
    }
    bytes
}

/// A packet without an Ethernet header, as this host hears what it has sent to a group, from an
/// address that reads like an Ethernet type, or nearly.
fn looped(random: &mut Random, talk: &Talk) -> Vec<u8> {
    let v6 = random.chance(50);
    let payload = random.bytes(20);
    let mut bytes = if v6 {
        let mut header = vec![0x60, 0, 0, 0, 0, 20, 17, 1];
        header.extend(random.bytes(32));
        header[24] = 0xff;
        header
    } else {
        let mut header = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 1, 17, 0, 0];
        header.extend(random.bytes(4));
        header.extend([239, 255, 255, 250]);
        header
    };
    bytes.extend(payload);
    let kind = random.pick(&[[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0x64], [10, 9]]);
    bytes[12..14].copy_from_slice(&kind);
    bytes[14] = random.pick(&[0, 0, 0x40, 0x44, 0x45, 0x60, 0x6f]);
    if random.chance(10) {
        bytes.extend(talk.local.1.to_be_bytes());
    }
    bytes
}

/// The Ethernet header and now and then tags in front of a packet.
fn linked(random: &mut Random, v6: bool, group: bool, packet: Vec<u8>) -> Vec<u8> {
    /// Everybody's address, and what differs from it in a byte or two.
    const GROUPS: [[u8; 6]; 5] = [
        [0xff; 6],
        [0xff; 6],
        [3, 0xbf, 0, 0, 0, 2],
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
        [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];

    /// This host's link address, and what differs from it.
    const LINKS: [[u8; 6]; 6] = [
        OWN_LINKS[0],
        OWN_LINKS[0],
        OWN_LINKS[0],
        [2, 0, 0, 0, 0, 3],
        [2, 0, 0, 0, 1, 2],
        [6, 0, 0, 0, 0, 2],
    ];

    let to = if group != random.chance(3) {
        random.pick(&GROUPS)
    } else {
        random.pick(&LINKS)
    };
    let mut frame = to.to_vec();
    frame.extend(random.pick(&LINKS));
    let tags = match random.below(20) {
        0 => 1 + random.below(7),
        1 => 1,
        _ => 0,
    };
    for _ in 0..tags {
        frame.extend(random.pick(&[[0x81, 0], [0x88, 0xa8]]));
        frame.extend([0, random.pick(&[0, 0, 7])]);
    }
    if random.chance(4) {
        frame.extend(session(random, v6));
    } else {
        frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
    }
    frame.extend(packet);
    if random.chance(5) {
        frame.extend(vec![0; random.below(20)]);
    }
    frame
}
