//! What was loaded for the guest: is it a kernel, and a device tree?

use core::ptr;

use super::{
    console::die,
    layout::{DEVICE_TREE, KERNEL},
};

/// `ARM` and a byte of 64, at byte 56 of an arm64 Image.
const IMAGE: u32 = 0x644d_5241;
/// Big-endian, at the beginning of a device tree.
const TREE: u32 = 0xd00d_feed;

/// Dies where one is not there. Before the guest runs.
pub fn check() {
    if read(KERNEL + 56) != IMAGE {
        die(format_args!("at {KERNEL:#x} is no arm64 Image"));
    }
    if read(DEVICE_TREE).swap_bytes() != TREE {
        die(format_args!("at {DEVICE_TREE:#x} is no device tree"));
    }
}

fn read(address: u64) -> u32 {
    // SAFETY: aligned, and in the guest's memory, which EL2's page table maps and no vCPU uses yet.
    unsafe { ptr::with_exposed_provenance::<u32>(address as usize).read_volatile() }
}
