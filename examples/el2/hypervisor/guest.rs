//! The guest: real code at EL1, behind its own translation tables, that writes to its memory with
//! every class of store that the architecture has.
//!
//! It shares the image with the hypervisor, which maps text and constants for it, and nothing of
//! the hypervisor's data. So this code writes to the guest's RAM only: its pages, its tables and
//! its stack, and all of these are tracked.

mod atomics;
mod cache;
mod patterns;
mod scalar;
pub mod tables;
mod vector;

use core::{
    arch::asm,
    ptr::{read_volatile, write_volatile},
};

use crate::hypervisor::{
    cpu::Features,
    hypercall,
    layout::{BLOCK_PAGES, BLOCK_SIZE, GUEST_PAGES, PAGE_SIZE, REGIONS, VCPUS},
};

/// A class of store, and the pages that are its own.
pub struct Class {
    /// As the report prints it.
    pub name: &'static str,
    /// What the CPU must have, and the name of that.
    pub needs: Option<(Features, &'static str)>,
    /// Where it writes.
    windows: &'static [Window],
    /// Writes there, and returns how many pages this vCPU is to be credited with. Without it, it is
    /// the hypervisor that writes, in the place of a device.
    run: Option<fn(&Job) -> u64>,
}

/// Some pages of the guest, evenly spaced.
#[derive(Clone, Copy)]
pub struct Window {
    base: u64,
    pages: usize,
    stride: usize,
}

impl Class {
    /// Whether `ipa` is in a page of its own.
    pub fn owns(&self, ipa: u64) -> bool {
        self.windows.iter().any(|window| window.contains(ipa))
    }

    /// Whether it is to make blocks step down.
    pub fn is_hot(&self) -> bool {
        core::ptr::eq(self.windows, &HOT)
    }

    /// Whether the hypervisor is to write to its pages, in the place of a device.
    pub const fn is_device(&self) -> bool {
        self.run.is_none()
    }
}

impl Window {
    /// `pages` neighbours.
    const fn run(base: u64, pages: usize) -> Self {
        Self {
            base,
            pages,
            stride: 1,
        }
    }

    /// One page in each of `blocks` blocks.
    const fn a_page_a_block(base: u64, blocks: usize) -> Self {
        Self {
            base,
            pages: blocks,
            stride: BLOCK_PAGES,
        }
    }

    /// The address of page `n` of the window.
    pub const fn page(&self, n: usize) -> u64 {
        self.base + (n * self.stride) as u64 * PAGE_SIZE
    }

    /// Pages in it.
    pub const fn len(&self) -> usize {
        self.pages
    }

