//! [`Reader`]: visits what changed, and keeps a mirror of it.

mod ahead;
mod error;
mod seen;
mod visit;

use core::fmt;

use ahead::{Ahead, DISTANCE};
use bytemuck::AnyBitPattern;

pub use error::ReaderError;
pub use seen::Seen;
use visit::Found;

use super::arena::Arena;
use super::chunk::CHUNK_SLOTS;
use super::claim::Claimed;
use super::storage::Storage;
use super::words::{BLOCK, WORD};
use super::writer::SlotId;
use crate::sync::HintByte;

/// Words of mirror for an arena of `slots` slots of `stride` bytes: whole chunks of them, and one
/// slot more, where the last value waits until the new one is known to be whole.
#[must_use]
pub const fn mirror_words(slots: usize, stride: usize) -> usize {
    (slots.div_ceil(CHUNK_SLOTS) * CHUNK_SLOTS + 1) * stride.div_ceil(WORD)
}

/// The one reader of an [`Arena`]: what it saw, and a mirror of the values.
///
/// The mirror is the reader's own memory: slot `i` is at `i` strides, all one after the other, and
/// each is a value that was whole. Nothing is allocated after the construction.
///
/// `S` and `M` hold the versions seen and the mirror: arrays, borrowed slices, or boxes
/// ([`BoxedReader`]).
///
/// ```
/// use pugmark::{StaticArena, slots::{Reader, Seen, chunk_words, mirror_words}};
///
/// static ARENA: StaticArena<1, { chunk_words(16) }> = StaticArena::new();
///
/// let mut owner = ARENA.owner().expect("nobody else has it");
/// let mut reader = Reader::new(&ARENA, [Seen::ZERO; 1], [0; mirror_words(64, 16)])?;
///
/// // This can go to another thread, or to an interrupt handler.
/// let mut writer = owner.allocate()?;
/// writer.write_value(&[1.5_f64, 2.5])?;
///
/// let mut ranges = Vec::new();
/// let descent = reader.descend(|offset, bytes| ranges.push((offset, bytes.len())));
/// assert_eq!((descent.updated, ranges), (1, vec![(0, 16)]));
/// assert_eq!(reader.value_as(writer.id()), Some([1.5_f64, 2.5]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<'a, A, S, M> {
    arena: &'a Arena<A>,
    seen: S,
    mirror: M,
    _claimed: Claimed<'a>,
}

/// A reader on the heap: see [`Arena::boxed_reader`].
#[cfg(feature = "alloc")]
pub type BoxedReader<'a, A> = Reader<'a, A, alloc::boxed::Box<[Seen]>, alloc::boxed::Box<[usize]>>;

/// What a [`Reader::descend`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Descent {
    /// Slots that had changed: those updated, those torn, and those that lost their value.
    pub visited: usize,
    /// Slots whose new value is in the mirror.
    pub updated: usize,
    /// Slots that were being written. The mirror keeps the last value, and the next descend tries
    /// again. One that is torn each time has a writer that died, or one that never rests.
    pub torn: usize,
}

impl<A: Storage> Arena<A> {
    /// The arena's only reader, with its storage on the heap, for every slot that there can be.
    ///
    /// # Errors
    ///
    /// [`ReaderError::Claimed`] while there is one.
    #[cfg(feature = "alloc")]
    pub fn boxed_reader(&self) -> Result<BoxedReader<'_, A>, ReaderError> {
        let seen = alloc::vec![Seen::ZERO; self.capacity() / CHUNK_SLOTS];
        let mirror = alloc::vec![0; mirror_words(self.capacity(), self.stride())];
        Reader::new(self, seen.into_boxed_slice(), mirror.into_boxed_slice())
    }
}

