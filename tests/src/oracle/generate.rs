//! Encodings made up from a number.

use std::{cmp::Reverse, ops::Range};

use guard_common::outcome::Family;

use super::encoding::{
    Carried, Checksum, Encoding, Extension, FAMILIES, Group, LinkAddress, Piece, Sender,
};
use crate::{
    differential::random::Random,
    frames::{SERVICE_VLAN, VLAN},
};

/// Flags of segments besides the one that acknowledges: none, FIN, SYN, PSH, URG, PSH and FIN.
const FLAGS: [u8; 6] = [0, 1, 2, 8, 0x20, 9];

/// Makes up the packet of this number.
pub fn encoding(random: &mut Random, id: u32) -> Encoding {
    let family = random.pick(&FAMILIES);
    let is_tcp = random.chance(25);
    let sender = sender(random, is_tcp);
    let carried = match (is_tcp, sender) {
        (false, _) => Carried::Udp,
        // The answer to a peer's SYN is one to the host's own.
        (true, Sender::Peer) => Carried::Ack(random.pick(&FLAGS)),
        (true, _) if random.chance(50) => Carried::Syn,
        (true, _) => Carried::Ack(random.pick(&FLAGS)),
    };
    let data = match carried {
        Carried::Syn => 0,
        Carried::Udp => 4 + random.below(44),
        Carried::Ack(_) => random.below(40),
    };
    let mut made = Encoding {
        sender,
        family,
        carried,
        data,
        ..Encoding::plain(id)
    };
    // One thing or several, because each of them alone is what a guard has thought of.
    for _ in 0..1 + random.below(3) {
        twist(random, &mut made);
    }
    made
}

fn sender(random: &mut Random, is_tcp: bool) -> Sender {
    let group = match random.below(3) {
        0 => Group::Link,
        1 => Group::Prefix,
        _ => Group::Hosts,
    };
    match random.below(20) {
        0..9 => Sender::Peer,
        9..12 => Sender::OtherPort,
        12..14 => Sender::OtherAddress,
        14..17 => Sender::OtherSocket,
        // TCP does not answer groups.
        _ if is_tcp => Sender::OtherPort,
        _ => Sender::Group(group),
    }
}

fn twist(random: &mut Random, made: &mut Encoding) {
    match random.below(16) {
        0 | 1 => made.tags = tags(random),
        2 | 3 => headers(random, made),
        4..8 => pieces(random, made),
        8 => {
            made.link_address = random.pick(&[
                LinkAddress::Broadcast,
                LinkAddress::Multicast,
                LinkAddress::Other,
            ]);
        }
        9 => made.length_off = random.pick(&[-32, -9, -8, -4, -1, 1, 4, 8, 64, 1_000]),
        10 => lie(random, made),
        11 => {
            made.checksum = random.pick(&[Checksum::Wrong, Checksum::Absent, Checksum::Absent]);
        }
        12 => made.padding = 1 + random.below(30),
        13 => made.missing = 1 + random.below(40),
        14 => {
            made.service = random.byte();
            made.hops = random.pick(&[0, 1, 255]);
            made.flags = random.pick(&[0, 0x4000, 0x8000]);
        }
        _ => {}
    }
}

/// Up to four tags, now and then more; most with the id that the kernel takes off.
fn tags(random: &mut Random) -> Vec<(u16, u16)> {
    let count = if random.chance(10) {
        5 + random.below(4)
    } else {
        1 + random.below(4)
    };
    let tag = |random: &mut Random| {
        let id = if random.chance(8) { 7 } else { 0 };
        let priority = u16::from(random.byte() & 0xf0) << 8;
        (random.pick(&[VLAN, VLAN, SERVICE_VLAN]), priority | id)
    };
    (0..count).map(|_| tag(random)).collect()
}

fn headers(random: &mut Random, made: &mut Encoding) {
    match made.family {
        Family::Ipv4 | Family::Other => made.options = options(random),
        Family::Ipv6 => {
            let chain: Vec<Extension> = if random.chance(15) {
                // Many, which are nothing else.
                (0..7 + random.below(4))
                    .map(|_| options_header(random.pick(&[0, 0, 1])))
                    .collect()
            } else {
                (0..1 + random.below(3))
                    .map(|at| extension(random, at == 0))
                    .collect()
            };
            if random.chance(50) {
                made.outer = chain;
            } else {
                made.inner = chain;
            }
        }
    }
}