    /// Whether `ipa` is in it.
    const fn contains(&self, ipa: u64) -> bool {
        if ipa < self.base {
            return false;
        }
        let page = ((ipa - self.base) / PAGE_SIZE) as usize;
        page.is_multiple_of(self.stride) && page / self.stride < self.pages
    }
}

/// A slot of 64 pages in the blocks that the classes share, seven to a block: the last 64 pages of
/// each block are for the hot and the sparse pattern, so that the hot one makes these very blocks
/// step down, and the next round writes to them page by page.
const fn slot(n: usize) -> u64 {
    const PER_BLOCK: usize = 7;
    REGIONS[0] + BLOCK_SIZE * (1 + n / PER_BLOCK) as u64 + (n % PER_BLOCK * SLOT) as u64 * PAGE_SIZE
}

/// Pages in a slot.
const SLOT: usize = 64;
/// The slot of the walker's classes: tables first, then the pages that they map.
pub const WALKER_SLOT: u64 = slot(15);
/// Blocks in each region.
const BLOCKS: usize = GUEST_PAGES / BLOCK_PAGES / REGIONS.len();

const fn hot(block: u64) -> Window {
    Window::run(block + 448 * PAGE_SIZE, 8)
}

macro_rules! class {
    ($name:literal, $run:expr, $windows:expr) => {
        class!($name, $run, $windows, None)
    };
    ($name:literal, $run:expr, $windows:expr, $needs:expr) => {
        Class {
            name: $name,
            needs: $needs,
            windows: &$windows,
            run: $run,
        }
    };
}

const LSE: Option<(Features, &str)> = Some((Features::LSE, "FEAT_LSE"));
const SVE: Option<(Features, &str)> = Some((Features::SVE, "FEAT_SVE"));

/// Every class, in the order of a round.
#[rustfmt::skip]
pub static CLASSES: [Class; 21] = [
    class!("STR",                       Some(scalar::str),         [Window::run(slot(0), SLOT)]),
    class!("STRB",                      Some(scalar::strb),        [Window::run(slot(1), SLOT)]),
    class!("STP",                       Some(scalar::stp),         [Window::run(slot(2), SLOT)]),
    class!("STR, pre-index",            Some(scalar::pre_index),   [Window::run(slot(3), SLOT)]),
    class!("STR, post-index",           Some(scalar::post_index),  [Window::run(slot(4), SLOT)]),
    class!("LDXR and STXR",             Some(atomics::exclusive),  [Window::run(slot(5), SLOT)]),
    class!("CAS",                       Some(atomics::cas),        [Window::run(slot(6), SLOT)], LSE),
    class!("LDADD",                     Some(atomics::ldadd),      [Window::run(slot(7), SLOT)], LSE),
    class!("SWP",                       Some(atomics::swp),        [Window::run(slot(8), SLOT)], LSE),
    class!("SIMD ST1, STR and STP",     Some(vector::simd),        [Window::run(slot(9), SLOT)]),
    class!("SVE ST1D and ST1B",         Some(vector::sve),         [Window::run(slot(10), SLOT)], SVE),
    class!("DC ZVA",                    Some(cache::zero),         [cache::ZEROED]),
    class!("DC CIVAC and DC IVAC",      Some(cache::maintenance),  [Window::run(slot(12), SLOT)]),
    class!("across two pages",          Some(scalar::straddle),    [Window::run(slot(13), SLOT)]),
    class!("two vCPUs on one page",     Some(atomics::shared),     [Window::run(slot(14), SLOT)]),
    class!("table walk: access flag",   Some(tables::access_flag), [tables::ACCESS_TABLES]),
    class!("table walk: dirty state",   Some(tables::dirty_state), [tables::DIRTY_TABLES, tables::DIRTY_PAGES]),
    class!("device: the VMM writes",    None,                        [DEVICE]),
    class!("sparse: 2 pages a block",   Some(patterns::sparse),    SPARSE),
    class!("dense: 4 whole blocks",     Some(patterns::dense),     [Window::run(REGIONS[1] + 4 * BLOCK_SIZE, 4 * BLOCK_PAGES)]),
    class!("hot: the same 32 pages",    Some(patterns::hot),       HOT),
];

/// Where the hypervisor writes in the place of a device; the guest does nothing meanwhile.
pub const DEVICE: Window = Window::run(slot(16), SLOT);

static SPARSE: [Window; 4] = [
    Window::a_page_a_block(REGIONS[0] + 480 * PAGE_SIZE, BLOCKS),
    Window::a_page_a_block(REGIONS[0] + 500 * PAGE_SIZE, BLOCKS),
    Window::a_page_a_block(REGIONS[1] + 480 * PAGE_SIZE, BLOCKS),
    Window::a_page_a_block(REGIONS[1] + 500 * PAGE_SIZE, BLOCKS),
];

/// One hot window in each block of the classes, and one in the other region.
pub static HOT: [Window; 4] = [
    hot(REGIONS[0] + BLOCK_SIZE),
    hot(REGIONS[0] + 2 * BLOCK_SIZE),
    hot(REGIONS[0] + 3 * BLOCK_SIZE),
    hot(REGIONS[1] + 12 * BLOCK_SIZE),
];

/// One vCPU's share of one class in one round.
struct Job {
    class: &'static Class,
    vcpu: usize,
    round: u64,
}

impl Job {
    /// The pages of this vCPU: every other one, so that both vCPUs work in the same blocks.
    fn my_pages(&self) -> impl Iterator<Item = (usize, *mut u64)> {
        self.all_pages().skip(self.vcpu).step_by(VCPUS)
    }

