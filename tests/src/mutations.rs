//! Damaged frames, the same ones in every run.

use guard_common::outcome::Direction;

/// Bytes that headers decide by.
const TELLING: [u8; 16] = [
    0x00, 0x01, 0x06, 0x11, 0x3a, 0x2b, 0x2c, 0x3c, 0x33, 0x45, 0x60, 0x7f, 0x81, 0x88, 0x9c, 0xff,
];

/// An endless source of damaged frames.
pub struct Mutations(u64);

impl Mutations {
    /// The source with this number.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of the originals, now and then unharmed, and where it goes.
    pub fn next(&mut self, originals: &[(Direction, Vec<u8>)]) -> (Direction, Vec<u8>) {
        let (direction, frame) = &originals[self.below(originals.len())];
        let (direction, mut frame) = (*direction, frame.clone());
        for _ in 0..self.below(4) {
            self.damage(&mut frame);
        }
        (direction, frame)
    }

    /// Keeps at least an Ethernet header.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        const ETHERNET: usize = 14;

        // Nearly everything is decided in the first bytes.
        let reach = frame.len().min(100);
        let at = self.below(reach);
        match self.below(5) {
            0 => frame[at] ^= 1 << self.below(8),
            1 => frame[at] = TELLING[self.below(TELLING.len())],
            2 => frame[at] = self.below(256) as u8,
            3 => frame.truncate(ETHERNET + self.below(frame.len() - ETHERNET + 1)),
            _ => {
                let byte = frame[at];
                frame.insert(at, byte);
            }
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((mixed >> 33) % limit as u64) as usize
    }
}
