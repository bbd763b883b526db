//! The guest's stage-2 tables, and the tracker over them: what an embedder writes.

use core::time::Duration;

use pugmark::{
    PageGeometry, StaticRegion, StepDown, WriteTracker, blocks_for, pages_for,
    stage2::{
        PooledTables, Stage2Protection, TablePool,
        aarch64_paging::{
            MapError, Mapping,
            descriptor::{PhysicalAddress, Stage2Attributes},
            paging::{Constraints, MemoryRegion, Stage2},
        },
    },
    words_for,
};
use spin::{Mutex, Once};

use super::{
    console::die,
    cpu,
    layout::{BLOCK_PAGES, GUEST_PAGES, REGION_SIZE, REGIONS, image},
};

const GEOMETRY: PageGeometry = PageGeometry::ARM64_4K;

/// When a block is hot. The default, 32 faults in 100 ms, is for hardware; an emulated machine on a
/// busy host gets through a small part of that.
pub const STEP_DOWN: StepDown = StepDown {
    threshold: 8,
    window: Duration::from_secs(1),
    ..StepDown::DEFAULT
};

type Region = StaticRegion<
    { words_for(pages_for(REGION_SIZE, GEOMETRY)) },
    { blocks_for(REGIONS[0], REGION_SIZE, GEOMETRY) },
>;
type Protection = Mutex<Stage2Protection<PooledTables>>;
/// The tracker of the one guest.
pub type Tracker = WriteTracker<Protection, &'static [Region; 2]>;

static GUEST_RAM: [Region; 2] = [
    Region::new(REGIONS[0], REGION_SIZE, GEOMETRY).with_step_down(STEP_DOWN),
    Region::new(REGIONS[1], REGION_SIZE, GEOMETRY).with_step_down(STEP_DOWN),
];

/// A table for each block of guest RAM that is split, and a handful for the levels above.
static TABLES: TablePool<{ GUEST_PAGES / BLOCK_PAGES + 8 }> = TablePool::new();

static TRACKER: Once<Tracker> = Once::new();

/// The tracker. The first core has made it before it starts the others.
pub fn tracker() -> &'static Tracker {
    TRACKER
        .get()
        .unwrap_or_else(|| die(format_args!("no tracker yet")))
}

/// Maps the guest's memory and makes the tracker over it, every page marked.
pub fn init() {
    let Some(tables) = TABLES.take() else {
        die(format_args!("the page tables are in use"));
    };
    let mut mapping = Mapping::new(tables, 1, Stage2);
    if let Err(error) = map_guest(&mut mapping) {
        die(format_args!("the guest cannot be mapped: {error}"));
    }
    let protection = Mutex::new(Stage2Protection::new(mapping));
    match WriteTracker::new(protection, &GUEST_RAM) {
        Ok(tracker) => TRACKER.call_once(|| tracker),
        Err(error) => die(format_args!("{error}")),
    };
}

/// An identity map: RAM by blocks of 2 MiB, open to all but execution; and of the hypervisor's
/// image the text and the constants, which are the guest's code too.
fn map_guest(mapping: &mut Mapping<PooledTables, Stage2>) -> Result<(), MapError> {
    const MEMORY: Stage2Attributes = Stage2Attributes::VALID
        .union(Stage2Attributes::ACCESS_FLAG)
        .union(Stage2Attributes::MEMATTR_NORMAL_OUTER_WB)
        .union(Stage2Attributes::MEMATTR_NORMAL_INNER_WB)
        .union(Stage2Attributes::SH_INNER);
    const RAM: Stage2Attributes = MEMORY
        .union(Stage2Attributes::S2AP_ACCESS_RW)
        .union(Stage2Attributes::XN);
    const CODE: Stage2Attributes = MEMORY.union(Stage2Attributes::S2AP_ACCESS_RO);

    let mut map = |start: u64, end: u64, attributes| {
        mapping.map_range(
            &MemoryRegion::new(start as usize, end as usize),
            PhysicalAddress(start as usize),
            attributes,
            Constraints::empty(),
        )
    };
    for base in REGIONS {
        map(base, base + REGION_SIZE, RAM)?;
    }
    map(image().start, image().end, CODE)
}

/// Puts the guest's tables to use on this core: for the vCPU that it runs, and so that its TLB
/// maintenance means this VM. Every core calls it once.
pub fn activate() {
    cpu::set_stage2_walk();
    // SAFETY: nothing at EL2 is translated by stage 2, and the tables are never dropped.
    unsafe { tracker().protection().lock().mapping().activate() };
}
