//! vm-memory over our bitmaps: what its own suite asks of a bitmap, and what its users rely on.
#![cfg(all(target_os = "linux", not(any(miri, loom))))]

mod devices;
mod suite;
mod swap;
