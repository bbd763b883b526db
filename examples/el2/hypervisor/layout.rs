//! Where everything is in memory: what the linker script does not place.
//!
//! The guest's physical addresses are the machine's (stage 2 is an identity map), so one address
//! serves the guest, the tracker and the hypervisor.

use core::ops::Range;

use aarch64_paging::paging::PAGE_SIZE as PAGING_PAGE_SIZE;

/// The page, in bytes: the finest size that stage 2 can protect here.
pub const PAGE_SIZE: u64 = PAGING_PAGE_SIZE as u64;
/// The block, in bytes: one level 2 descriptor.
pub const BLOCK_SIZE: u64 = 2 << 20;
/// Pages in a block.
pub const BLOCK_PAGES: usize = (BLOCK_SIZE / PAGE_SIZE) as usize;

/// The guest's RAM is two regions of this size, with a hole between them.
pub const REGION_SIZE: u64 = 32 << 20;
/// Pages in a region.
pub const REGION_PAGES: usize = (REGION_SIZE / PAGE_SIZE) as usize;
/// Where the two regions begin.
pub const REGIONS: [u64; 2] = [0x5000_0000, 0x5800_0000];
/// Pages of the guest, in both regions.
pub const GUEST_PAGES: usize = REGION_PAGES * REGIONS.len();

/// Where the harvester copies what it harvests, as a live migration would.
pub const DESTINATION: u64 = 0x4400_0000;
/// The copy of the guest's memory at the checkpoint before.
pub const TRUTH: u64 = 0x4800_0000;

/// The guest's translation tables: one root, one for its memory, one for the alias window.
pub const GUEST_ROOT: u64 = REGIONS[0];
/// Level 2 for the identity map.
pub const GUEST_LEVEL_2: u64 = REGIONS[0] + PAGE_SIZE;
/// Level 2 for the alias window.
pub const GUEST_ALIAS_LEVEL_2: u64 = REGIONS[0] + 2 * PAGE_SIZE;

/// The two guest vCPUs.
pub const VCPUS: usize = 2;

/// The first address above the stack of `vcpu`; two pages each, in tracked memory.
pub const fn guest_stack_end(vcpu: usize) -> u64 {
    REGIONS[0] + (8 + 2 * (vcpu as u64 + 1)) * PAGE_SIZE
}

/// The number of the guest page at `ipa`, counted over both regions.
pub fn page_index(ipa: u64) -> Option<usize> {
    REGIONS
        .iter()
        .position(|&base| ipa >= base && ipa - base < REGION_SIZE)
        .map(|region| region * REGION_PAGES + ((ipa - REGIONS[region]) / PAGE_SIZE) as usize)
}

/// The address of guest page `index`.
pub const fn page_ipa(index: usize) -> u64 {
    REGIONS[index / REGION_PAGES] + (index % REGION_PAGES) as u64 * PAGE_SIZE
}

/// The part of the image that the guest may read and execute: text and constants.
pub fn image() -> Range<u64> {
    unsafe extern "C" {
        static text_begin: u8;
        static rodata_end: u8;
    }
    let [start, end] = [&raw const text_begin, &raw const rodata_end].map(|p| p.addr() as u64);
    start..end.next_multiple_of(PAGE_SIZE)
}
