//! [`TrackedRegion`]: addresses to bits.

use core::fmt;
use core::ops::Range;

use super::adaptive::{AdaptiveController, BlockState, CostModel, Granule, StepDown};
use super::geometry::PageGeometry;
#[cfg(feature = "alloc")]
use crate::bitmap::BoxedWords;
use crate::bitmap::{DirtyBitmap, LINE_BITS, MAX_BITS, OutOfRange, Run, StorageTooSmall};
use crate::sync::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Release},
};

/// A range of guest physical addresses whose writes are tracked.
///
/// `base` is a multiple of the page, and need not be one of the block; `size` may end within a
/// page. The bitmap has one bit a page, and never changes size: a block that steps down changes
/// what the next fault opens, and nothing else, so it cannot lose a bit.
///
/// `W` holds the bits and `B` the blocks' state: see [`StaticRegion`], [`BorrowedRegion`] and
/// [`BoxedRegion`].
///
/// | | bytes |
/// | --- | --- |
/// | a page | ¼: a bit that is dirty, a bit that a two-phase harvest holds, and 1/512 of that for the summaries |
/// | a block | 12 |
pub struct TrackedRegion<W, B> {
    shape: Shape,
    pub(super) dirty: DirtyBitmap<W>,
    /// What a two-phase harvest took and has not committed.
    pub(super) held: DirtyBitmap<W>,
    pub(super) controller: AdaptiveController<B>,
    /// A tracker has it.
    claimed: AtomicBool,
}

/// A region with its storage inside it, for a `static`.
///
/// ```
/// use pugmark::{PageGeometry, StaticRegion, blocks_for, pages_for, words_for};
///
/// const BASE: u64 = 0x4000_0000;
/// const SIZE: u64 = 64 << 20;
/// const GEOMETRY: PageGeometry = PageGeometry::ARM64_4K;
///
/// static RAM: StaticRegion<
///     { words_for(pages_for(SIZE, GEOMETRY)) },
///     { blocks_for(BASE, SIZE, GEOMETRY) },
/// > = StaticRegion::new(BASE, SIZE, GEOMETRY);
///
/// assert_eq!(RAM.pages(), 16_384);
/// ```
#[cfg(not(loom))]
pub type StaticRegion<const WORDS: usize, const BLOCKS: usize> =
    TrackedRegion<[AtomicUsize; WORDS], [BlockState; BLOCKS]>;

/// A region over memory that is set aside elsewhere: by a linker script, a device tree, an arena.
pub type BorrowedRegion<'a> = TrackedRegion<&'a [AtomicUsize], &'a [BlockState]>;

/// A region on the heap.
#[cfg(feature = "alloc")]
pub type BoxedRegion = TrackedRegion<BoxedWords, alloc::boxed::Box<[BlockState]>>;

/// Pages that `size` bytes take, the last one perhaps in part: the bits of a region's bitmap.
///
/// Saturates where they are more than a `usize` counts; such a region is refused.
pub const fn pages_for(size: u64, geometry: PageGeometry) -> usize {
    to_usize(size.div_ceil(geometry.page_size()))
}

/// Blocks that `size` bytes from `base` on touch, the first and last one perhaps in part.
///
/// Saturates as [`pages_for`] does.
pub const fn blocks_for(base: u64, size: u64, geometry: PageGeometry) -> usize {
    if size == 0 {
        return 0;
    }
    let last = base.saturating_add(size - 1);
    to_usize(geometry.block_number(last) - geometry.block_number(base) + 1)
}

const fn to_usize(n: u64) -> usize {
    if n > usize::MAX as u64 {
        usize::MAX
    } else {
        n as usize
    }
}

/// Written guest memory, as a harvest reports it: `len` bytes from guest physical address `start`.
///
/// It begins at a page and is whole pages long, but where the region ends within its last page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DirtyRun {
    /// Guest physical address (IPA) of the first byte.
    pub start: u64,
    /// How many bytes, never zero.
    pub len: u64,
}

