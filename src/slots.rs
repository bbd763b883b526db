//! The right wing: values published without a lock, and without tearing.
//!
//! One thread, interrupt handler or process writes a value; others read it whole, or learn that they
//! must try again. Nobody waits for anybody.
//!
//! ```text
//! writer   SlotWriter::write ── version odd ── words ── version even ── hints (two byte stores)
//!                                                                        │
//! reader   Reader::descend ── hints cleared ── version compared ── words ─┘
//!            └─ mirror: the last whole value of each slot
//!            └─ (offset, bytes) of what changed, neighbours as one: ready for an uploader
//! ```
//!
//! The parts, from the bottom up:
//!
//! - [`seqlock`]: the protocol over a bare version cell. One word says both whether a copy is whole
//!   and whether it is new.
//! - [`Slot`]: one value, in a `static` or anywhere.
//! - [`Arena`]: many slots of one stride, in chunks whose addresses never change; in a `static`, in
//!   memory set aside elsewhere, or growing on the heap. Its one [`Owner`] allocates slots and frees
//!   them.
//! - [`SlotWriter`]: the one writer of a slot. [`SlotBinding`]: the same as plain addresses, for C, another
//!   process, a WebAssembly worker.
//! - [`Reader`]: visits what changed since its last look, at a cost that follows that.
//!
//! # What it guarantees
//!
//! - **No torn value is accepted**, and no safe call can make one: the types hold the one writer that
//!   a slot has.
//! - **A slot's address never moves** as long as the arena is borrowed or is not moved itself, nor do
//!   those of its version and its hint. An arena that grows adds chunks.
//! - **A freed slot that is used again is never mistaken for the old one**: a value
//!   counts for the generation of its [`SlotId`] only, and that is checked under the same version.
//! - A write that returned before a descend began is in the mirror after it, if no newer one is under
//!   way.
//! - A writer that died in mid-write is no more than a slot that stays torn: [`Owner::recover`].
//!
//! # What it does not
//!
//! - Between two looks a value may have changed many times: the reader sees the last one, not each.
//! - Two slots are two values. Nothing says that they were written together.
//! - Versions have 32 bits: a slot written exactly 2³¹ times (or a multiple) between two descends is
//!   taken for unchanged, and a reader that is held up in the middle of one copy for exactly so many
//!   writes takes that copy for whole.
//!
//! # Why the hints are bytes
//!
//! A writer says where it wrote, so that a reader need not compare every version. On x86-64 a bare
//! write of 64 bytes took 2.05 ns, with a bit set in a shared word (`fetch_or`) 6.4 ns, with a byte
//! stored 2.3 ns. So a hint is a byte.
//!
//! A slot has one, and a chunk has one, so that a reader looks at 64 slots' only if one of them is
//! set. It clears them by plain stores, too, with a fence for many, and only then looks at the
//! versions: a value that is written meanwhile is found there, or hinted again. With a hint for 16
//! slots, of which the reader compared all versions, it knew no slot before its line of versions was
//! there; where a tenth of the slots was written, anywhere, that took half as long again.

mod arena;
#[cfg(not(loom))]
mod binding;
mod chunk;
mod claim;
mod fast;
mod hints;
mod reader;
pub mod seqlock;
#[cfg(not(loom))]
mod slot;
mod storage;
mod words;
mod writer;

#[cfg(not(loom))]
pub use arena::BorrowedArena;
#[cfg(all(feature = "alloc", not(loom)))]
pub use arena::BoxedArena;
pub use arena::{Arena, ArenaError, ArenaFull, ForeignWriter, NotAllocated, Owner, StaticArena};
#[cfg(not(loom))]
pub use binding::SlotBinding;
pub use chunk::{CHUNK_SLOTS, Chunk, chunk_words};
#[cfg(feature = "alloc")]
pub use reader::BoxedReader;
pub use reader::{Descent, Reader, ReaderError, Seen, mirror_words};
pub use seqlock::{Read, UNSEEN, WrongLength};
#[cfg(not(loom))]
pub use slot::{Slot, Writer};
#[cfg(all(feature = "alloc", not(loom)))]
pub use storage::Growing;
#[cfg(not(loom))]
pub use storage::{Borrowed, bytes_for};
pub use storage::{Inline, Storage};
pub use words::{WORD, Words};
pub use writer::{SlotId, SlotWriter};
