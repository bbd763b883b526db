//! A software MMU that can be told to fail, a guest that writes through it, and a mirror of its
//! memory that only harvests bring up to date.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pugmark::{
    AtomicUsize, BlockState, DirtyRun, FaultError, FaultOutcome, PageGeometry, RegionSet, StepDown,
    TrackedRegion, WriteProtect, WriteTracker, blocks_for, pages_for, words_for,
};

pub const PAGE: u64 = 4096;
pub const PAGES_PER_BLOCK: u64 = 8;
pub const BLOCK: u64 = PAGES_PER_BLOCK * PAGE;

/// Small blocks, so that a test shows several.
pub const GEOMETRY: PageGeometry = match PageGeometry::new(PAGE, BLOCK) {
    Ok(geometry) => geometry,
    Err(_) => panic!("not a geometry"),
};

pub type Region = TrackedRegion<Vec<AtomicUsize>, Vec<BlockState>>;
pub type Tracker = WriteTracker<Host, Regions>;

/// A region that owns its storage, without a feature.
pub fn region(base: u64, size: u64) -> Region {
    let words = || {
        let words = 0..words_for(pages_for(size, GEOMETRY));
        words.map(|_| AtomicUsize::new(0)).collect()
    };
    let blocks = 0..blocks_for(base, size, GEOMETRY);
    let blocks = blocks.map(|_| BlockState::new()).collect();
    TrackedRegion::with_storage(base, size, GEOMETRY, words(), words(), blocks).expect("a region")
}

#[derive(Debug)]
pub struct Regions(pub Vec<Region>);

impl RegionSet for Regions {
    type Words = Vec<AtomicUsize>;
    type Blocks = Vec<BlockState>;

    fn regions(&self) -> &[Region] {
        &self.0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Some tests unwind on purpose.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The two things that a tracker asks of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Protect,
    Unprotect,
}

pub use Call::{Protect, Unprotect};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It did nothing.
    AtOnce,
    /// It did every second page.
    HalfWay,
    /// It did everything, and says that it failed.
    AtTheEnd,
}

impl Failure {
    /// Each of them; under Miri, which is slow, the worst.
    pub const ALL: &[Self] = if cfg!(miri) {
        &[Self::HalfWay]
    } else {
        &[Self::AtOnce, Self::HalfWay, Self::AtTheEnd]
    };
}

/// Before or after the permission changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostError(pub i32);

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host error {}", self.0)
    }
}

/// What each injected failure says.
pub const HOST_ERROR: HostError = HostError(-12);

/// One page of guest memory: a store checks the permission under the same lock that a protect
/// takes, so that none gets through after it.
struct Page {
    writable: bool,
    value: u64,
}

struct Ram {
    base: u64,
    pages: Vec<Mutex<Page>>,
}

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Plan {
    /// The calls still to go until one fails.
    failure: Option<(Call, usize, Failure)>,
    hook: Option<(Call, Moment, Hook)>,
    deaf: bool,
}

/// Guest memory and its permissions.
pub struct Host {
    ram: Vec<Ram>,
    calls: Mutex<Vec<(Call, Range<u64>)>>,
    plan: Mutex<Plan>,
}

impl Host {
    /// Memory for `regions`, all of it writable and zero.
    pub fn new(regions: &[Region]) -> Self {
        let page = || {
            Mutex::new(Page {
                writable: true,
                value: 0,
            })
        };
        let ram = |region: &Region| Ram {
            base: region.base(),
            pages: (0..region.pages()).map(|_| page()).collect(),
        };
        Self {
            ram: regions.iter().map(ram).collect(),
            calls: Mutex::default(),
            plan: Mutex::default(),
        }
    }

