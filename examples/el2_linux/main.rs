//! A hypervisor for QEMU's `virt` board that runs an unmodified Linux at EL1, while pugmark at EL2
//! finds every page that it writes: `cargo xtask demo --guest linux` builds it, fetches the kernel,
//! boots it and shows that.
//!
//! Four cores: the first is the judge, who stops the world at each checkpoint and compares all of
//! the guest's memory with a copy; the second harvests without ever stopping the guest; the other
//! two run the guest's vCPUs. Interrupt controller, timer and console are the guest's own, passed
//! through. None of them does DMA. A device that does would write behind stage 2, where nothing
//! faults: what it writes has to go through
//! [`WriteTracker::mark_written`](pugmark::WriteTracker::mark_written), as in the example `el2`.
//!
//! What an embedder would copy is in `hypervisor/tracking.rs` (stage-2 tables, tracker),
//! `hypervisor/vcpu.rs` (the exit handler), `hypervisor/gate.rs` (how the world stops) and
//! `hypervisor/migration.rs` (pre-copy).

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod hypervisor;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This hypervisor boots in QEMU. Run it with: cargo xtask demo --guest linux");
}
