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

/// A byte that any thread sets with a plain store, and that one thread takes.
///
/// A `fetch_or` on a shared word would cost a slot's write more than the value itself.
///
/// Why a plain store is enough although there are several setters: the taker swaps the byte and
/// must then see what *each* setter did before it set. It synchronises with the last one, whose
/// store it reads. Of an earlier setter C11 promises nothing: a store by another thread ends its
/// release sequence. But every machine that this crate runs on is multi-copy atomic (x86, Arm from
/// v6-M to v9, RISC-V, WebAssembly, whose atomics are sequentially consistent): a store that is
/// older in the byte's order was seen by everyone no later than the one that the taker read, and
/// with it all that its release store ordered before. On any other (POWER) a value could stay unseen
/// until the next hint or rescan.
///
/// So there, and under loom, the set is a read-modify-write, which continues the release sequence:
/// "multi-copy atomic" in C11's terms. `tests/loom/hints.rs` has the plain store beside it.
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
        if cfg!(loom) || !MULTI_COPY_ATOMIC {
            self.0.swap(1, Ordering::AcqRel);
        } else {
            self.0.store(1, Ordering::Release);
        }
    }

    /// Whether the byte looks set: worth a [`take`](Self::take).
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        // Orders nothing; `take` does. (loom misses interleavings of plain loads that precede a
        // read-modify-write, so there it is one.)
        #[cfg(not(loom))]
        return self.0.load(Ordering::Relaxed) != 0;
        #[cfg(loom)]
        return self.0.fetch_or(0, Ordering::Relaxed) != 0;
    }

    /// Clears the byte, before all that this thread does after.
    ///
    /// A swap and not a store: it reads the set that it clears, and so synchronises with it.
    #[inline]
    pub(crate) fn take(&self) {
        self.0.swap(0, Ordering::Acquire);
    }

    #[cfg(not(loom))]
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }
}