    fn page(&self, ipa: u64) -> MutexGuard<'_, Page> {
        let holds = |ram: &&Ram| ram.base <= ipa && ipa - ram.base < ram.pages.len() as u64 * PAGE;
        let ram = self.ram.iter().find(holds).expect("an address in memory");
        lock(&ram.pages[((ipa - ram.base) / PAGE) as usize])
    }

    /// A store by the guest; `false` if it faults.
    pub fn store(&self, ipa: u64, value: u64) -> bool {
        let mut page = self.page(ipa);
        if page.writable {
            page.value = value;
        }
        page.writable
    }

    /// A store by the VMM, which no protection stops.
    pub fn store_as_vmm(&self, ipa: u64, value: u64) {
        self.page(ipa).value = value;
    }

    pub fn load(&self, ipa: u64) -> u64 {
        self.page(ipa).value
    }

    pub fn is_writable(&self, ipa: u64) -> bool {
        self.page(ipa).writable
    }

    /// The `n`th call of this kind from now on, counted from 0, fails.
    pub fn fail(&self, call: Call, n: usize, how: Failure) {
        lock(&self.plan).failure = Some((call, n, how));
    }

    /// Whether a failure that was asked for is still to come; it will not come any more.
    pub fn forgive(&self) -> bool {
        lock(&self.plan).failure.take().is_some()
    }

    /// The same for a hook too.
    pub fn forget_plans(&self) {
        *lock(&self.plan) = Plan::default();
    }

    /// From now on no call has any effect, nor an error.
    pub fn ignore_calls(&self) {
        lock(&self.plan).deaf = true;
    }

    /// At the next call of this kind, runs `hook` on the caller's thread, once.
    pub fn at(&self, call: Call, moment: Moment, hook: impl FnOnce() + Send + 'static) {
        lock(&self.plan).hook = Some((call, moment, Box::new(hook)));
    }

    /// The calls since this was last asked.
    pub fn take_calls(&self) -> Vec<(Call, Range<u64>)> {
        std::mem::take(&mut lock(&self.calls))
    }

    fn run_hook(&self, call: Call, moment: Moment) {
        let due = |hook: &mut (Call, Moment, Hook)| (hook.0, hook.1) == (call, moment);
        // The lock is free while the hook runs: it may call the tracker, and so the host.
        let hook = lock(&self.plan).hook.take_if(due);
        if let Some((.., hook)) = hook {
            hook();
        }
    }

    fn failure_due(&self, call: Call) -> Option<Failure> {
        let failure = &mut lock(&self.plan).failure;
        let (_, left, _) = failure.as_mut().filter(|(kind, ..)| *kind == call)?;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        failure.take().map(|(.., how)| how)
    }

    fn change(&self, call: Call, range: Range<u64>) -> Result<(), HostError> {
        assert!(!range.is_empty(), "an empty range");
        let misaligned = (range.start | range.end) & (PAGE - 1);
        assert_eq!(misaligned, 0, "part of a page: {range:#x?}");
        lock(&self.calls).push((call, range.clone()));

        self.run_hook(call, Moment::Before);
        let failure = self.failure_due(call);
        let deaf = lock(&self.plan).deaf;
        let done = range
            .step_by(PAGE as usize)
            .enumerate()
            .filter(|(n, _)| match failure {
                _ if deaf => false,
                None | Some(Failure::AtTheEnd) => true,
                Some(Failure::HalfWay) => n % 2 == 0,
                Some(Failure::AtOnce) => false,
            });
        for (_, ipa) in done {
            self.page(ipa).writable = call == Unprotect;
        }
        self.run_hook(call, Moment::After);
        failure.map_or(Ok(()), |_| Err(HOST_ERROR))
    }
}

impl WriteProtect for Host {
    type Error = HostError;

    fn protect(&self, range: Range<u64>) -> Result<(), HostError> {
        self.change(Protect, range)
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), HostError> {
        self.change(Unprotect, range)
    }
}

/// A tracked guest, and a mirror of its memory.
pub struct World {
    pub tracker: Arc<Tracker>,
    /// What the mirror holds, by page. A page that was never copied is not in it.
    mirror: RefCell<BTreeMap<u64, u64>>,
    last_value: Cell<u64>,
}

impl World {
    pub fn new(regions: impl IntoIterator<Item = Region>) -> Self {
        Self::with(regions, |tracker| tracker)
    }

