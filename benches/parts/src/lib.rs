//! The hot paths of pugmark, each alone, so that they can be counted and weighed.
//!
//! `cargo xtask counts` runs `bin/counts.rs` under callgrind, and the fault path at EL2 in QEMU
//! (`examples/fault_counts.rs`). `cargo xtask footprint` builds the other programs in `bin/` for each
//! bare-metal target: they are linked, looked at, and never run.

#![no_std]

#[cfg(target_os = "none")]
mod bare;
pub mod fault;
pub mod harvest;
