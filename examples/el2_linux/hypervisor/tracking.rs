//! The guest's stage-2 tables, and the tracker over them: what an embedder writes.

use core::time::Duration;

use pugmark::{
    AtomicUsize, BlockState, BorrowedRegion, PageGeometry, StepDown, WriteTracker, blocks_for,
    pages_for,
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
    layout::{BLOCK_SIZE, DEVICES, PAGE_SIZE, RAM, RAM_SIZE},
};

/// How fine the tracking is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Blocks, and pages where a block is hot.
    On,
    /// Blocks.
    Off,
    /// Pages, so that a harvest is exactly what was written: for traces.
    Fine,
}

impl Controller {
    const ALL: [(&'static str, Self); 3] =
        [("on", Self::On), ("off", Self::Off), ("fine", Self::Fine)];

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|&(_, controller)| controller)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, known)| *known == self);
        known.map_or("", |(name, _)| name)
    }

    fn geometry(self) -> PageGeometry {
        match self {
            Self::On | Self::Off => COARSE,
            Self::Fine => FINE,
        }
    }

    fn step_down(self) -> StepDown {
        match self {
            Self::On => STEP_DOWN,
            Self::Off | Self::Fine => StepDown::NEVER,
        }
    }
}

const COARSE: PageGeometry = PageGeometry::ARM64_4K;
const FINE: PageGeometry = match PageGeometry::new(PAGE_SIZE, PAGE_SIZE) {
    Ok(geometry) => geometry,
    Err(_) => panic!("a page is a block"),
};

/// When a block is hot: as by default after 32 faults, but in a second. The default window of 100 ms
/// is for hardware; here a block that is written all the time faults at each harvest, and no more.
const STEP_DOWN: StepDown = StepDown {
    window: Duration::from_secs(1),
    ..StepDown::DEFAULT
};

const WORDS: usize = words_for(pages_for(RAM_SIZE, COARSE));
const BLOCKS: usize = blocks_for(RAM, RAM_SIZE, FINE);

static DIRTY: [AtomicUsize; WORDS] = [const { AtomicUsize::new(0) }; WORDS];
static HELD: [AtomicUsize; WORDS] = [const { AtomicUsize::new(0) }; WORDS];
static STATES: [BlockState; BLOCKS] = [const { BlockState::new() }; BLOCKS];

/// A table for each block of guest RAM that is split, and a handful for the devices and the levels
/// above.
static TABLES: TablePool<{ (RAM_SIZE / BLOCK_SIZE) as usize + 8 }> = TablePool::new();

type Protection = Mutex<Stage2Protection<PooledTables>>;
/// The tracker of the one guest.
pub type Tracker = WriteTracker<Protection, [BorrowedRegion<'static>; 1]>;

static TRACKER: Once<Tracker> = Once::new();

/// The tracker. The first core has made it before it starts the others.
pub fn tracker() -> &'static Tracker {
    TRACKER
        .get()
        .unwrap_or_else(|| die(format_args!("no tracker yet")))
}

/// Maps the guest's memory and makes the tracker over it, every page marked.
pub fn init(controller: Controller) {
    let Some(tables) = TABLES.take() else {
        die(format_args!("the page tables are in use"));
    };
    let mut mapping = Mapping::new(tables, 1, Stage2);
    if let Err(error) = map_guest(&mut mapping) {
        die(format_args!("the guest cannot be mapped: {error}"));
    }
    let protection = Mutex::new(Stage2Protection::new(mapping));
    let geometry = controller.geometry();
    let region = BorrowedRegion::with_storage(RAM, RAM_SIZE, geometry, &DIRTY, &HELD, &STATES);
    let region = match region {
        Ok(region) => region.with_step_down(controller.step_down()),
        Err(error) => die(format_args!("{error}")),
    };
    match WriteTracker::new(protection, [region]) {
        Ok(tracker) => TRACKER.call_once(|| tracker),
        Err(error) => die(format_args!("{error}")),
    };
}

/// An identity map: RAM by blocks of 2 MiB, open to all; the devices by pages. Nothing else, and so
/// none of the hypervisor's own memory.
fn map_guest(mapping: &mut Mapping<PooledTables, Stage2>) -> Result<(), MapError> {
    const OPEN: Stage2Attributes = Stage2Attributes::VALID
        .union(Stage2Attributes::ACCESS_FLAG)
        .union(Stage2Attributes::S2AP_ACCESS_RW);
    const MEMORY: Stage2Attributes = OPEN
        .union(Stage2Attributes::MEMATTR_NORMAL_OUTER_WB)
        .union(Stage2Attributes::MEMATTR_NORMAL_INNER_WB)
        .union(Stage2Attributes::SH_INNER);
    const DEVICE: Stage2Attributes = OPEN
        .union(Stage2Attributes::MEMATTR_DEVICE_nGnRE)
        .union(Stage2Attributes::XN);

    let mut map = |start: u64, end: u64, attributes| {
        mapping.map_range(
            &MemoryRegion::new(start as usize, end as usize),
            PhysicalAddress(start as usize),
            attributes,
            Constraints::empty(),
        )
    };
    for device in &DEVICES {
        map(device.start, device.end, DEVICE)?;
    }
    map(RAM, RAM + RAM_SIZE, MEMORY)
}

/// Puts the guest's tables to use on this core: so that its TLB maintenance means this VM. Every
/// core calls it once. A vCPU's core then goes through the gate instead.
pub fn activate() {
    cpu::set_stage2_walk();
    // SAFETY: nothing at EL2 is translated by stage 2, and the tables are never dropped.
    unsafe { tracker().protection().lock().mapping().activate() };
}
