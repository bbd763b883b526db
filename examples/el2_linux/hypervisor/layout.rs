//! Where everything is in memory: what the linker script does not place.
//!
//! Stage 2 is an identity map, so one address serves the guest, the tracker and the hypervisor.

#[path = "../guest/layout.rs"]
mod guest;

use core::ops::Range;

use aarch64_paging::paging::PAGE_SIZE as PAGING_PAGE_SIZE;

pub use guest::{DEVICE_TREE, DOORBELL, FIRST_CORE, KERNEL, RAM, RAM_SIZE};
use guest::{MACHINE_RAM, MACHINE_RAM_SIZE};

/// The page, in bytes: the finest size that stage 2 can protect here.
pub const PAGE_SIZE: u64 = PAGING_PAGE_SIZE as u64;
/// The block, in bytes: one level 2 descriptor.
pub const BLOCK_SIZE: u64 = 2 << 20;
/// Pages of the guest.
pub const GUEST_PAGES: usize = (RAM_SIZE / PAGE_SIZE) as usize;
/// The guest's vCPUs.
pub const VCPUS: usize = guest::VCPUS as usize;

/// The copy of the guest's memory at the checkpoint before.
pub const TRUTH: u64 = RAM + RAM_SIZE;
/// Where a migration copies the guest's memory to.
pub const DESTINATION: u64 = TRUTH + RAM_SIZE;
const _: () = assert!(DESTINATION + RAM_SIZE <= MACHINE_RAM + MACHINE_RAM_SIZE);

/// The devices that are the guest's own: `virt`'s GICv3 distributor, one redistributor for each of
/// the four cores (a guest reads along them until it finds its own), and the UART.
pub const DEVICES: [Range<u64>; 3] = [
    0x0800_0000..0x0801_0000,
    0x080a_0000..0x0812_0000,
    0x0900_0000..0x0900_1000,
];

/// The number of the guest page at `ipa`.
pub fn page_index(ipa: u64) -> Option<usize> {
    let offset = ipa.checked_sub(RAM)?;
    (offset < RAM_SIZE).then_some((offset / PAGE_SIZE) as usize)
}

/// The address of guest page `index`.
pub const fn page_ipa(index: usize) -> u64 {
    RAM + index as u64 * PAGE_SIZE
}