    /// A new tracker, set up by `set_up`.
    pub fn with(
        regions: impl IntoIterator<Item = Region>,
        set_up: impl FnOnce(Tracker) -> Tracker,
    ) -> Self {
        let regions: Vec<_> = regions.into_iter().collect();
        let host = Host::new(&regions);
        let tracker = WriteTracker::new(host, Regions(regions)).expect("regions in order");
        Self {
            tracker: Arc::new(set_up(tracker)),
            mirror: RefCell::default(),
            last_value: Cell::new(0),
        }
    }

    /// The same, at a clean checkpoint, with no calls of the host logged.
    pub fn armed(regions: impl IntoIterator<Item = Region>) -> Self {
        let world = Self::new(regions);
        world.arm();
        world
    }

    /// The same, and every block at page grain.
    pub fn armed_fine(bases_and_sizes: &[(u64, u64)]) -> Self {
        let regions = bases_and_sizes
            .iter()
            .map(|&(base, size)| fine_region(base, size));
        let world = Self::armed(regions);
        world.step_all_down();
        world
    }

    pub fn host(&self) -> &Host {
        self.tracker.protection()
    }

    /// For a hook, which the host owns and so must not own the tracker.
    pub fn weak(&self) -> Weak<Tracker> {
        Arc::downgrade(&self.tracker)
    }

    /// A clean checkpoint, and its baseline.
    pub fn arm(&self) {
        self.tracker.arm().expect("the host protects");
        self.copy_baseline();
        self.host().take_calls();
    }

    pub fn copy_baseline(&self) {
        let pages = self.pages().map(|page| (page, self.host().load(page)));
        *self.mirror.borrow_mut() = pages.collect();
    }

    /// Makes each block of a [`fine_region`] fine, and leaves the pages as clean as they were.
    pub fn step_all_down(&self) {
        use std::time::Duration;
        self.tracker.tick(Duration::from_millis(1));
        let blocks = self.pages().filter(|page| page % BLOCK == 0);
        let firsts = self.tracker.regions().iter().map(Region::base);
        for page in blocks.chain(firsts).collect::<Vec<_>>() {
            self.fault(page);
        }
        self.tracker.tick(Duration::from_millis(2));
        self.harvest();
        self.host().take_calls();
    }

