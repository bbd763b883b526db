//! [`Exclusive`]: drains with the world stopped.

use core::fmt;

use super::access::Alone;
use super::{Run, View, drain};

/// A bitmap that nobody else can reach, out of [`DirtyBitmap::exclusive`](super::DirtyBitmap::exclusive):
/// the same drains, without a locked instruction.
///
/// A shared drain swaps each word, because a marker may come between a load and a store. Here the
/// storage is borrowed mutably: there is no marker, and a load and a store do. For that the storage
/// must be [`AsMut`], which an array, a `Box`, a `Vec` and a `&mut` slice are. A `&[AtomicUsize]` is
/// not: a `&mut` to the *bitmap* says nothing about who else holds the *slice*. Nor is memory that
/// another process maps: whoever makes a `&mut` slice of it promises that the other is stopped.
///
/// ```
/// # #[cfg(feature = "alloc")] {
/// use pugmark::DirtyBitmap;
///
/// let mut dirty = DirtyBitmap::boxed(1000);
/// dirty.mark_range(62..66)?;
/// dirty.exclusive().drain_runs(|run| assert_eq!(run.range(), 62..66));
/// assert!(dirty.is_clean());
/// # }
/// # Ok::<(), pugmark::OutOfRange>(())
/// ```
///
/// A shared slice is refused:
///
/// ```compile_fail,E0277
/// # use pugmark::{AtomicUsize, DirtyBitmap, words_for};
/// let words = [const { AtomicUsize::new(0) }; words_for(1000)];
/// let mut dirty = DirtyBitmap::with_storage(&words[..], 1000).unwrap();
/// dirty.exclusive().clear();
/// ```
///
/// ```
/// # use pugmark::{AtomicUsize, DirtyBitmap, words_for};
/// let mut words = [const { AtomicUsize::new(0) }; words_for(1000)];
/// let mut dirty = DirtyBitmap::with_storage(&mut words[..], 1000).unwrap();
/// dirty.exclusive().clear();
/// ```
pub struct Exclusive<'a> {
    view: View<'a>,
}

impl<'a> Exclusive<'a> {
    pub(super) fn new(words: &'a mut [crate::sync::AtomicUsize], bits: usize) -> Self {
        Self {
            view: View::of(words, bits),
        }
    }

    /// As [`DirtyBitmap::drain_runs`](super::DirtyBitmap::drain_runs).
    pub fn drain_runs(&mut self, sink: impl FnMut(Run)) {
        drain::all_runs::<Alone>(self.view, sink);
    }

    /// As [`DirtyBitmap::try_drain_runs`](super::DirtyBitmap::try_drain_runs).
    ///
    /// # Errors
    ///
    /// The sink's own. The run that it refused and all after it stay marked.
    pub fn try_drain_runs<E>(&mut self, sink: impl FnMut(Run) -> Result<(), E>) -> Result<(), E> {
        drain::runs::<Alone, E>(self.view, sink)
    }

    /// As [`DirtyBitmap::drain_bits`](super::DirtyBitmap::drain_bits).
    pub fn drain_bits(&mut self, sink: impl FnMut(usize)) {
        drain::bits::<Alone>(self.view, sink);
    }

    /// As [`DirtyBitmap::drain_words`](super::DirtyBitmap::drain_words).
    pub fn drain_words(&mut self, sink: impl FnMut(usize, usize)) {
        drain::words::<Alone>(self.view, sink);
    }

    /// Clears the bitmap, and reports nothing.
    pub fn clear(&mut self) {
        drain::words::<Alone>(self.view, |_, _| ());
    }
}

impl fmt::Debug for Exclusive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").finish_non_exhaustive()
    }
}