impl DirtyRun {
    /// The run as a range of addresses.
    pub const fn range(self) -> Range<u64> {
        self.start..self.start + self.len
    }
}

/// The checked numbers of a region.
#[derive(Debug, Clone, Copy)]
struct Shape {
    base: u64,
    size: u64,
    /// The last address of its last whole page. Like those below it follows from the others, and is
    /// kept for the fault path.
    last: u64,
    /// The number of its first block, counted from address 0 on.
    first_block: u64,
    /// Pages of the first block that lie before it.
    lead: u64,
    /// Its blocks, from the first one on, that have a line of the bitmap each, whole.
    line_blocks: u64,
    geometry: PageGeometry,
}

impl Shape {
    const fn new(base: u64, size: u64, geometry: PageGeometry) -> Result<Self, RegionError> {
        if size == 0 {
            return Err(RegionError::Empty { base });
        }
        let page_size = geometry.page_size();
        if base & (page_size - 1) != 0 {
            return Err(RegionError::Misaligned { base, page_size });
        }
        // The end of the last whole page must be an address too: hosts are given whole pages.
        let whole = match size.checked_next_multiple_of(page_size) {
            Some(whole) => whole,
            None => return Err(RegionError::Overflow { base, size }),
        };
        let Some(end) = base.checked_add(whole) else {
            return Err(RegionError::Overflow { base, size });
        };
        let pages = whole / page_size;
        if pages > MAX_BITS as u64 {
            return Err(RegionError::TooManyPages { pages });
        }
        let before = base & (geometry.block_size() - 1);
        let line_blocks = if before == 0 && geometry.pages_per_block() == LINE_BITS as u64 {
            pages / LINE_BITS as u64
        } else {
            0
        };
        Ok(Self {
            base,
            size,
            last: end - 1,
            first_block: geometry.block_number(base),
            lead: before / page_size,
            line_blocks,
            geometry,
        })
    }

    const fn pages(self) -> usize {
        pages_for(self.size, self.geometry)
    }

    const fn blocks(self) -> usize {
        blocks_for(self.base, self.size, self.geometry)
    }

    const fn check_blocks(self, given: usize) -> Result<(), RegionError> {
        let needed = self.blocks();
        if given < needed {
            return Err(RegionError::TooFewBlocks { needed, given });
        }
        Ok(())
    }
}

#[cfg(not(loom))]
impl<const WORDS: usize, const BLOCKS: usize> StaticRegion<WORDS, BLOCKS> {
    /// A region of `size` bytes from guest physical address `base` on, clean and coarse.
    ///
    /// # Panics
    ///
    /// At compile time in a `static`, where [`RegionError`] says why it is no region, or where the
    /// storage is too small: `WORDS` less than `words_for(pages_for(size, geometry))`, `BLOCKS`
    /// less than [`blocks_for(base, size, geometry)`](blocks_for).
    ///
    /// ```compile_fail
    /// # use pugmark::{PageGeometry, StaticRegion};
    /// static RAM: StaticRegion<9, 1> = StaticRegion::new(0, 4 << 20, PageGeometry::ARM64_4K);
    /// ```
    ///
    /// ```
    /// # use pugmark::{PageGeometry, StaticRegion};
    /// static RAM: StaticRegion<9, 1> = StaticRegion::new(0, 2 << 20, PageGeometry::APPLE_SILICON);
    /// ```
    pub const fn new(base: u64, size: u64, geometry: PageGeometry) -> Self {
        let shape = match Shape::new(base, size, geometry) {
            Ok(shape) => shape,
            Err(error) => error.panic(),
        };
        if let Err(error) = shape.check_blocks(BLOCKS) {
            error.panic()
        }
        Self {
            shape,
            dirty: DirtyBitmap::new(shape.pages()),
            held: DirtyBitmap::new(shape.pages()),
            controller: AdaptiveController::new([const { BlockState::new() }; BLOCKS]),
            claimed: AtomicBool::new(false),
        }
    }
}

