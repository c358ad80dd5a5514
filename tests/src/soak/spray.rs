//! Frames to many ports, and to many hosts.

use std::{io, ops::RangeInclusive};

use anyhow::Result;
use guard_common::outcome::Family;

use super::{budget::Budget, template::Template};
use crate::{
    frames::{N, tcp, udp},
    netns::Namespace,
    setup::FIRST,
    wire::Wire,
};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Somebody on the link who sends datagrams and SYNs to guarded ports, asked by nobody.
#[derive(Debug)]
pub struct UnsolicitedSender {
    wire: Wire,
    frames: Vec<Template>,
    ports: RangeInclusive<u16>,
    /// Those that somebody listens on: every other frame goes to one of them.
    targets: Vec<u16>,
    dice: Dice,
}

impl UnsolicitedSender {
    /// Sends from an interface of the peer's, as [`N`], to these ports, every
    /// other time to one of `targets`.
    pub fn new(
        (peer, interface): (&Namespace, &str),
        ports: RangeInclusive<u16>,
        targets: &[u16],
    ) -> Result<Self> {
        let frames = FAMILIES.into_iter().flat_map(|family| {
            [
                Template::new(udp(53, FIRST).from(N).received(family), family, false),
                Template::new(tcp(443, FIRST).syn().from(N).received(family), family, true),
            ]
        });
        Ok(Self {
            wire: Wire::open(peer, interface)?,
            frames: frames.collect(),
            ports,
            targets: targets.to_vec(),
            dice: Dice(0x9e37_79b9_7f4a_7c15),
        })
    }

    /// Sends until the budget is spent, and returns how many frames the link has taken.
    pub fn send(&mut self, budget: &Budget) -> Result<u64> {
        let mut sent = 0;
        let mut number = 0;
        let (first, last) = (*self.ports.start(), *self.ports.end());
        while budget.take() {
            let port = match number / self.frames.len() % 2 {
                0 if !self.targets.is_empty() => {
                    self.targets[self.dice.below(self.targets.len() as u32) as usize]
                }
                _ => first + self.dice.below(u32::from(last - first) + 1) as u16,
            };
            let source = self.dice.below(1 << 16) as u16;
            let count = self.frames.len();
            let frame = &mut self.frames[number % count];
            frame.set_ports(source, port);
            sent += u64::from(put(&self.wire, frame.bytes())?);
            number += 1;
        }
        Ok(sent)
    }
}

/// Sends one frame from `host` to each of `count` hosts that do not exist, by UDP and TCP, over
/// both families: to 10.128.0.0 and fd09::a80:0 and those after them, beginning with the host of
/// the number `first`.
///
/// Returns how many frames egress has seen. The far end may have had no room for some.
pub fn scan(host: &Namespace, interface: &str, first: u32, count: u32) -> Result<u64> {
    const HOSTS: u32 = 0x0a80_0000;
    const SERVICE: u16 = 443;
    /// Ports that it is made from.
    const PORTS: u32 = 64;

    let wire = Wire::open(host, interface)?;
    let frames = FAMILIES.into_iter().flat_map(|family| {
        [
            Template::new(udp(FIRST, SERVICE).sent(family), family, false),
            Template::new(tcp(FIRST, SERVICE).syn().sent(family), family, true),
        ]
    });
    let mut frames: Vec<Template> = frames.collect();
    let kinds = frames.len();
    for number in first..first + count {
        let frame = &mut frames[number as usize % kinds];
        frame.set_ports(FIRST + (number / 4 % PORTS) as u16, SERVICE);
        frame.set_destination(HOSTS + number);
        put(&wire, frame.bytes())?;
    }
    Ok(u64::from(count))
}

/// Puts a frame on the wire, and returns whether the link has taken it: the far end may have no
/// room for more.
fn put(wire: &Wire, frame: &[u8]) -> Result<bool> {
    match wire.send(frame) {
        Ok(()) => Ok(true),
        Err(error) => {
            let code = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error);
            if code == Some(libc::ENOBUFS) {
                return Ok(false);
            }
            Err(error)
        }
    }
}

/// Numbers that look random, the same ones in every run (xorshift64*).
#[derive(Clone, Copy, Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32;
        ((u64::from(number) * u64::from(limit)) >> 32) as u32
    }
}
