//! The only file that names an atomic type.
//!
//! portable-atomic gives a core without compare-and-swap the same operations as any other; under
//! loom its instrumented twins stand in, so that the models check this very code.

#[cfg(loom)]
pub use loom::sync::atomic::AtomicUsize;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, fence};
#[cfg(not(loom))]
pub use portable_atomic::AtomicUsize;
#[cfg(not(loom))]
pub(crate) use portable_atomic::{AtomicBool, AtomicU32};

pub(crate) use core::sync::atomic::Ordering;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::fence;
