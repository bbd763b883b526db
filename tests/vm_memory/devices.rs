//! Guest memory of vm-memory whose writes mark our pages.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pugmark::host::vm_memory::{
    MarkWritten, PugmarkBitmap, SharedBitmap, SwapBitmap, TrackerBitmap,
};
use vm_memory::bitmap::Bitmap;
use vm_memory::mmap::MmapRegion;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    VolatileMemory,
};

use crate::suite::tracker;

const PAGE: u64 = 4096;
const LEN: usize = 64 * PAGE as usize;
const RANGES: [(GuestAddress, usize); 2] = [(GuestAddress(0), LEN), (GuestAddress(1 << 32), LEN)];

/// The bitmap itself; the region's own method gives a slice of it.
fn bitmap_of<B: Bitmap>(region: &GuestRegionMmap<B>) -> &B {
    MmapRegion::bitmap(region)
}

fn drained(bitmap: &PugmarkBitmap) -> Vec<usize> {
    let mut pages = Vec::new();
    bitmap.bits().drain_bits(|page| pages.push(page));
    pages
}

#[test]
fn guest_memory_with_our_bitmap_just_works() {
    let memory = GuestMemoryMmap::<PugmarkBitmap>::from_ranges(&RANGES).expect("it maps");
    let regions: Vec<_> = memory.iter().collect();
    assert!(
        regions
            .iter()
            .all(|region| bitmap_of(region).bits().is_clean())
    );

    // Every way in which vm-memory writes, each on a page of its own.
    let at = |page: u64| GuestAddress(page * PAGE);
    memory.write_obj(7_u64, at(1)).expect("in range");
    memory.write_slice(&[1; 4097], at(3)).expect("in range");
    memory.write(&[1; 10], at(6)).expect("in range");
    memory
        .store(9_u32, at(8), Ordering::Relaxed)
        .expect("in range");
    memory
        .read_volatile_from(at(10), &mut &[2_u8; 100][..], 100)
        .expect("in range");
    let slice = memory.get_slice(at(12), 16).expect("in range");
    slice.write_obj(3_u8, 15).expect("in range");
    slice.get_ref::<u16>(4).expect("in range").store(1);
    let array = memory.get_slice(at(14), 8192).expect("in range");
    array
        .get_array_ref::<u64>(0, 1024)
        .expect("in range")
        .store(1000, 1);
    // Two regions, at their own offsets.
    memory
        .write_obj(1_u8, GuestAddress((1 << 32) + 5 * PAGE))
        .expect("in range");
    // Reading marks nothing.
    assert_eq!(memory.read_obj::<u64>(at(1)).expect("in range"), 7);
    memory.read_slice(&mut [0; 64], at(20)).expect("in range");

    assert_eq!(drained(bitmap_of(regions[0])), [1, 3, 4, 6, 8, 10, 12, 15]);
    assert_eq!(drained(bitmap_of(regions[1])), [5]);
    assert_eq!(drained(bitmap_of(regions[0])), [0; 0]);
}

#[test]
fn the_one_who_drains_has_a_clone() {
    type Memory = GuestMemoryMmap<SharedBitmap>;
    let memory = Memory::from_ranges(&RANGES).expect("it maps");
    let clones: Vec<SharedBitmap> = memory.iter().map(|r| bitmap_of(r).clone()).collect();
    memory
        .write_obj(1_u8, GuestAddress(9 * PAGE))
        .expect("in range");
    assert_eq!(drained(&clones[0]), [9]);
    assert_eq!(drained(&clones[1]), [0; 0]);
}

/// The memory is there first, the tracker comes later: as in every VMM.
#[test]
fn devices_mark_the_trackers_pages() {
    type Memory = GuestMemoryMmap<SwapBitmap<TrackerBitmap>>;
    let memory = Memory::from_ranges(&RANGES[..1]).expect("it maps");
    memory
        .write_obj(1_u8, GuestAddress(2 * PAGE))
        .expect("in range");

    let tracker = tracker(0, 2 * LEN as u64, PAGE);
    for region in memory.iter() {
        let marks: Arc<dyn MarkWritten> = tracker.clone();
        let base = region.start_addr().0;
        let bitmap = TrackerBitmap::new(marks, base, region.len() as usize);
        assert!(bitmap_of(region).replace(Some(Arc::new(bitmap))).is_none());
    }
    memory
        .write_slice(&[1; 8192], GuestAddress(5 * PAGE))
        .expect("in range");
    let slice = memory
        .get_slice(GuestAddress(5 * PAGE), 4)
        .expect("in range");
    assert!(slice.bitmap().dirty_at(0));

    let mut runs = Vec::new();
    let harvested = tracker.harvest(|run| {
        runs.push((run.start / PAGE, run.len / PAGE));
        Ok::<_, ()>(())
    });
    harvested.expect("nothing to protect");
    assert_eq!(runs, [(5, 2)]);
    assert!(!slice.bitmap().dirty_at(0));
}