    fn all_pages(&self) -> impl Iterator<Item = (usize, *mut u64)> {
        let windows = self.class.windows.iter();
        windows
            .flat_map(|window| (0..window.pages).map(|n| pointer(window.page(n))))
            .enumerate()
    }

    /// A value that pass `pass` of this round alone writes. Both halves are unlike what the round
    /// before left, so a page that got either has changed.
    fn value(&self, pass: u64) -> u64 {
        let half = ((self.round + 1) << 24) | (pass & 0xff_ffff);
        (half << 32) | half
    }

    /// Does `one_pass` again and again, from pass 1 on, until the hypervisor has seen enough: so
    /// that the harvester protects the pages in the midst of it.
    fn repeat(&self, mut one_pass: impl FnMut(u64)) {
        for pass in 1.. {
            one_pass(pass);
            if hvc(hypercall::ENOUGH, pass, 0, 0).0 == 1 {
                break;
            }
        }
    }

    /// Writes to each of this vCPU's pages, again and again: `store` gets the page and the value.
    fn write_pages(&self, store: impl Fn(*mut u64, u64)) -> u64 {
        self.repeat(|pass| {
            for (_, page) in self.my_pages() {
                store(page, self.value(pass));
            }
        });
        self.my_pages().count() as u64
    }

    /// Where both vCPUs write to all pages, the first takes the credit.
    fn credit_for_all(&self) -> u64 {
        match self.vcpu {
            0 => self.all_pages().count() as u64,
            _ => 0,
        }
    }
}

/// A guest address as a pointer. Stage 1 maps it at the same address.
fn pointer(ipa: u64) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(ipa as usize)
}

/// Reads guest memory back, and tells the hypervisor if it is not what a store should have left.
fn expect(address: *const u64, expected: u64) {
    // SAFETY: the callers pass addresses in the guest's RAM, aligned to 8.
    let found = unsafe { read_volatile(address) };
    expect_value(address, found, expected);
}

/// The same for a value in a register.
fn expect_value(address: *const u64, found: u64, expected: u64) {
    if found != expected {
        hvc(hypercall::WRONG, address.addr() as u64, found, expected);
    }
}

/// Rounds that each class can tell apart.
pub const MAX_ROUNDS: u64 = cache::ZERO_ROUNDS;

/// Puts into the guest's memory what must be there before it runs.
pub fn load(rounds: u64) {
    tables::build(rounds as usize);
    cache::fill();
}

/// Where a vCPU starts at EL1, with its stage 1 and its stack set up.
pub extern "C" fn start(vcpu: usize) -> ! {
    let mut written = 0;
    loop {
        let (class, round) = hvc(hypercall::NEXT, written, 0, 0);
        // The stack is tracked like all else; this makes sure that each class writes to it.
        let mut note = 0;
        // SAFETY: a local variable.
        unsafe { write_volatile(&mut note, (round << 32) | (class + 1)) };
        if let Some(class) = CLASSES.get(class as usize) {
            let job = Job { class, vcpu, round };
            written = class.run.map_or(0, |run| run(&job));
        }
    }
}

/// Calls the hypervisor.
fn hvc(number: u64, a: u64, b: u64, c: u64) -> (u64, u64) {
    let (x0, x1);
    // SAFETY: the hypervisor changes x0 and x1 only. It does read what this vCPU wrote, so this is
    // a barrier for the compiler.
    unsafe {
        asm!("hvc #0", inlateout("x0") number => x0, inlateout("x1") a => x1, in("x2") b, in("x3") c, options(nostack))
    };
    (x0, x1)
}
