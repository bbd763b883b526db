//! A hypervisor for QEMU's `virt` board. Its guest writes to memory with every class of store, and
//! pugmark finds every page that it wrote: `cargo xtask demo` builds it, boots it and shows that.
//!
//! Four cores: the first is the console and the judge, the second harvests without ever stopping
//! the guest, and the other two run the guest's vCPUs at EL1.
//!
//! What an embedder would copy is in `hypervisor/tracking.rs` (stage-2 tables, tracker) and
//! `hypervisor/vcpu.rs` (the exit handler). The rest is the guest, and the proof.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod hypervisor;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This hypervisor boots in QEMU. Run it with: cargo xtask demo");
}
