//! The only file that names an atomic type.
//!
//! portable-atomic gives a core without compare-and-swap the same operations as any other; under
//! loom its instrumented twins stand in, so that the models check this very code.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicUsize};
#[cfg(all(feature = "alloc", not(loom)))]
pub(crate) use portable_atomic::AtomicPtr;
#[cfg(not(loom))]
pub(crate) use portable_atomic::{AtomicBool, AtomicU8};
#[cfg(not(loom))]
pub use portable_atomic::{AtomicU32, AtomicUsize};

pub(crate) use core::sync::atomic::Ordering;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::fence;

/// A sequentially consistent fence right behind a read-modify-write of this thread.
///
/// On x86 that is the fence already: an instruction with a lock prefix orders all that is before it
/// against all that is behind it, whatever ordering it was asked for. There only the compiler has to be
/// told.
#[inline]
pub(crate) fn fence_after_rmw() {
    if cfg!(any(loom, miri)) || !cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        fence(Ordering::SeqCst);
    } else {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }
}

/// Machines on which a store is seen by all other cores at once.
const MULTI_COPY_ATOMIC: bool = cfg!(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "arm",
    target_arch = "aarch64",
    target_arch = "riscv32",
    target_arch = "riscv64",
    target_arch = "wasm32",
    target_arch = "wasm64",
));

/// Whether [`fill`] may store: on multi-copy atomic machines where a read-modify-write is one
/// instruction, or a loop that an interrupt's return breaks. On 32-bit Arm a store from an interrupt
/// handler into a word whose loop was interrupted may be lost; and Miri and loom know no more than C11.
const FILL_BY_STORES: bool = cfg!(all(
    any(
        target_arch = "x86",
        target_arch = "x86_64",
        target_arch = "aarch64"
    ),
    not(any(loom, miri))
));

/// Sets every bit of `words`, after all that this thread did before.
///
/// Where every bit is set, what was there need not be kept: a store does, which is not locked. It orders
/// less: before a load that has to come after it there must be a read-modify-write, and then
/// [`fence_after_fill`].
///
/// Whoever takes a word with an acquire finds what this thread stored before. But of a bit that
/// *another* thread had set in it already, C11 promises nothing any more: a store, unlike a
/// read-modify-write, ends the release sequence. A multi-copy atomic machine finds all the same what that
/// thread stored before its mark. It was before the mark; the mark was before this store, in the order of
/// the word's values; this store was before the swap that took it. That whoever swapped does not see the
/// first of these would be a cycle, of which such a machine has none. Elsewhere it is a swap.
/// `tests/loom/fill.rs` has both.
#[inline]
pub(crate) fn fill(words: &[AtomicUsize]) {
    if FILL_BY_STORES && !words.is_empty() {
        // Each word can be taken as soon as it is stored: what was before comes with it.
        fence(Ordering::Release);
    }
    for word in words {
        if FILL_BY_STORES {
            word.store(usize::MAX, Ordering::Relaxed);
        } else {
            word.swap(usize::MAX, Ordering::SeqCst);
        }
    }
}

/// Keeps every load after it behind the stores of [`fill`], given a read-modify-write in between.
#[inline]
pub(crate) fn fence_after_fill() {
    if FILL_BY_STORES {
        fence_after_rmw();
    }
}

/// A byte that its writer sets, and that one reader clears: both by plain stores.
///
/// A `fetch_or` on a shared word would cost a slot's write more than the value itself, and a swap of
/// each byte would cost a reader of many as much as all else that it does.
///
/// The reader looks, clears what is set, fences ([`cleared`](Self::cleared)), and only then loads
/// what the hint tells of. A set that comes later than the clear stays, for the next look. A set that
/// came before it may be overwritten unseen; so the reader's loads must find what that setter stored
/// before it set.
///
/// - In C11's terms that takes a sequentially consistent fence on both sides: the setter's, between
///   what it stored and the set, is before the reader's, between the clear and the loads.
/// - On a multi-copy atomic machine (x86, Arm, RISC-V, WebAssembly) the setter needs none: its
///   release store orders what it stored before the set, the set is before the clear in the byte's
///   order, and the fence orders the clear before the loads. Were one of these to miss what was stored,
///   that would be a cycle, of which such a machine has none. (POWER is no such machine.)
///
/// So the setter fences on other machines alone; and under loom and Miri, which know no more than C11.
/// `tests/loom/hints.rs` has what each step is for.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct HintByte(AtomicU8);

impl HintByte {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Sets the byte, after all that this thread did before.
    #[inline]
    pub(crate) fn set(&self) {
        if cfg!(any(loom, miri)) || !MULTI_COPY_ATOMIC {
            fence(Ordering::SeqCst);
        }
        self.0.store(1, Ordering::Release);
    }

    /// Whether the byte looks set: worth a [`clear`](Self::clear).
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        // Relaxed: it orders nothing. `cleared` does.
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Clears the byte. Before what it told of is loaded, [`cleared`](Self::cleared) must be called.
    #[inline]
    pub(crate) fn clear(&self) {
        // Relaxed: the fence orders it.
        self.0.store(0, Ordering::Relaxed);
    }

    /// Puts every [`clear`](Self::clear) before this ahead of every load after.
    #[inline]
    pub(crate) fn cleared() {
        fence(Ordering::SeqCst);
    }

    #[cfg(not(loom))]
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }
}
