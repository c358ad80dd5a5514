//! Encodings made up from a number.

use std::{cmp::Reverse, ops::Range};

use guard_common::outcome::Family;

use super::{
    encoding::{Carried, Checksum, Datagram, Encoding, LinkAddress, Piece, Problem},
    ends::{FAMILIES, Group, Sender},
    headers::{extensions, options, tags},
};
use crate::differential::random::Random;

/// Flags of segments besides the one that acknowledges: none, FIN, SYN, PSH, URG, PSH and FIN.
const FLAGS: [u8; 6] = [0, 1, 2, 8, 0x20, 9];

/// Makes up the packet of this number.
pub fn encoding(random: &mut Random, id: u32) -> Encoding {
    let family = random.pick(&FAMILIES);
    let kind = random.below(20);
    let sender = sender(random, !(11..19).contains(&kind));
    let carried = match (kind, sender) {
        (0..9, _) => Carried::Udp,
        (9..11, _) => Carried::UdpLite,
        // The answer to a peer's SYN is one to the host's own.
        (11..15, Sender::Peer) => Carried::Ack(random.pick(&FLAGS)),
        (11..15, _) if random.chance(50) => Carried::Syn,
        (11..15, _) => Carried::Ack(random.pick(&FLAGS)),
        (15..19, _) => Carried::Error(
            random.pick(&[
                Problem::Unreachable,
                Problem::TooBig,
                Problem::TimeExceeded,
                Problem::Parameter,
            ]),
            random.pick(&[Datagram::Udp, Datagram::Udp, Datagram::UdpLite]),
        ),
        _ => Carried::Echo,
    };
    let data = match carried {
        Carried::Syn => 0,
        Carried::Udp | Carried::UdpLite | Carried::Error(..) => 4 + random.below(44),
        Carried::Ack(_) | Carried::Echo => random.below(40),
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
        mutation(random, &mut made);
    }
    made
}

fn sender(random: &mut Random, to_groups: bool) -> Sender {
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
        // TCP does not answer groups, and errors are about what was sent to one host.
        _ if !to_groups => Sender::OtherPort,
        _ => Sender::Group(group),
    }
}

fn mutation(random: &mut Random, made: &mut Encoding) {
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
        14 | 15 if matches!(made.carried, Carried::Error(..)) => quoted_headers(random, made),
        14 => {
            made.service = random.byte();
            made.hops = random.pick(&[0, 1, 255]);
            made.flags = random.pick(&[0, 0x4000, 0x8000]);
        }
        _ => {}
    }
}

fn headers(random: &mut Random, made: &mut Encoding) {
    match made.family {
        Family::Ipv4 | Family::Other => made.options = options(random),
        Family::Ipv6 => {
            let chain = extensions(random);
            if random.chance(50) {
                made.outer = chain;
            } else {
                made.inner = chain;
            }
        }
    }
}

/// Those of the packet that an error is about.
fn quoted_headers(random: &mut Random, made: &mut Encoding) {
    /// Do not fragment, more fragments, and a later piece.
    const FRAGMENTS: [u16; 4] = [0, 0x4000, 0x2000, 0x2007];

    match made.family {
        Family::Ipv4 | Family::Other => {
            made.quote.options = options(random);
            made.quote.fragment = random.pick(&FRAGMENTS);
        }
        Family::Ipv6 => made.quote.extensions = extensions(random),
    }
}

/// Pieces in some order: most often all of them, now and then one twice, one that reaches into the
/// next, one too few, or an unsolicited sender's.
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
        6..8 if made.is_answer() && made.carried != Carried::Echo && made.outer.is_empty() => {
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
        Carried::UdpLite => random.pick(&[0, 7, 8, 8, 12, 20, 60, 2_000]),
        Carried::Error(..) | Carried::Echo => random.pick(&[1, 5, 32, 255]),
        Carried::Syn | Carried::Ack(_) => random.pick(&[0, 4, 6, 15]),
    });
}
