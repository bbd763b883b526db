//! [`Slot`]: one value.

use core::cell::UnsafeCell;
use core::fmt;

use bytemuck::{AnyBitPattern, NoUninit};

use super::claim::{Claim, Claimed};
use super::seqlock::{self, Read, UNSEEN, WrongLength};
use super::words::Words;
use crate::sync::AtomicU32;

/// Tries of a read that does not say [`Read::Torn`]: enough to sit out a few writes.
const TRIES: usize = 64;

/// One value, written by one thread or interrupt handler and read by any number of others, none of
/// which waits for another.
///
/// `T` is plain data without padding ([`NoUninit`] + [`AnyBitPattern`], which `bytemuck::Pod` and
/// its derives bring). One with padding does not compile:
///
/// ```compile_fail,E0277
/// #[derive(Clone, Copy)]
/// #[repr(C)]
/// struct Padded(u8, u32);
///
/// static SLOT: pugmark::Slot<Padded> = pugmark::Slot::new(Padded(1, 2));
/// ```
///
/// ```
/// #[derive(Clone, Copy)]
/// #[repr(C)]
/// struct Packed(u32, u32);
/// # // What `#[derive(bytemuck::Pod, bytemuck::Zeroable)]` makes.
/// # unsafe impl bytemuck::Zeroable for Packed {}
/// # unsafe impl bytemuck::Pod for Packed {}
///
/// static SLOT: pugmark::Slot<Packed> = pugmark::Slot::new(Packed(1, 2));
/// ```
///
/// # Example
///
/// ```
/// use pugmark::{Slot, slots::{Read, UNSEEN}};
///
/// static SPEED: Slot<[u16; 3]> = Slot::new([0; 3]);
///
/// let mut writer = SPEED.writer().expect("nobody else has it");
/// assert!(SPEED.writer().is_none());
/// writer.write(&[1, 2, 3]);
///
/// let (mut seen, mut speed) = (UNSEEN, [0; 3]);
/// assert!(matches!(SPEED.read_if_changed(&mut seen, &mut speed), Read::Updated { .. }));
/// assert_eq!(speed, [1, 2, 3]);
/// assert_eq!(SPEED.read_if_changed(&mut seen, &mut speed), Read::Unchanged);
/// ```
#[repr(C)]
pub struct Slot<T> {
    payload: Payload<T>,
    version: AtomicU32,
    claim: Claim,
}

/// The value, aligned to the words that copy it.
#[repr(C)]
struct Payload<T> {
    align: [usize; 0],
    value: UnsafeCell<T>,
}

// SAFETY: the value is only accessed through `Words`, atomically; a copy of it is a `T` that went
// to another thread.
unsafe impl<T: Send> Sync for Slot<T> {}

impl<T: NoUninit + AnyBitPattern> Slot<T> {
    /// A slot that holds `value`, for a `static` or anywhere else.
    pub const fn new(value: T) -> Self {
        Self {
            payload: Payload {
                align: [],
                value: UnsafeCell::new(value),
            },
            version: AtomicU32::new(0),
            claim: Claim::new(),
        }
    }

    /// The slot's only writer; `None` while there is one. Dropping it gives it back.
    pub fn writer(&self) -> Option<Writer<'_, T>> {
        let claimed = self.claim.take()?;
        Some(Writer {
            slot: self,
            _claimed: claimed,
        })
    }

    /// Writes `value`: for an interrupt handler, which has nowhere to keep a [`Writer`].
    ///
    /// # Safety
    ///
    /// Nobody else writes the slot at the same time, by this or by a [`Writer`]; neither does a
    /// handler that interrupts this very call.
    #[inline]
    pub unsafe fn write(&self, value: &T) {
        let written = seqlock::write(&self.version, self.words(), bytemuck::bytes_of(value));
        debug_assert!(written.is_ok(), "both are a T");
    }

    /// The value; `None` where a write was under way each time, or the same write all the time.
    ///
    /// Tries 64 times: it cannot hang, in a handler that interrupted the writer least of all.
    #[must_use]
    pub fn read(&self) -> Option<T> {
        let mut value = T::zeroed();
        self.read_into(&mut value).then_some(value)
    }

    /// Reads the value into `into`: cheaper than [`read`](Self::read) where it is large. `false`
    /// as there, and `into` may then hold anything.
    #[must_use]
    pub fn read_into(&self, into: &mut T) -> bool {
        self.retry(|| self.read_if_changed(&mut { UNSEEN }, into))
    }

    /// As [`read_into`](Self::read_into), by [`seqlock::read_fast`].
    #[must_use]
    pub fn read_into_fast(&self, into: &mut T) -> bool {
        let bytes = bytemuck::bytes_of_mut(into);
        self.retry(|| {
            whole(seqlock::read_fast(
                &self.version,
                self.words(),
                UNSEEN,
                bytes,
            ))
        })
    }

    /// Reads the value into `into` if it is not version `seen`, which it then sets: one try.
    ///
    /// Start with [`UNSEEN`]. After [`Read::Torn`] `into` may hold anything, and `seen` is as it
    /// was.
    #[inline]
    pub fn read_if_changed(&self, seen: &mut u32, into: &mut T) -> Read {
        let into = bytemuck::bytes_of_mut(into);
        let read = whole(seqlock::read(&self.version, self.words(), *seen, into));
        if let Read::Updated { version } = read {
            *seen = version;
        }
        read
    }

    #[inline]
    fn words(&self) -> Words<'_> {
        // SAFETY: `align` aligns the value, which in `repr(C)` starts where `align` does. Each of its
        // bytes is initialised (`NoUninit`), it lives as long as `self`, and all access is by here.
        unsafe { Words::from_raw(self.payload.value.get().cast(), size_of::<T>()) }
    }

    #[inline]
    fn retry(&self, mut read: impl FnMut() -> Read) -> bool {
        (0..TRIES).any(|_| {
            let is_torn = read() == Read::Torn;
            if is_torn {
                core::hint::spin_loop();
            }
            !is_torn
        })
    }
}

#[inline]
fn whole(read: Result<Read, WrongLength>) -> Read {
    debug_assert!(read.is_ok(), "both are a T");
    read.unwrap_or(Read::Torn)
}

#[cfg(feature = "defmt")]
impl<T> defmt::Format for Slot<T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        // Relaxed: it is only shown.
        let version = self.version.load(crate::sync::Ordering::Relaxed);
        defmt::write!(f, "Slot(version {})", version);
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The one writer of a [`Slot`].
pub struct Writer<'a, T> {
    slot: &'a Slot<T>,
    _claimed: Claimed<'a>,
}

impl<T: NoUninit + AnyBitPattern> Writer<'_, T> {
    /// Writes `value`. Waits for nobody.
    #[inline]
    pub fn write(&mut self, value: &T) {
        // SAFETY: the slot's claim is ours, and `&mut self` is this call's.
        unsafe { self.slot.write(value) }
    }
}

#[cfg(feature = "defmt")]
impl<T> defmt::Format for Writer<'_, T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Writer({})", self.slot);
    }
}

impl<T> fmt::Debug for Writer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writer").field(self.slot).finish()
    }
}
