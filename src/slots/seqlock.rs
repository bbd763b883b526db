//! The version protocol, over a bare version cell.
//!
//! A version is odd while its payload is written, and even when it is whole:
//!
//! ```text
//! write    version = odd · release fence · words · version = next even (release)
//! read     version (acquire) · words · acquire fence · version again: the same, or torn
//! ```
//!
//! The reader compares with the version that it last saw, so that one word says both whether the
//! copy is whole and whether it is new.
//!
//! **One writer a version.** Nothing here holds that; [`Slot`](super::Slot) and
//! [`SlotWriter`](super::SlotWriter) do, by their types. With two writers at once a torn value can
//! look whole, though no call here is undefined behaviour.
//!
//! A version has 32 bits and wraps around. A reader that looks at a slot again after exactly 2³¹
//! writes, or a multiple, takes it for unchanged; or for whole, if they fell into its copy.
//!
//! # Why nothing torn is accepted
//!
//! - The reader saw *any* word of a newer write: that write's release fence, which follows its odd
//!   version and precedes its words, synchronises with the reader's acquire fence, which follows its
//!   words and precedes its second look. So the second look sees that odd version, or a newer one.
//! - The reader saw the even version: it was stored with release after the words of its write, and
//!   loaded with acquire before the reader's. So no word is older.

use core::fmt;

use super::words::Words;
use crate::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// The version to say that one has seen, before one has seen any: no whole payload has it.
pub const UNSEEN: u32 = 1;

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Read {
    /// The payload is the one already seen; nothing was copied.
    Unchanged,
    /// A newer payload was copied, and it is whole.
    Updated {
        /// Its version: to be given as the one seen, next time.
        version: u32,
    },
    /// A write was under way; what was copied, if anything, is to be thrown away.
    Torn,
}

/// Bytes of another length than the payload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct WrongLength {
    /// Bytes in the payload.
    pub needed: usize,
    /// Bytes given.
    pub given: usize,
}

impl WrongLength {
    #[inline]
    pub(super) const fn check(needed: usize, given: usize) -> Result<(), Self> {
        if needed == given {
            Ok(())
        } else {
            Err(Self { needed, given })
        }
    }
}

impl fmt::Display for WrongLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, given } = self;
        write!(f, "the payload has {needed} bytes, not {given}")
    }
}

impl core::error::Error for WrongLength {}

/// Begins a write, and returns the odd version to [`end`] it with. Payload stores come after.
///
/// A version that is odd already, because its writer died in mid-write, is taken over.
#[inline]
pub fn begin(version: &AtomicU32) -> u32 {
    // Relaxed load: only this writer stores here, or one that it follows by other means.
    let odd = version.load(Relaxed) | 1;
    // Relaxed store: the fence puts it before every payload store that follows, for a reader that
    // sees one of them. A release store would order only what comes before it.
    version.store(odd, Relaxed);
    fence(Release);
    odd
}

/// Ends the write that [`begin`] returned `odd` for.
#[inline]
pub fn end(version: &AtomicU32, odd: u32) {
    // Release: whoever loads this version with acquire sees every payload store before it.
    version.store(odd.wrapping_add(1), Release);
}

/// Writes `bytes` as the whole payload.
///
/// # Errors
///
/// [`WrongLength`]; nothing is written then.
#[inline]
pub fn write(version: &AtomicU32, payload: Words<'_>, bytes: &[u8]) -> Result<(), WrongLength> {
    WrongLength::check(payload.len(), bytes.len())?;
    let odd = begin(version);
    payload.store(bytes);
    end(version, odd);
    Ok(())
}

/// Reads the payload into `bytes` if it is newer than version `seen`: one try.
///
/// After [`Read::Torn`] `bytes` may hold anything.
///
/// # Errors
///
/// [`WrongLength`]; nothing is read then.
#[inline]
pub fn read(
    version: &AtomicU32,
    payload: Words<'_>,
    seen: u32,
    bytes: &mut [u8],
) -> Result<Read, WrongLength> {
    WrongLength::check(payload.len(), bytes.len())?;
    Ok(read_with(version, seen, || payload.load(bytes)))
}

/// As [`read`], by a copy in assembly: for payloads of a kilobyte and more.
///
/// `rep movsb` on x86-64 and pairs of registers on AArch64 copy several words at a time; elsewhere
/// this is [`read`]. Rust's memory model does not know such a copy beside a writer, so that neither
/// Miri nor loom can check it (under them, too, this is [`read`]). What it rests on is the machine:
/// a byte is never torn, and the fences order the copy as they order any load.
///
/// # Errors
///
/// [`WrongLength`]; nothing is read then.
#[inline]
pub fn read_fast(
    version: &AtomicU32,
    payload: Words<'_>,
    seen: u32,
    bytes: &mut [u8],
) -> Result<Read, WrongLength> {
    WrongLength::check(payload.len(), bytes.len())?;
    Ok(read_with(version, seen, || {
        super::fast::load(payload, bytes)
    }))
}

/// Begins a read: the version, to be [confirmed](confirm) after the copy if it is even.
#[inline]
pub fn look(version: &AtomicU32) -> u32 {
    // Acquire: the copy comes after it, and sees the words of this version at least.
    version.load(Acquire)
}

/// Whether what was copied since [`look`] returned `looked` is whole.
#[inline]
#[must_use]
pub fn confirm(version: &AtomicU32, looked: u32) -> bool {
    // The fence puts the second look after every load of the copy. An acquire load there would
    // order only what comes after it.
    fence(Acquire);
    version.load(Relaxed) == looked
}

/// One try around any `copy`.
#[inline]
fn read_with(version: &AtomicU32, seen: u32, copy: impl FnOnce()) -> Read {
    let looked = look(version);
    if looked & 1 != 0 {
        return Read::Torn;
    }
    if looked == seen {
        return Read::Unchanged;
    }
    copy();
    if confirm(version, looked) {
        Read::Updated { version: looked }
    } else {
        Read::Torn
    }
}