    /// Addresses of every page.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        let ranges = self.tracker.regions().iter().map(Region::page_range);
        ranges.flat_map(|range| range.step_by(PAGE as usize))
    }

    fn next_value(&self) -> u64 {
        self.last_value.set(self.last_value.get() + 1);
        self.last_value.get()
    }

    /// A write fault that must be granted.
    pub fn fault(&self, ipa: u64) -> Granted {
        granted(self.tracker.on_write_fault(ipa))
    }

    /// A store by the guest, with the fault that it takes, if any.
    pub fn write(&self, ipa: u64) -> Option<Granted> {
        guest_store(&self.tracker, ipa, self.next_value())
    }

    /// A store by the VMM, told to the tracker.
    pub fn write_as_vmm(&self, range: Range<u64>) {
        let first = range.start & !(PAGE - 1);
        for page in (first..range.end).step_by(PAGE as usize) {
            self.host().store_as_vmm(page, self.next_value());
        }
        self.tracker.mark_written(range).expect("tracked");
    }

    /// Brings the mirror up to date with `run`.
    pub fn copy(&self, run: DirtyRun) {
        for page in run.range().step_by(PAGE as usize) {
            self.mirror
                .borrow_mut()
                .insert(page, self.host().load(page));
        }
    }

    /// A whole harvest into the mirror: the runs.
    pub fn harvest(&self) -> Vec<DirtyRun> {
        let mut runs = Vec::new();
        let accept = |run| {
            self.copy(run);
            runs.push(run);
            Ok::<(), Infallible>(())
        };
        self.tracker.harvest(accept).expect("nothing fails");
        runs
    }

    /// A whole harvest into the mirror: the pages.
    pub fn harvest_pages(&self) -> Vec<u64> {
        self.harvest().into_iter().flat_map(pages_of).collect()
    }

    /// A harvest whose consumer refuses run `refused`, counted from 0: the runs it was shown.
    pub fn harvest_refused_at(&self, refused: usize) -> Vec<DirtyRun> {
        let mut runs = Vec::new();
        let accept = |run| {
            runs.push(run);
            if runs.len() > refused {
                return Err("full");
            }
            self.copy(run);
            Ok(())
        };
        let _ = self.tracker.harvest(accept);
        runs
    }

    pub fn is_marked(&self, ipa: u64) -> bool {
        is_marked(&self.tracker, ipa)
    }

    pub fn marked(&self) -> Vec<u64> {
        let regions = self.tracker.regions().iter();
        let marked = regions.flat_map(|region| {
            let marked = |page: &usize| region.dirty().is_marked(*page) == Ok(true);
            let pages = (0..region.pages()).filter(marked);
            pages.map(|page| region.base() + page as u64 * PAGE)
        });
        marked.collect()
    }

    /// What must always hold, when no handler is under way: a page that can be written is marked,
    /// and so is one whose mirror is old.
    pub fn check(&self) {
        self.check_beside(&[]);
    }

    /// The same while a harvest holds `held`.
    pub fn check_beside(&self, held: &[DirtyRun]) {
        let mirror = self.mirror.borrow();
        let regions = self.tracker.regions().iter().zip(&self.host().ram);
        let pages = regions.flat_map(|(region, ram)| {
            let marked = |page| region.dirty().is_marked(page) == Ok(true);
            let pages = ram.pages.iter().enumerate();
            pages.map(move |(n, page)| (ram.base + n as u64 * PAGE, marked(n), lock(page)))
        });
        for (page, marked, state) in pages {
            let Page { writable, value } = *state;
            assert!(marked || !writable, "{page:#x} is writable and not marked");
            let held = held.iter().any(|run| run.range().contains(&page));
            let current = mirror.get(&page) == Some(&value);
            assert!(current || marked || held, "{page:#x} is lost");
        }
    }

    /// Harvests until nothing is left, and the mirror must be the memory.
    pub fn check_to_the_end(&self) {
        self.host().forgive();
        self.check();
        self.harvest();
        assert_eq!(self.marked(), [0; 0]);
        self.check();
    }
}

/// A region whose blocks step down after a single fault in a millisecond.
pub fn fine_region(base: u64, size: u64) -> Region {
    region(base, size).with_step_down(StepDown {
        threshold: 0,
        window: std::time::Duration::from_millis(1),
        ..StepDown::DEFAULT
    })
}

pub fn is_marked(tracker: &Tracker, ipa: u64) -> bool {
    let mut regions = tracker.regions().iter();
    let region = regions.find(|region| region.page_range().contains(&ipa));
    let region = region.expect("a tracked address");
    let page = (ipa - region.base()) / PAGE;
    region.dirty().is_marked(page as usize) == Ok(true)
}

/// A fault that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    pub span: Range<u64>,
    pub spurious: bool,
}

pub fn granted(outcome: Result<FaultOutcome, FaultError<HostError>>) -> Granted {
    match outcome {
        Ok(FaultOutcome::Granted { span, spurious, .. }) => Granted { span, spurious },
        other => panic!("not granted: {other:?}"),
    }
}

/// A store by the guest: it faults at most once where nobody protects in between.
pub fn guest_store(tracker: &Tracker, ipa: u64, value: u64) -> Option<Granted> {
    if tracker.protection().store(ipa, value) {
        return None;
    }
    let granted = granted(tracker.on_write_fault(ipa));
    let stored = tracker.protection().store(ipa, value);
    assert!(stored, "{ipa:#x} was granted, and faults again");
    Some(granted)
}

/// Addresses of the pages of `run`, the last one perhaps in part.
pub fn pages_of(run: DirtyRun) -> impl Iterator<Item = u64> {
    run.range().step_by(PAGE as usize)
}