#[cfg(feature = "alloc")]
impl BoxedRegion {
    /// A region of `size` bytes from guest physical address `base` on, on the heap.
    ///
    /// # Errors
    ///
    /// [`RegionError`] where the numbers make no region.
    pub fn boxed(base: u64, size: u64, geometry: PageGeometry) -> Result<Self, RegionError> {
        let shape = Shape::new(base, size, geometry)?;
        let blocks = (0..shape.blocks()).map(|_| BlockState::new()).collect();
        Ok(Self {
            shape,
            dirty: DirtyBitmap::boxed(shape.pages()),
            held: DirtyBitmap::boxed(shape.pages()),
            controller: AdaptiveController::new(blocks),
            claimed: AtomicBool::new(false),
        })
    }
}

impl<W, B> TrackedRegion<W, B> {
    /// Sets when its blocks step down from coarse to fine.
    #[must_use]
    pub const fn with_step_down(mut self, step_down: StepDown) -> Self {
        self.controller.set_step_down(step_down);
        self
    }

    /// Sets what its blocks' granules follow: what a fault and a page cost, in place of [`StepDown`].
    #[must_use]
    pub const fn with_cost_model(mut self, model: CostModel) -> Self {
        let pages_per_block = self.shape.geometry.pages_per_block();
        self.controller.set_cost_model(model, pages_per_block);
        self
    }

    /// Guest physical address of its first byte.
    pub const fn base(&self) -> u64 {
        self.shape.base
    }

    /// Its size, in bytes.
    pub const fn size(&self) -> u64 {
        self.shape.size
    }

    /// Its sizes of page and block.
    pub const fn geometry(&self) -> PageGeometry {
        self.shape.geometry
    }

    /// How many pages it has, the last one perhaps in part: the bits of its bitmap.
    pub const fn pages(&self) -> usize {
        self.shape.pages()
    }

    /// The guest physical addresses it covers, rounded out to whole pages: what the host protects,
    /// and where a fault is this region's.
    #[inline]
    pub fn page_range(&self) -> Range<u64> {
        self.shape.base..self.shape.last + 1
    }

    /// Takes the region for a tracker; `false` where another has it.
    pub(super) fn claim(&self) -> bool {
        // Acquire: the tracker before left its marks and its held pages behind.
        !self.claimed.swap(true, Acquire)
    }

    pub(super) fn release(&self) {
        // Release: see `claim`.
        self.claimed.store(false, Release);
    }

    fn address_of(&self, page: usize) -> u64 {
        self.shape.base + self.shape.geometry.bytes(page)
    }

    /// The page of `address`, which lies in the region or below its end.
    #[inline]
    fn page_of(&self, address: u64) -> usize {
        // All of a region's pages are counted in a `usize`.
        self.shape.geometry.page_number(address - self.shape.base) as usize
    }

    /// The block of `page`.
    #[inline]
    fn block_of(&self, page: usize) -> usize {
        let pages = self.shape.lead + page as u64;
        (pages >> self.shape.geometry.pages_per_block_shift()) as usize
    }
}

impl<W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>> TrackedRegion<W, B> {
    /// A region over the caller's storage: two lots of
    /// [`words_for`](crate::words_for)`(`[`pages_for`]`(size, geometry))` words, and
    /// [`blocks_for`]`(base, size, geometry)` blocks.
    ///
    /// # Errors
    ///
    /// [`RegionError`] where the numbers make no region, or the storage is too small for it.
    pub fn with_storage(
        base: u64,
        size: u64,
        geometry: PageGeometry,
        dirty: W,
        held: W,
        blocks: B,
    ) -> Result<Self, RegionError> {
        let shape = Shape::new(base, size, geometry)?;
        shape.check_blocks(blocks.as_ref().len())?;
        Ok(Self {
            shape,
            dirty: DirtyBitmap::with_storage(dirty, shape.pages())?,
            held: DirtyBitmap::with_storage(held, shape.pages())?,
            controller: AdaptiveController::new(blocks),
            claimed: AtomicBool::new(false),
        })
    }

