//! **Which guest pages were written?** pugmark answers a hypervisor: live, losing none, and at a cost
//! that follows what was written, not what exists.
//!
//! It is `no_std` and needs no allocator. The same code runs in a bare-metal hypervisor at EL2, in
//! firmware on a microcontroller, and in a VMM process on macOS or Linux. Beside the pages it has
//! [`slots`]: values that one thread publishes to another without a lock.
//!
//! # How it works
//!
//! Guest memory is write-protected. The first write to a page (or to a whole block, where tracking
//! is coarse) faults; the handler opens it and marks it; the vCPU retries its instruction. A harvest
//! takes the marks, protects those pages again, and gives them to a consumer: a snapshot, a
//! migration, a screen.
//!
//! ```text
//! vCPU     store ── fault ─┐                        ┌─ same instruction again
//!                          ▼                        │
//! handler          WriteTracker::on_write_fault ────┘
//!                    1. WriteProtect::unprotect(span)      stage 2, hv_vm_protect, an MPU …
//!                    2. DirtyBitmap::mark_range(span)      1 bit a page, 1 summary bit a line
//!
//! harvester        WriteTracker::harvest
//!                    1. DirtyBitmap::drain                 only the lines that the summary names
//!                    2. WriteProtect::protect_all(runs)    small gaps bridged
//!                    3. consumer(run)                      refused: marked again
//! ```
//!
//! The parts, from the bottom up:
//!
//! - [`DirtyBitmap`]: bits by index, atomic, hierarchical; in a `static`, borrowed, or on the heap.
//! - [`TrackedRegion`]: guest physical addresses to bits; per block a [`Granule`], the block or
//!   the page: by how often it faults ([`StepDown`]), or by what comes cheapest ([`CostModel`]).
//! - [`WriteProtect`]: the one seam to a host. Two methods; a host may improve on two more.
//! - [`WriteTracker`]: puts them together, in the order that loses nothing.
//! - [`arch`]: what a trap said, decoded; [`host`]: ready hosts.
//!
//! # Slots
//!
//! [`slots`] publish values without a lock and without tearing: from an interrupt handler to the main
//! loop, from a vCPU thread to a monitor, from another process to us. A [`Slot`] is one value; an
//! [`Arena`] is many, at addresses that never move, with a reader whose cost follows what changed.
//! They share no state with the pages; [`slots`] has their guarantees.
//!
//! # What it guarantees
//!
//! - **No written page is lost.** A page written between two harvests is in some harvest that begins
//!   no later than the first one after its fault handler returned.
//! - A harvest is a transaction: what its consumer did not accept is marked again. So is everything
//!   after a failed grant or protect that may have become writable.
//! - The fault path does not allocate, lock, panic or loop without bound, apart from the host's own
//!   `unprotect`.
//! - The faulting instruction is retried, never skipped or emulated.
//!
//! # What it does not
//!
//! - It reports at least the pages that were written. Coarse blocks report their neighbours too, and
//!   so does a page that was written back to what it held.
//! - It does not see writes that go around the guest's translation: by the VMM, by an emulated or a
//!   passed-through device. Those it must be told: [`WriteTracker::mark_written`].
//! - It neither copies memory nor stops vCPUs.
//! - A drain alone promises nothing of the page's content: protect before you copy, as a harvest
//!   does.
//!
//! # Example
//!
//! The whole of it, with a software host, is `examples/embed.rs`; [`WriteTracker`] has the shortest.
//!
//! # Features
//!
//! All are off by default, and they only add. [`features`] has a page for each.
//!
//! | feature | adds | needs |
//! | --- | --- | --- |
//! | *(none)* | const-sized and borrowed forms, of pages and of slots; [`arch`] | a target with pointers |
//! | `alloc` | heap-backed forms | an allocator |
//! | `std` | `alloc`; snapshots in files; a host behind `std::sync::Mutex`; a monotonic clock | an OS |
//! | `hvf` | Hypervisor.framework as a host | macOS on Apple silicon |
//! | `uffd` | userfaultfd as a host, with a handler or asynchronous | Linux |
//! | `kvm` | KVM's dirty log and dirty ring as hosts | Linux, KVM |
//! | `vm-memory` | vm-memory's `Bitmap` for our bitmaps and trackers | |
//! | `stage2` | aarch64-paging's stage-2 tables as a host | AArch64, EL2 |
//! | `spin` | a host behind `spin::Mutex` | |
//! | `critical-section` | a host behind `critical_section::Mutex` | a critical-section implementation |
//! | `capi` | C functions that mark and write slots, and their header | |
//! | `defmt` | `defmt::Format` on the public types, a line at each decision | a defmt logger |
//! | `tracing` | the same lines for hosts | `std` |
//!
//! On a core without compare-and-swap (Cortex-M0) every atomic access is a critical section, feature
//! or not, and the program must bring its implementation.
//!
//! The minimum supported Rust version is the `rust-version` of `Cargo.toml`.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[macro_use]
mod log;
mod prefetch;
mod sync;

pub mod arch;
pub mod bitmap;
#[cfg(all(feature = "capi", not(loom)))]
pub mod capi;
pub mod features;
pub mod host;
pub mod pages;
pub mod slots;
#[cfg(feature = "std")]
pub mod snapshot;

#[doc(no_inline)]
pub use bitmap::{DirtyBitmap, LengthMismatch, OutOfRange, Run, StorageTooSmall, words_for};
#[doc(no_inline)]
#[cfg(feature = "hvf")]
pub use host::hvf;
#[doc(no_inline)]
#[cfg(feature = "stage2")]
pub use host::stage2;
#[doc(no_inline)]
pub use pages::*;
#[cfg(all(feature = "alloc", not(loom)))]
#[doc(no_inline)]
pub use slots::BoxedArena;
#[doc(no_inline)]
pub use slots::{Arena, SlotId, SlotWriter, StaticArena};
#[cfg(not(loom))]
#[doc(no_inline)]
pub use slots::{BorrowedArena, Slot, SlotBinding};
pub use sync::{AtomicU32, AtomicUsize};
