#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("front_page.md")]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[macro_use]
mod log;
mod sync;

pub mod arch;
pub mod bitmap;
pub mod features;
pub mod host;
pub mod pages;

#[doc(no_inline)]
pub use bitmap::{DirtyBitmap, LengthMismatch, OutOfRange, Run, StorageTooSmall, words_for};
#[doc(no_inline)]
#[cfg(feature = "stage2")]
pub use host::stage2;
#[doc(no_inline)]
pub use pages::*;
pub use sync::AtomicUsize;