    /// The bitmap, one bit a page from [`base`](Self::base) on.
    ///
    /// Whoever drains or clears it directly, and not through a harvest, must protect the pages
    /// again before copying them.
    pub const fn dirty(&self) -> &DirtyBitmap<W> {
        &self.dirty
    }

    /// What decides how much the next fault in a block opens.
    pub const fn controller(&self) -> &AdaptiveController<B> {
        &self.controller
    }

    /// What the next fault at `address` opens; `None` outside the region.
    pub fn granule_at(&self, address: u64) -> Option<Granule> {
        self.contains(address).then(|| {
            self.controller
                .granule(self.block_of(self.page_of(address)))
        })
    }

    #[inline]
    pub(super) fn contains(&self, address: u64) -> bool {
        self.page_range().contains(&address)
    }

    /// Whether `address` lies below the end of the last page.
    #[inline]
    pub(super) fn is_before_end(&self, address: u64) -> bool {
        address <= self.shape.last
    }

    /// The addresses of `pages`: whole pages, for the host.
    #[inline]
    pub(super) fn addresses(&self, pages: Range<usize>) -> Range<u64> {
        self.address_of(pages.start)..self.address_of(pages.end)
    }

    /// The addresses of `run`, clamped to the region: for a consumer.
    pub(super) fn dirty_run(&self, run: Run) -> DirtyRun {
        let Range { start, end } = self.addresses(run.range());
        let end = end.min(self.shape.base + self.shape.size);
        DirtyRun {
            start,
            len: end - start,
        }
    }

    /// The pages that `range` touches, if any.
    pub(super) fn pages_in(&self, range: &Range<u64>) -> Option<Range<usize>> {
        let whole = self.page_range();
        let first = range.start.max(whole.start);
        let end = range.end.min(whole.end);
        (first < end).then(|| self.page_of(first)..self.page_of(end - 1) + 1)
    }

    /// Marks the pages that `ranges` touch: thousands at once, from a host's own log.
    pub(super) fn mark_ranges(&self, ranges: &[Range<u64>]) {
        // By value, so that the loop does not load them again after each atomic.
        let (whole, geometry) = (self.page_range(), self.shape.geometry);
        let base = geometry.page_number(whole.start);
        let pages = ranges.iter().filter_map(|range| {
            let first = range.start.max(whole.start);
            let end = range.end.min(whole.end);
            let page = |address: u64| to_usize(geometry.page_number(address) - base);
            (first < end).then(|| page(first)..page(end - 1) + 1)
        });
        self.dirty.view().mark_ranges(pages);
    }

