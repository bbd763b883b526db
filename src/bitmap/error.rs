//! What a bitmap refuses.

use core::fmt;

/// An index that the bitmap does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct OutOfRange {
    /// The index asked for; of a range, its last.
    pub index: usize,
    /// Bits in the bitmap.
    pub len: usize,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, len } = self;
        write!(f, "index {index} is out of range of a bitmap of {len} bits")
    }
}

impl core::error::Error for OutOfRange {}

/// Storage with fewer words than [`words_for`](super::words_for) asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct StorageTooSmall {
    /// Words needed.
    pub needed: usize,
    /// Words given.
    pub given: usize,
}

impl fmt::Display for StorageTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, given } = self;
        write!(
            f,
            "the bitmap needs {needed} words of storage and got {given}"
        )
    }
}

impl core::error::Error for StorageTooSmall {}

/// Two bitmaps whose lengths do not fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct LengthMismatch {
    /// Bits in the bitmap that is read.
    pub from: usize,
    /// Bits in the bitmap that is written.
    pub into: usize,
    /// Bits of the second for each bit of the first; 1 where they should be equal.
    pub ratio: usize,
}

impl fmt::Display for LengthMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, into, ratio } = self;
        write!(
            f,
            "a bitmap of {from} bits does not fit one of {into} bits at 1:{ratio}"
        )
    }
}

impl core::error::Error for LengthMismatch {}
