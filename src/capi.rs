#![doc = include_str!("../features/capi.md")]

// What is said of each item here, and of `SlotBinding`, is also what a C programmer reads in
// include/pugmark.h. There a type's name starts with `Pugmark`.

use core::ffi::c_void;
use core::slice;

use crate::bitmap::{DirtyBitmap, OutOfRange, StorageTooSmall, View, words_for};
use crate::slots::{SlotBinding, WORD, WrongLength};
use crate::sync::AtomicUsize;

/// What became of a call. Any that is not OK has changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
#[non_exhaustive]
#[must_use]
pub enum Status {
    /// It is done.
    Ok = 0,
    /// A pointer is null.
    Null = 1,
    /// A pointer is not aligned to what it points at.
    Misaligned = 2,
    /// The bitmap's memory is too small for its bits and their summary.
    TooSmall = 3,
    /// The bitmap does not have all of these bits.
    OutOfRange = 4,
    /// The slot's stride is zero, no multiple of a machine word, or more than memory has.
    BadStride = 5,
    /// The value is not as long as the slot's stride.
    WrongLength = 6,
}

/// A dirty bitmap as plain addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct Bitmap {
    /// The bitmap's memory: its bits, from the lowest of the first word on, then their summary.
    pub words: *mut usize,
    /// How many words that is.
    pub word_count: usize,
    /// How many bits the bitmap has.
    pub bits: usize,
}

/// Marks one bit.
///
/// Any number of threads may mark at the same time, in C and in Rust, while others drain. What the
/// caller wrote before it marks, whoever drains the mark finds written.
///
/// Returns OK, NULL, MISALIGNED, TOO_SMALL, or OUT_OF_RANGE.
///
/// # Safety
///
/// What `bitmap` points at is a bitmap, and its words are memory that only pugmark accesses, or
/// others atomically.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pugmark_mark(bitmap: *const Bitmap, bit: usize) -> Status {
    // SAFETY: the caller's.
    let view = unsafe { view(bitmap) };
    status(view.and_then(|view| Ok(view.mark(bit).map(drop)?)))
}

/// Marks `count` bits, from `first` on, with one atomic operation a word. Zero bits are none.
///
/// Returns OK, NULL, MISALIGNED, TOO_SMALL, or OUT_OF_RANGE.
///
/// # Safety
///
/// As of `pugmark_mark`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pugmark_mark_range(
    bitmap: *const Bitmap,
    first: usize,
    count: usize,
) -> Status {
    // SAFETY: the caller's.
    let view = unsafe { view(bitmap) };
    // No bitmap has as many bits as a `usize` counts.
    let bits = first..first.saturating_add(count);
    status(view.and_then(|view| Ok(view.mark_range(bits)?)))
}

/// Writes the whole value of a slot, and tells the arena's reader of it.
///
/// It waits for nobody. The reader finds this value or the one before, never a part of each.
///
/// Returns OK, NULL, MISALIGNED, BAD_STRIDE, or WRONG_LENGTH where `len` is not the stride.
///
/// # Safety
///
/// What `slot` points at is a binding that pugmark made, of an arena that is still there. At
/// `bytes`, with any alignment, are `len` bytes, none of them the slot's own. Nobody else writes
/// the slot at the same time, and its owner has not freed or recovered it since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pugmark_slot_write(
    slot: *const SlotBinding,
    bytes: *const c_void,
    len: usize,
) -> Status {
    // SAFETY: the caller's.
    status(unsafe { slot_write(slot, bytes.cast(), len) })
}

/// # Safety
///
/// See [`pugmark_mark`].
unsafe fn view<'a>(bitmap: *const Bitmap) -> Result<View<'a>, Status> {
    check(bitmap)?;
    // SAFETY: the caller's; it is not null, and aligned.
    let bitmap = unsafe { *bitmap };
    check(bitmap.words)?;
    // No more than are used: so many are never longer than a slice can be.
    let count = bitmap.word_count.min(words_for(bitmap.bits));
    let words = bitmap.words.cast::<AtomicUsize>();
    // SAFETY: the caller's; an atomic has the size and the alignment of its integer.
    let words = unsafe { slice::from_raw_parts(words, count) };
    Ok(View::new(words, bitmap.bits)?)
}

/// # Safety
///
/// See [`pugmark_slot_write`].
unsafe fn slot_write(slot: *const SlotBinding, bytes: *const u8, len: usize) -> Result<(), Status> {
    check(slot)?;
    check(bytes)?;
    // SAFETY: the caller's; it is not null, and aligned.
    let slot = unsafe { *slot };
    check(slot.version)?;
    check(slot.payload.cast::<usize>())?;
    check(slot.hint)?;
    check(slot.chunk_hint)?;
    if slot.stride == 0 || !slot.stride.is_multiple_of(WORD) || slot.stride > isize::MAX as usize {
        return Err(Status::BadStride);
    }
    if len != slot.stride {
        return Err(Status::WrongLength);
    }
    // SAFETY: the caller's; no pointer is null or misaligned, and both lengths are a slice's.
    Ok(unsafe { slot.write(slice::from_raw_parts(bytes, len)) }?)
}

fn check<T>(pointer: *const T) -> Result<(), Status> {
    if pointer.is_null() {
        Err(Status::Null)
    } else if !pointer.is_aligned() {
        Err(Status::Misaligned)
    } else {
        Ok(())
    }
}

fn status(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(Status::Ok)
}

impl From<StorageTooSmall> for Status {
    fn from(_: StorageTooSmall) -> Self {
        Self::TooSmall
    }
}

impl From<OutOfRange> for Status {
    fn from(_: OutOfRange) -> Self {
        Self::OutOfRange
    }
}

impl From<WrongLength> for Status {
    fn from(_: WrongLength) -> Self {
        Self::WrongLength
    }
}

/// Good for as long as the bitmap's storage is where it is now.
impl<S: AsRef<[AtomicUsize]>> From<&DirtyBitmap<S>> for Bitmap {
    fn from(bitmap: &DirtyBitmap<S>) -> Self {
        let words = bitmap.view().words();
        Self {
            words: words.as_ptr().cast::<usize>().cast_mut(),
            word_count: words.len(),
            bits: bitmap.len(),
        }
    }
}

// SAFETY: addresses; what is done with them is the caller's of the functions above.
unsafe impl Send for Bitmap {}
// SAFETY: the same.
unsafe impl Sync for Bitmap {}
