//! How much of the tuple filter is in use, and whether it decides.

use crate::{
    filter::TUPLES,
    state::{Element, State},
};

/// Bytes in use for each mark, at least, as far as there are enough: of strangers at ports in use,
/// the second byte of one in eight is asked for, or of fewer.
const BYTES_A_MARK: u64 = 8;

/// Bytes in use for each mark before there are too many: what is spread wider than it need be does
/// not stay in a processor's cache.
const TOO_MANY_A_MARK: u64 = 32;

/// Bytes in use for the fewest marks.
const FEWEST: u64 = 1 << 17;

/// Bytes that there are for each flow that a flow map has room for, where there are more than
/// [`TUPLES`]: two marks a flow of two of the four maps.
const BYTES_A_FLOW: u64 = 4 * BYTES_A_MARK;

/// Elements that the map `state` has where each flow map has room for so many flows: one, and
/// behind it those that a filter takes for which that one has no room.
pub const fn elements(max_flows: u32) -> u32 {
    let more = max_flows as u64 * BYTES_A_FLOW / Element::SIZE as u64;
    if more > 1 { 1 + more as u32 } else { 1 }
}

/// Which marks of a filter count. One word, so that it changes as a whole: no program may trust
/// bytes that no sweep has filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Reach(u64);

impl Reach {
    /// In [`span`](Self::span): as [`Occupancy::fresh`](crate::ports::Occupancy::fresh) has it.
    pub const TRUSTED: u32 = 2;
    /// In [`span`](Self::span): every mark is fresh.
    pub const DOUBTED: u32 = u8::MAX as u32;

    /// That of a filter which is not trusted yet.
    pub(crate) const FIRST: Self = Self::new(Self::DOUBTED, FEWEST as u32);

    /// So many `bytes` are in use, and a mark may be so many epochs away.
    pub const fn new(span: u32, bytes: u32) -> Self {
        Self(span as u64 | (bytes as u64) << 32)
    }

    /// Epochs that a mark may be away from the one that begins: [`TRUSTED`](Self::TRUSTED), or
    /// [`DOUBTED`](Self::DOUBTED) while tuples may be in use that no sweep has marked.
    #[inline(always)]
    pub const fn span(self) -> u32 {
        self.0 as u32
    }

    /// Bytes in use: at most [`TUPLES`], which are in the first element of the map `state`, or a
    /// multiple of [`Element::SIZE`] in those behind it.
    #[inline(always)]
    pub const fn bytes(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The word that says this.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// What a [`word`](Self::word) says.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As many bytes, of which every mark is fresh.
    pub const fn doubted(self) -> Self {
        Self::new(Self::DOUBTED, self.bytes())
    }

    /// As many bytes, which decide.
    pub const fn trusted(self) -> Self {
        Self::new(Self::TRUSTED, self.bytes())
    }

    /// Whether the filter decides.
    #[inline(always)]
    pub const fn decides(self) -> bool {
        self.span() == Self::TRUSTED
    }

    /// Where the bytes in use begin, in the map `state`.
    #[inline(always)]
    pub const fn base(self) -> usize {
        if self.bytes() as usize > TUPLES {
            Element::SIZE
        } else {
            size_of::<State>()
        }
    }

    /// What suits so many marks of one sweep, where the map `state` has so many elements: this,
    /// unless it is too short or much too long.
    pub fn fitting(self, marks: u64, elements: u32) -> Self {
        let room = match elements {
            0..=2 => TUPLES as u64,
            more => u64::from(more - 1) << Element::SIZE.ilog2(),
        };
        let least = marks.saturating_mul(BYTES_A_MARK).max(FEWEST);
        let most = marks.saturating_mul(TOO_MANY_A_MARK).max(FEWEST);
        let bytes = u64::from(self.bytes());
        if (least.min(room)..=most).contains(&bytes) {
            return self;
        }

        let bytes = least.min(room).next_power_of_two().min(room);
        // A whole element would be no more than what the first has left.
        let bytes = if bytes <= Element::SIZE as u64 {
            bytes.min(TUPLES as u64)
        } else {
            bytes
        };
        Self::new(Self::DOUBTED, bytes as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_bytes_as_the_marks_ask_for() {
        let new = Reach::FIRST;
        for (marks, bytes) in [
            (0, 1 << 17),
            (1 << 14, 1 << 17),
            ((1 << 14) + 1, 1 << 18),
            (40_000, 1 << 19),
            (1 << 18, 1 << 21),
            ((1 << 18) + 1, TUPLES as u32),
            (u64::MAX, TUPLES as u32),
        ] {
            for elements in [0, 1, 2] {
                let fitting = new.fitting(marks, elements);
                assert_eq!(fitting.bytes(), bytes, "{marks}");
                assert_eq!(fitting.fitting(marks, elements), fitting, "{marks}");
                assert!(!fitting.decides());
                assert_eq!(fitting.base(), size_of::<State>());
            }
        }
    }

    #[test]
    fn many_marks_take_elements_of_their_own() {
        let new = Reach::FIRST;
        for (flows, marks, bytes, base) in [
            (1 << 18, 1 << 19, TUPLES as u32, size_of::<State>()),
            (1 << 18, (1 << 19) + 1, 1 << 23, Element::SIZE),
            (1 << 20, 2_000_000, 1 << 24, Element::SIZE),
            (1 << 20, u64::MAX, 1 << 25, Element::SIZE),
            (1 << 24, u64::MAX, 1 << 29, Element::SIZE),
        ] {
            let elements = elements(flows);
            let fitting = new.fitting(marks, elements);
            assert_eq!(fitting.bytes(), bytes, "{marks}");
            assert_eq!(fitting.base(), base, "{marks}");
            assert_eq!(fitting.fitting(marks, elements), fitting, "{marks}");
            let end = base + bytes as usize;
            assert!(end <= elements as usize * Element::SIZE, "{flows}");
        }
        assert_eq!([1 << 10, 1 << 17, 1 << 18].map(elements), [1, 1, 3]);
    }

    /// Whoever is in doubt looks everything up, so the size must not follow every connection.
    #[test]
    fn what_fits_stays_as_it_is() {
        let trusted = Reach::new(Reach::TRUSTED, 1 << 18);
        for marks in [1 << 13, 1 << 15] {
            assert_eq!(trusted.fitting(marks, 1), trusted, "{marks}");
        }
        for (marks, bytes) in [((1 << 13) - 1, 1 << 17), ((1 << 15) + 1, 1 << 19)] {
            let other = Reach::new(Reach::DOUBTED, bytes);
            assert_eq!(trusted.fitting(marks, 1), other, "{marks}");
        }
    }

    #[test]
    fn a_reach_is_what_it_was_made_of() {
        let reach = Reach::new(Reach::TRUSTED, TUPLES as u32);
        assert_eq!((reach.span(), reach.bytes()), (2, TUPLES as u32));
        assert!(reach.decides() && !reach.doubted().decides());
        assert_eq!(reach.doubted().trusted(), reach);
    }
}