impl<'a, A, S, M> Reader<'a, A, S, M>
where
    A: Storage,
    S: AsRef<[Seen]> + AsMut<[Seen]>,
    M: AsRef<[usize]> + AsMut<[usize]>,
{
    /// The arena's only reader. `seen` has an element for each chunk, and `mirror` has
    /// [`mirror_words`]; what they hold does not matter.
    ///
    /// It has seen nothing: its first descend visits every slot that has a value.
    ///
    /// # Errors
    ///
    /// [`ReaderError`].
    pub fn new(arena: &'a Arena<A>, mut seen: S, mirror: M) -> Result<Self, ReaderError> {
        ReaderError::check(arena, seen.as_ref().len(), mirror.as_ref().len())?;
        let claimed = arena.reader.take().ok_or(ReaderError::Claimed)?;
        seen.as_mut().fill(Seen::ZERO);
        let storage = arena.storage();
        // The reader before took the owner's hints. Of a chunk that is not there yet there are none.
        for (index, (hints, seen)) in storage.hints().iter().zip(seen.as_mut()).enumerate() {
            if let Some(chunk) = storage.chunk(index) {
                seen.renew(chunk, hints);
            }
        }
        let reader = Self {
            arena,
            seen,
            mirror,
            _claimed: claimed,
        };
        reader.rescan();
        Ok(reader)
    }

    /// Makes the next descend compare every slot, hinted or not.
    ///
    /// For a writer that was killed after its value and before its hint, where its slot is not
    /// [recovered](super::Owner::recover). Nothing else needs it.
    pub fn rescan(&self) {
        let storage = self.arena.storage();
        let hints = storage.slot_hints().iter().zip(storage.hints());
        for (index, (slots, chunk)) in hints.enumerate() {
            if storage.chunk(index).is_some() {
                slots.iter().for_each(HintByte::set);
                chunk.written.set();
            }
        }
    }

    /// Copies every value that changed into the mirror, and gives the changed parts of the mirror to
    /// `sink`: where each is, in bytes from the mirror's start, and its bytes. Neighbours come as one.
    ///
    /// **The promise**: a write that returned before this began is in the mirror after it, if no
    /// newer one is under way. Each slot is read once: this takes no longer because somebody writes.
    ///
    /// If `sink` unwinds, the mirror is right, but the parts not yet given are not given again.
    pub fn descend(&mut self, sink: impl FnMut(usize, &[u8])) -> Descent {
        let stride = self.arena.stride() / WORD;
        // The same twice: of the stride that the compiler knows, there is less to compute a slot. Where
        // the program's size counts more, once.
        if cfg!(target_pointer_width = "64") && stride == BLOCK {
            self.descend_by(BLOCK, sink)
        } else {
            self.descend_by(stride, sink)
        }
    }

    #[inline(always)]
    fn descend_by(&mut self, stride: usize, mut sink: impl FnMut(usize, &[u8])) -> Descent {
        let storage = self.arena.storage();
        let hints = storage.hints();
        let seen = &mut self.seen.as_mut()[..hints.len()];
        let values = hints.len() * CHUNK_SLOTS * stride;
        let (mirror, scratch) = self.mirror.as_mut().split_at_mut(values);
        let scratch = &mut scratch[..stride];
        let mut descent = Descent::default();
        let mut run = 0..0;
        let mut ahead = Ahead::new(storage);
        // One loop without calls, and few stores but those to the mirror: a processor only has so many
        // instructions and stores under way, and so many slots' memory as they are of.
        while let Some(group) = ahead.next() {
            for index in group.slots.iter().take(DISTANCE).skip(group.asked) {
                visit::ask(storage, *index as usize, stride, seen, mirror);
            }
            for (i, index) in group.slots[..group.given].iter().enumerate() {
                if let Some(next) = group.slots.get(i + DISTANCE) {
                    visit::ask(storage, *next as usize, stride, seen, mirror);
                }
                let index = *index as usize;
                let start = index * stride;
                let (index, slot) = (index / CHUNK_SLOTS, index % CHUNK_SLOTS);
                // Without a chunk no slot of it was ever written.
                let Some(chunk) = storage.chunk(index) else {
                    continue;
                };
                let (hints, seen) = (&hints[index], &mut seen[index]);
                let value = &mut mirror[start..][..stride];
                match visit::visit(chunk, hints, slot, seen, value, scratch) {
                    Found::Updated => {
                        descent.updated += 1;
                        if run.end != start {
                            give(&mut sink, mirror, run);
                            run = start..start;
                        }
                        run.end = start + stride;
                    }
                    Found::Torn => {
                        descent.torn += 1;
                        if let Some(hint) = storage.hint(index, slot) {
                            hint.leave();
                        }
                    }
                    Found::NoValue => descent.visited += 1,
                    Found::Unchanged => {}
                }
            }
        }
        give(&mut sink, mirror, run);
        descent.visited += descent.updated + descent.torn;
        descent
    }

    /// The slot's value, as of the last descend; `None` where it has seen none of this use of the
    /// slot, or has seen that it was freed.
    #[must_use]
    pub fn value(&self, id: SlotId) -> Option<&[u8]> {
        let seen = self.seen.as_ref().get(id.index() / CHUNK_SLOTS)?;
        let slot = id.index() % CHUNK_SLOTS;
        if seen.generations[slot] != id.generation || !seen::has_value(seen.versions[slot]) {
            return None;
        }
        let stride = self.arena.stride();
        self.mirror().get(id.index() * stride..)?.get(..stride)
    }

    /// [`value`](Self::value), as a `T`, which is as large as the arena's stride: `None` if it is
    /// not.
    #[must_use]
    pub fn value_as<T: AnyBitPattern>(&self, id: SlotId) -> Option<T> {
        bytemuck::try_pod_read_unaligned(self.value(id)?).ok()
    }

    /// The mirror: all slots, one after the other. Where a slot never had a value, anything.
    #[must_use]
    pub fn mirror(&self) -> &[u8] {
        let bytes = bytemuck::cast_slice(self.mirror.as_ref());
        &bytes[..self.arena.capacity() * self.arena.stride()]
    }
}

fn give(sink: &mut impl FnMut(usize, &[u8]), mirror: &[usize], run: core::ops::Range<usize>) {
    if !run.is_empty() {
        sink(run.start * WORD, bytemuck::cast_slice(&mirror[run]));
    }
}

#[cfg(feature = "defmt")]
impl<A: Storage, S, M> defmt::Format for Reader<'_, A, S, M> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Reader({})", self.arena);
    }
}

impl<A: Storage, S, M> fmt::Debug for Reader<'_, A, S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(self.arena).finish()
    }
}
