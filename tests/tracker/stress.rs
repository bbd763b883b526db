//! Guests that never stop, a harvester that never stops them, and a mirror that must be right.
//!
//! `PUGMARK_FULL=1` runs it longer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use pugmark::{DirtyRun, FaultOutcome, StepDown, WriteProtect, WriteTracker};

use crate::world::{BLOCK, Host, HostError, PAGE, Region, Regions, pages_of, region};

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A host that takes its time, so that others get between the steps.
struct Slow {
    host: Host,
    pauses: AtomicU64,
}

impl Slow {
    fn pause(&self) {
        let mut rng = Rng(self.pauses.fetch_add(1, Relaxed));
        match rng.below(4) {
            0 => thread::yield_now(),
            1 => (0..rng.below(300)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

impl WriteProtect for Slow {
    type Error = HostError;

    fn protect(&self, range: Range<u64>) -> Result<(), HostError> {
        self.pause();
        let protected = self.host.protect(range);
        self.pause();
        protected
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), HostError> {
        self.pause();
        let opened = self.host.unprotect(range);
        self.pause();
        opened
    }
}

type Tracker = WriteTracker<Slow, Regions>;

/// Sizes of the run.
struct Scale {
    rounds: usize,
    guests: u64,
    stores: u64,
}

impl Scale {
    fn chosen() -> Self {
        let full = std::env::var_os("PUGMARK_FULL").is_some_and(|full| full == "1");
        let rounds = match (cfg!(miri), full) {
            (true, _) => 3,
            (false, false) => 250,
            (false, true) => 20_000,
        };
        let [guests, stores] = if cfg!(miri) { [2, 25] } else { [3, 200] };
        Self {
            rounds,
            guests,
            stores,
        }
    }
}

/// What the guests saw of their faults.
#[derive(Default)]
struct Seen {
    faults: AtomicUsize,
    spurious: AtomicUsize,
    pages: AtomicUsize,
}

/// A store of the guest, as often as it faults.
fn store(tracker: &Tracker, seen: &Seen, ipa: u64, value: u64) {
    while !tracker.protection().host.store(ipa, value) {
        match tracker.on_write_fault(ipa) {
            Ok(FaultOutcome::Granted { span, spurious, .. }) => {
                assert!(span.contains(&ipa));
                seen.faults.fetch_add(1, Relaxed);
                seen.spurious.fetch_add(spurious.into(), Relaxed);
                let pages = (span.end - span.start) / PAGE;
                seen.pages.fetch_add(pages as usize, Relaxed);
            }
            other => panic!("{other:?} at {ipa:#x}"),
        }
    }
}

/// One guest's stores of one round; the VMM makes a few of them in its name.
fn run_guest(tracker: &Tracker, seen: &Seen, pages: &[u64], stores: u64, rng: &mut Rng) {
    for n in 0..stores {
        let value = (rng.0 << 8) | (n + 1);
        let hot = rng.below(2) == 0;
        let page = rng.below(if hot { 12 } else { pages.len() as u64 });
        let page = pages[page as usize];
        if rng.below(16) == 0 {
            tracker.protection().host.store_as_vmm(page, value);
            tracker.mark_written(page..page + 1).expect("tracked");
        } else {
            store(tracker, seen, page + rng.below(PAGE), value);
        }
    }
}

/// A guest that runs, until it is dropped: by a panic too.
struct Running<'a>(&'a AtomicU64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The side that copies.
struct Harvester<'a> {
    tracker: &'a Tracker,
    mirror: BTreeMap<u64, u64>,
    rng: Rng,
    now: Duration,
    harvests: usize,
    pages: usize,
    rearm_calls: usize,
}

impl Harvester<'_> {
    fn copy(&mut self, run: DirtyRun) {
        for page in pages_of(run) {
            let value = self.tracker.protection().host.load(page);
            self.mirror.insert(page, value);
        }
    }

    fn arm(&mut self, pages: &[u64]) {
        self.tracker.arm().expect("the host protects");
        self.rearm_calls += self.tracker.regions().len();
        for &page in pages {
            let value = self.tracker.protection().host.load(page);
            self.mirror.insert(page, value);
        }
    }

    /// One harvest while the guests run, of a form that chance decides.
    fn harvest(&mut self) {
        self.harvests += 1;
        match self.rng.below(8) {
            0 => self.two_phase(true),
            1 => self.two_phase(false),
            2 => self.streaming(Some(self.rng.0 % 5)),
            _ => self.streaming(None),
        }
        self.now += Duration::from_micros(self.rng.below(1500));
        self.tracker.tick(self.now);
    }

    /// It refuses one of the runs, or none.
    fn streaming(&mut self, mut refused: Option<u64>) {
        let tracker = self.tracker;
        let outcome = tracker.harvest(|run| {
            match &mut refused {
                Some(0) => return Err(()),
                Some(left) => *left -= 1,
                None => {}
            }
            self.copy(run);
            self.pages += pages_of(run).count();
            Ok(())
        });
        if let Ok(harvested) = outcome {
            assert!(harvested.rearm_calls <= harvested.runs);
        }
    }

    fn two_phase(&mut self, commit: bool) {
        let harvest = self.tracker.begin_harvest().expect("the only one");
        if commit {
            harvest.runs().for_each(|run| self.copy(run));
            self.pages += harvest.commit().pages;
        }
    }

    /// With every guest stopped: the pages whose mirror is wrong then.
    fn final_harvest(&mut self, pages: &[u64]) -> usize {
        self.harvests += 1;
        let tracker = self.tracker;
        let outcome = tracker.final_harvest(|run| {
            self.copy(run);
            self.pages += pages_of(run).count();
            Ok::<_, ()>(())
        });
        outcome.expect("no handler is under way");
        let host = &tracker.protection().host;
        let lost = |page: &&u64| self.mirror.get(page) != Some(&host.load(**page));
        pages.iter().filter(lost).count()
    }
}

fn regions() -> [Region; 2] {
    let rule = StepDown {
        threshold: 2,
        window: Duration::from_millis(1),
        ..StepDown::DEFAULT
    };
    [
        region(0x4000_3000, 6 * BLOCK),
        region(1 << 32, 3 * BLOCK + PAGE + 99),
    ]
    .map(|region| region.with_step_down(rule))
}

#[test]
fn a_harvester_that_never_stops_the_guests_loses_no_page() {
    let scale = Scale::chosen();
    let regions = regions();
    let slow = Slow {
        host: Host::new(&regions),
        pauses: AtomicU64::new(0),
    };
    let ranges = regions.each_ref().map(Region::page_range);
    let pages: Vec<u64> = ranges
        .into_iter()
        .flat_map(|r| r.step_by(PAGE as usize))
        .collect();
    let tracker = WriteTracker::new(slow, Regions(regions.into())).expect("in order");
    let tracker = tracker.with_bridge(2);

    let seen = Seen::default();
    let running = AtomicU64::new(0);
    let mut harvester = Harvester {
        tracker: &tracker,
        mirror: BTreeMap::new(),
        rng: Rng(1),
        now: Duration::from_millis(1),
        harvests: 0,
        pages: 0,
        rearm_calls: 0,
    };
    let mut lost = 0;
    let mut first = None;
    for round in 0..scale.rounds {
        running.store(scale.guests, Relaxed);
        thread::scope(|scope| {
            for guest in 0..scale.guests {
                let (tracker, seen, pages) = (&tracker, &seen, &pages[..]);
                let running = Running(&running);
                scope.spawn(move || {
                    let _running = running;
                    let mut rng = Rng(guest << 48 | (round as u64) << 24);
                    run_guest(tracker, seen, pages, scale.stores, &mut rng);
                });
            }
            // A new checkpoint now and then, while they run: all blocks are coarse again.
            if round % 2 == 0 {
                harvester.arm(&pages);
            }
            while running.load(Relaxed) > 0 {
                harvester.harvest();
                thread::yield_now();
            }
        });
        let lost_now = harvester.final_harvest(&pages);
        if lost_now > 0 {
            first.get_or_insert(round);
            lost += lost_now;
        }
        tracker.protection().host.take_calls();
    }
    let written = scale.rounds as u64 * scale.guests * scale.stores;
    assert_eq!(
        lost, 0,
        "lost pages, in {written} stores and {} harvests, first in round {first:?}",
        harvester.harvests
    );

    let counters = tracker.counters();
    assert_eq!(counters.faults, seen.faults.into_inner());
    assert_eq!(counters.grants, counters.faults);
    assert_eq!(counters.spurious_faults, seen.spurious.into_inner());
    assert_eq!(counters.pages_granted, seen.pages.into_inner());
    assert_eq!(counters.harvests, harvester.harvests);
    assert_eq!(counters.pages_harvested, harvester.pages);
    assert!(counters.rearm_calls >= harvester.rearm_calls);
    if !cfg!(miri) {
        assert!(counters.step_downs > 0 && counters.pages_restored > 0);
    }
    println!("{written} stores, {counters:?}");
}