    /// What a fault at `address`, which lies in the region, opens: the one place that reads the
    /// granule for it.
    #[inline]
    pub(super) fn span_at(&self, address: u64) -> Span<'_> {
        let Shape {
            first_block,
            geometry,
            ..
        } = self.shape;
        let block_of_all = geometry.block_number(address);
        let number = block_of_all - first_block;
        let block = self.controller.block(number as usize);
        let granule = block.map_or(Granule::Page, BlockState::granule);
        // From address to address: no page need be counted before the host is asked.
        let addresses = match granule {
            Granule::Page => {
                let size = geometry.page_size();
                let start = address & size.wrapping_neg();
                start..start + size
            }
            Granule::Block if self.is_line(number) => geometry.block(block_of_all),
            Granule::Block => self.part_of_block(address),
        };
        Span {
            granule,
            number,
            block,
            addresses,
        }
    }

    /// The addresses of the block of `address`, as far as it lies in the region.
    #[inline(never)]
    fn part_of_block(&self, address: u64) -> Range<u64> {
        let Shape { base, last, .. } = self.shape;
        let within = self.shape.geometry.block_size() - 1;
        // The last one and not the end, which for the last block of all would be 2^64.
        (address & !within).max(base)..(address | within).min(last) + 1
    }

    /// Marks the pages from `start` to `end`: a grant of them failed.
    ///
    /// Of two numbers, and not of a range, which would have to lie on the stack at each fault.
    #[cold]
    #[inline(never)]
    pub(super) fn mark_pages(&self, start: u64, end: u64) {
        let marked = (self.dirty).mark_range(self.page_of(start)..self.page_of(end));
        debug_assert!(marked.is_ok(), "the bitmap has a bit a page");
    }

    /// Marks the page of `address`, as far as the bitmap has it; whether it was clear.
    #[inline]
    pub(super) fn mark_page(&self, address: u64) -> Result<bool, OutOfRange> {
        self.dirty.mark(self.page_of(address))
    }

    /// Whether `block` has a line of the bitmap, whole.
    #[inline]
    pub(super) fn is_line(&self, block: u64) -> bool {
        block < self.shape.line_blocks
    }

    /// Marks `block`, which is a line and has the page of `address`; whether that page was clear.
    #[inline]
    pub(super) fn mark_line(&self, block: u64, address: u64) -> Result<bool, OutOfRange> {
        // The block begins at a multiple of its size, as its line does.
        let page = self.shape.geometry.page_number(address) as usize % LINE_BITS;
        let was_clear = self.dirty.view().mark_line(block as usize, page);
        was_clear.ok_or_else(|| self.missing(address))
    }

    /// Marks `block`, which has the page of `address`, as far as it lies in the region: how many pages
    /// that is, and whether this one was clear.
    ///
    /// Not inlined, so that a fault in a block that is a line is the shorter for it.
    #[inline(never)]
    pub(super) fn mark_part(&self, block: u64, address: u64) -> Result<(usize, bool), OutOfRange> {
        let pages = self.pages_of_block(block as usize);
        let was_clear = !self.dirty.is_marked(self.page_of(address))?;
        self.dirty.mark_range(pages.clone())?;
        Ok((pages.len(), was_clear))
    }

    #[cold]
    fn missing(&self, address: u64) -> OutOfRange {
        OutOfRange {
            index: self.page_of(address),
            len: self.dirty.len(),
        }
    }

    /// The pages of `block`, as far as they lie in the region.
    #[inline]
    fn pages_of_block(&self, block: usize) -> Range<usize> {
        let shift = self.shape.geometry.pages_per_block_shift();
        let Shape { lead, .. } = self.shape;
        let first = ((block as u64) << shift).saturating_sub(lead);
        // Blocks may be so large that the end of the last one is 0.
        let end = ((block as u64 + 1) << shift).wrapping_sub(lead);
        first as usize..end.min(self.dirty.len() as u64) as usize
    }

    /// Tells the controller that `ranges` of this region, which ascend, are about to be protected
    /// again.
    pub(super) fn record_harvest(&self, ranges: &[Range<u64>]) {
        let mut next = 0;
        for range in ranges {
            let last = self.block_of(self.page_of(range.end - 1));
            let first = self.block_of(self.page_of(range.start));
            for block in next.max(first)..=last {
                self.controller.record_progress(block);
            }
            next = last + 1;
        }
    }

    /// For a harvest, before its first run: where the controller wants to know what it takes.
    pub(super) fn begin_harvest(&self) -> Option<Observed<'_, W, B>> {
        let observed = Observed {
            region: self,
            block: 0,
            pages: 0,
            steps: [0; 2],
        };
        self.controller.observes().then_some(observed)
    }
}

/// What a harvest has taken of a region so far, block by block, for its controller.
pub(super) struct Observed<'a, W, B> {
    region: &'a TrackedRegion<W, B>,
    block: usize,
    /// Of `block`; zero before the first run.
    pages: u64,
    /// Blocks that stepped down, and up.
    steps: [usize; 2],
}