/// Options that are well formed as often as not.
fn options(random: &mut Random) -> Vec<u8> {
    let words = 1 + random.below(10);
    let mut bytes = match random.below(5) {
        0 => vec![1; words * 4],
        1 => vec![0; words * 4],
        // Record Route, Router Alert, and what strict routers drop: a source route.
        2 => vec![7, 7, 4, 0, 0, 0, 0],
        3 => vec![148, 4, 0, 0],
        // Nothing known, but of a true length, and what reads like ports.
        _ => vec![0x5e, (words * 4) as u8],
    };
    if bytes.len() > 1 && bytes[0] == 0x5e {
        bytes.extend([0x9c, 0x40].repeat(words * 2 - 1));
    }
    if random.chance(10) {
        let at = random.below(bytes.len());
        bytes[at] = random.byte();
    }
    bytes.resize(bytes.len().next_multiple_of(4).min(40), 0);
    bytes
}

/// Destination options with one that nobody knows, and whoever does not know it skips.
fn options_header(words: usize) -> Extension {
    const UNKNOWN: u8 = 0x1e;

    let length = 8 + words * 8;
    let mut bytes = vec![0; length];
    bytes[1..4].copy_from_slice(&[words as u8, UNKNOWN, (length - 4) as u8]);
    Extension { kind: 60, bytes }
}

fn extension(random: &mut Random, first: bool) -> Extension {
    let words = random.pick(&[0, 0, 0, 1, 2, 7]);
    let mut header = options_header(words);
    if first && random.chance(40) {
        header.kind = 0;
    } else {
        header.kind = random.pick(&[
            60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 43, 43, 43, 44, 44, 44, 0, 51,
        ]);
    }
    let bytes = &mut header.bytes;
    match header.kind {
        // A fragment header of its own, whose number no other packet has: most often of a whole.
        44 => {
            let word = if random.chance(70) {
                0
            } else {
                random.pick(&[1, 8, 9, 16, 6])
            };
            let number = random.below(1 << 30) as u32 | 1 << 31;
            *bytes = vec![0, 0, 0, word];
            bytes.extend(number.to_be_bytes());
        }
        // A routing header without segments left, or with one.
        43 => {
            bytes[2..4].copy_from_slice(&[random.pick(&[0, 2, 99]), u8::from(random.chance(10))]);
        }
        51 => bytes[1] = (bytes.len() / 4 - 2) as u8,
        _ if random.chance(10) => bytes[2] = random.byte(),
        _ => {}
    }
    header
}

/// Pieces in some order: most often all of them, now and then one twice, one that reaches into the
/// next, one too few, or a stranger's.
fn pieces(random: &mut Random, made: &mut Encoding) {
    let whole = made.body_length();
    let mut cuts = vec![0];
    for _ in 0..1 + random.below(3) {
        cuts.push(8 * (1 + random.below(whole.div_ceil(8))));
    }
    cuts.retain(|cut| *cut < whole);
    cuts.push(whole);
    cuts.sort_unstable();
    cuts.dedup();
    let mut pieces: Vec<Piece> = cuts
        .windows(2)
        .map(|ends| piece(ends[0]..ends[1], whole))
        .collect();

    match random.below(20) {
        0..3 => pieces.reverse(),
        3..9 => {
            let keys: Vec<usize> = pieces.iter().map(|_| random.below(1_000)).collect();
            let mut keyed: Vec<_> = keys.into_iter().zip(pieces).collect();
            keyed.sort_by_key(|(key, _)| Reverse(*key));
            pieces = keyed.into_iter().map(|(_, piece)| piece).collect();
        }
        _ => {}
    }
    let at = random.below(pieces.len());
    match random.below(20) {
        0 => pieces.push(pieces[at]),
        1 => pieces[at].end = (pieces[at].end + 8).min(whole),
        2 => drop(pieces.remove(at)),
        3 => pieces[at].more = !pieces[at].more,
        // Nothing, before everything or behind it.
        4 => pieces.insert(at, piece(0..0, whole)),
        5 => pieces.insert(
            at,
            piece(whole.next_multiple_of(8)..whole.next_multiple_of(8), whole),
        ),
        6..8 if made.is_answer() && made.outer.is_empty() => {
            let end = random.pick(&[8, 16, whole]).min(whole);
            let forged = Piece {
                forged: true,
                ..piece(0..end, whole)
            };
            pieces.insert(random.below(pieces.len() + 1), forged);
        }
        _ => {}
    }
    made.pieces = pieces;
}

fn piece(range: Range<usize>, whole: usize) -> Piece {
    Piece {
        start: range.start,
        end: range.end,
        more: range.end < whole,
        forged: false,
    }
}

/// A length of the transport's that is not true.
fn lie(random: &mut Random, made: &mut Encoding) {
    made.transport_length = Some(match made.carried {
        // Never so short that the number is lost, for then nobody knows whose it was.
        Carried::Udp => random.pick(&[0, 7, 12, 12, 14, 16, 60, 2_000]),
        Carried::Syn | Carried::Ack(_) => random.pick(&[0, 4, 6, 15]),
    });
}
