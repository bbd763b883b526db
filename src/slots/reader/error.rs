use core::fmt;

use super::mirror_words;
use crate::slots::arena::Arena;
use crate::slots::chunk::CHUNK_SLOTS;
use crate::slots::storage::Storage;

/// Why there is no such reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ReaderError {
    /// The arena has a reader already: two would take each other's hints.
    Claimed,
    /// Fewer elements than the arena has chunks.
    SeenTooSmall {
        /// Elements needed.
        needed: usize,
        /// Elements given.
        given: usize,
    },
    /// Fewer words than [`mirror_words`].
    MirrorTooSmall {
        /// Words needed.
        needed: usize,
        /// Words given.
        given: usize,
    },
}

impl ReaderError {
    pub(super) fn check<A: Storage>(
        arena: &Arena<A>,
        seen: usize,
        mirror: usize,
    ) -> Result<(), Self> {
        let needed = arena.capacity() / CHUNK_SLOTS;
        if seen < needed {
            return Err(Self::SeenTooSmall {
                needed,
                given: seen,
            });
        }
        let needed = mirror_words(arena.capacity(), arena.stride());
        if mirror < needed {
            return Err(Self::MirrorTooSmall {
                needed,
                given: mirror,
            });
        }
        Ok(())
    }
}

impl fmt::Display for ReaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed => f.write_str("the arena has a reader already"),
            Self::SeenTooSmall { needed, given } => {
                write!(
                    f,
                    "the reader needs {needed} elements of versions seen and got {given}"
                )
            }
            Self::MirrorTooSmall { needed, given } => {
                write!(
                    f,
                    "the reader needs {needed} words of mirror and got {given}"
                )
            }
        }
    }
}

impl core::error::Error for ReaderError {}