impl<W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>> Observed<'_, W, B> {
    /// `run`, which comes after all before it, is drained and about to be protected again.
    pub fn add(&mut self, run: Run) {
        let region = self.region;
        let Range { mut start, end } = run.range();
        while start < end {
            let block = region.block_of(start);
            if block != self.block {
                self.observe();
                self.block = block;
            }
            let next = region.pages_of_block(block).end.min(end);
            self.pages += (next - start) as u64;
            start = next;
        }
    }

    /// The harvest is over: how many blocks stepped down, and up.
    pub fn end(mut self) -> [usize; 2] {
        self.observe();
        self.region.controller.end_harvest();
        self.steps
    }

    fn observe(&mut self) {
        let pages = core::mem::take(&mut self.pages);
        if pages == 0 {
            return;
        }
        match self.region.controller.observe(self.block, pages) {
            Some(Granule::Page) => self.steps[0] += 1,
            Some(Granule::Block) => self.steps[1] += 1,
            None => {}
        }
    }
}

/// What one fault opens.
#[derive(Debug, Clone)]
pub(super) struct Span<'a> {
    pub granule: Granule,
    /// The number of its block in the region.
    pub number: u64,
    /// The block's state: of each that the storage has.
    pub block: Option<&'a BlockState>,
    /// Whole pages.
    pub addresses: Range<u64>,
}

impl<W: AsRef<[AtomicUsize]>, B> fmt::Debug for TrackedRegion<W, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedRegion")
            .field("shape", &self.shape)
            .field("dirty", &self.dirty)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<W: AsRef<[AtomicUsize]>, B> defmt::Format for TrackedRegion<W, B> {
    fn format(&self, f: defmt::Formatter<'_>) {
        let Shape { base, size, .. } = self.shape;
        defmt::write!(f, "TrackedRegion({:#x}+{:#x}, {})", base, size, self.dirty);
    }
}

/// Numbers that make no region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RegionError {
    /// The size is zero.
    Empty {
        /// The base given.
        base: u64,
    },
    /// The base lies within a page.
    Misaligned {
        /// The base given.
        base: u64,
        /// Bytes in a page.
        page_size: u64,
    },
    /// The last page does not end below 2⁶⁴.
    Overflow {
        /// The base given.
        base: u64,
        /// The size given, in bytes.
        size: u64,
    },
    /// More pages than a bitmap can have bits, [`MAX_BITS`](crate::bitmap::MAX_BITS).
    TooManyPages {
        /// The pages in the region.
        pages: u64,
    },
    /// Too few words for the bits.
    Storage(StorageTooSmall),
    /// Too few [`BlockState`]s.
    TooFewBlocks {
        /// Blocks needed.
        needed: usize,
        /// Blocks given.
        given: usize,
    },
}

impl RegionError {
    /// The error as a message at compile time, where no number can be formatted.
    #[cfg(not(loom))]
    const fn panic(self) -> ! {
        match self {
            Self::Empty { .. } => panic!("the region is empty"),
            Self::Misaligned { .. } => panic!("the base of the region is not page-aligned"),
            Self::Overflow { .. } => panic!("the region ends past the address space"),
            Self::TooManyPages { .. } => panic!("the region has more pages than MAX_BITS"),
            Self::Storage(_) => panic!("the region needs words_for(pages_for(…)) words"),
            Self::TooFewBlocks { .. } => panic!("the region needs blocks_for(…) blocks"),
        }
    }
}

impl From<StorageTooSmall> for RegionError {
    fn from(error: StorageTooSmall) -> Self {
        Self::Storage(error)
    }
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { base } => write!(f, "the region at {base:#x} is empty"),
            Self::Misaligned { base, page_size } => write!(
                f,
                "the region's base {base:#x} is no multiple of its page of {page_size} bytes"
            ),
            Self::Overflow { base, size } => write!(
                f,
                "the region of {size:#x} bytes at {base:#x} ends past the address space"
            ),
            Self::TooManyPages { pages } => {
                write!(
                    f,
                    "the region has {pages} pages, more than a bitmap can have bits"
                )
            }
            Self::Storage(error) => error.fmt(f),
            Self::TooFewBlocks { needed, given } => {
                write!(f, "the region needs {needed} blocks and got {given}")
            }
        }
    }
}

impl core::error::Error for RegionError {}
