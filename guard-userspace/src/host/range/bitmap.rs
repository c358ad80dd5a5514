//! A set of ports in the form the kernel programs read it.

use std::fmt;

use super::PortRange;

/// A set of ports: port `p` is bit `p % 32` of word `p / 32`.
#[derive(Clone, PartialEq, Eq)]
pub struct PortBitmap(Box<[u32; Self::WORDS]>);

impl PortBitmap {
    /// Words in a bitmap of all 65,536 ports.
    pub const WORDS: usize = 65_536 / 32;

    /// Adds every port of `range`.
    pub fn insert(&mut self, range: PortRange) {
        for port in range.ports() {
            self.0[usize::from(port / 32)] |= 1 << (port % 32);
        }
    }

    /// Takes out every port of `range`.
    pub fn remove(&mut self, range: PortRange) {
        for port in range.ports() {
            self.0[usize::from(port / 32)] &= !(1 << (port % 32));
        }
    }

    /// Takes out every port of `others`.
    pub fn remove_all(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.words()) {
            *word &= !other;
        }
    }

    /// Takes out every port that is not among `others`.
    pub fn retain_all(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.words()) {
            *word &= other;
        }
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Adds every port of `others`.
    pub fn insert_all(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.0.iter()) {
            *word |= other;
        }
    }

    /// The runs of ports that make up the set, in order.
    pub fn runs(&self) -> Vec<PortRange> {
        let mut runs: Vec<PortRange> = Vec::new();
        for port in (1..=u16::MAX).filter(|port| self.contains(*port)) {
            match runs.last_mut() {
                Some(run) if run.last + 1 == port => run.last = port,
                _ => runs.push(PortRange {
                    first: port,
                    last: port,
                }),
            }
        }

        runs
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port / 32)] & 1 << (port % 32) != 0
    }

    /// How many ports are in the set.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The words, each in the byte order of this host.
    pub fn words(&self) -> &[u32; Self::WORDS] {
        &self.0
    }
}

impl Default for PortBitmap {
    fn default() -> Self {
        Self(Box::new([0; Self::WORDS]))
    }
}

impl FromIterator<u16> for PortBitmap {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut bitmap = Self::default();
        for port in ports {
            bitmap.0[usize::from(port / 32)] |= 1 << (port % 32);
        }
        bitmap
    }
}

impl fmt::Debug for PortBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortBitmap({} ports)", self.count())
    }
}
