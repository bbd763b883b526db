use core::fmt;

use crate::slots::words::WORD;
use crate::slots::writer::SlotWriter;

/// Why there is no such arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ArenaError {
    /// The stride is zero, or no multiple of [`WORD`](crate::slots::WORD) bytes.
    Stride {
        /// Bytes asked for.
        stride: usize,
    },
    /// More slots than a `u32` counts, or more bytes of them than a `usize` does.
    TooLarge {
        /// Slots asked for.
        slots: usize,
        /// Bytes of each.
        stride: usize,
    },
    /// Less memory than the arena takes.
    MemoryTooSmall {
        /// Bytes needed, from the start that was given on.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stride { stride } => {
                write!(
                    f,
                    "a stride of {stride} bytes is not a multiple of the word ({WORD} bytes), or zero"
                )
            }
            Self::TooLarge { slots, stride } => {
                write!(
                    f,
                    "{slots} slots of {stride} bytes are more than can be counted"
                )
            }
            Self::MemoryTooSmall { needed, given } => {
                write!(
                    f,
                    "the arena takes {needed} bytes of memory and got {given}"
                )
            }
        }
    }
}

impl core::error::Error for ArenaError {}

/// Every slot is allocated, or the heap has no memory for the next chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct ArenaFull {
    /// Slots that are allocated.
    pub allocated: usize,
}

impl fmt::Display for ArenaFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no slot is left: {} are allocated", self.allocated)
    }
}

impl core::error::Error for ArenaFull {}

/// A writer of another arena, or of a slot that is no longer its own, handed back.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ForeignWriter<'a> {
    /// It keeps its slot.
    pub writer: SlotWriter<'a>,
}

impl fmt::Display for ForeignWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.writer.id().index();
        write!(
            f,
            "the writer of slot {index} is from another arena, or no longer the slot's"
        )
    }
}

impl core::error::Error for ForeignWriter<'_> {}

/// A slot that is not allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct NotAllocated {
    /// Its index.
    pub index: usize,
}

impl fmt::Display for NotAllocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} is not allocated", self.index)
    }
}

impl core::error::Error for NotAllocated {}
