//! Tags, options and extension headers made up from a number.

use super::encoding::Extension;
use crate::{
    differential::random::Random,
    frames::{SERVICE_VLAN, VLAN},
};

/// Up to four tags, now and then more; most with the id that the kernel takes off.
pub(super) fn tags(random: &mut Random) -> Vec<(u16, u16)> {
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

/// Up to three, now and then many.
pub(super) fn extensions(random: &mut Random) -> Vec<Extension> {
    if random.chance(15) {
        // Many, which are nothing else.
        return (0..7 + random.below(4))
            .map(|_| options_header(random.pick(&[0, 0, 1])))
            .collect();
    }
    (0..1 + random.below(3))
        .map(|at| extension(random, at == 0))
        .collect()
}

/// Options that are well formed as often as not.
pub(super) fn options(random: &mut Random) -> Vec<u8> {
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

/// Destination options with one that nobody knows, and anyone who does not know it skips.
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
