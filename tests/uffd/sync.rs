//! The handler thread, the tracker and the kernel together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use pugmark::host::uffd::{
    Access, HandlerError, Mapping, ProtectError, ServeError, UffdHandler, UffdProtection,
};
use pugmark::{
    ArmError, BoxedRegion, DirtyRun, Granule, HarvestError, StepDown, WriteProtect, WriteTracker,
};

use crate::memory::{Kind, Memory, PAGE, TRACKABLE};
use crate::say;

pub type Tracker = WriteTracker<UffdProtection, Vec<BoxedRegion>>;

const BLOCK: usize = 2 << 20;
const IPA: u64 = 0x4000_0000;

pub fn track(mappings: &[Mapping], step_down: StepDown) -> (Arc<Tracker>, UffdHandler) {
    let protection = UffdProtection::new(mappings.iter().copied()).expect("anonymous or shared");
    let regions = protection.regions().expect("small enough");
    let regions: Vec<_> = regions
        .into_iter()
        .map(|region| region.with_step_down(step_down))
        .collect();
    let tracker = Arc::new(WriteTracker::new(protection, regions).expect("in order"));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    (tracker, handler)
}

/// Every page steps down at the first tick after its block faulted.
const AT_ONCE: StepDown = StepDown {
    threshold: 0,
    window: Duration::from_nanos(1),
    ..StepDown::DEFAULT
};

/// All that was written by now. The handler marks a page after it lets the writer go on, so the
/// harvest has to wait for it.
pub fn harvested<P: WriteProtect<Error: std::fmt::Debug>>(
    tracker: &WriteTracker<P, Vec<BoxedRegion>>,
) -> Vec<DirtyRun> {
    loop {
        let mut runs = Vec::new();
        let outcome = tracker.final_harvest(|run| {
            runs.push(run);
            Ok::<_, ()>(())
        });
        match outcome {
            Err(HarvestError::HandlersInFlight { .. }) => thread::yield_now(),
            other => {
                other.expect("the host protects");
                return runs;
            }
        }
    }
}

fn run(start: usize, pages: usize) -> DirtyRun {
    DirtyRun {
        start: IPA + (start * PAGE) as u64,
        len: (pages * PAGE) as u64,
    }
}

#[test]
fn a_first_write_opens_the_block_and_later_ones_the_page() {
    for kind in TRACKABLE {
        let memory = Memory::new(kind, 3 * BLOCK);
        let mapping = Mapping::new(IPA, memory.start(), memory.len);
        let (tracker, handler) = track(&[mapping], AT_ONCE);
        let pages = BLOCK / PAGE;

        // A new tracker has all marked, and nothing protected.
        assert_eq!(harvested(&tracker), [run(0, 3 * pages)], "{kind:?}");
        assert_eq!(harvested(&tracker), []);
        memory.store(pages + 7, 1);
        memory.store(pages + 9, 2);
        assert_eq!(harvested(&tracker), [run(pages, pages)]);

        tracker.tick(Duration::from_secs(1));
        memory.store(pages + 7, 3);
        harvested(&tracker);
        tracker.tick(Duration::from_secs(2));
        let granule = tracker.regions()[0].granule_at(IPA + BLOCK as u64);
        assert_eq!(granule, Some(Granule::Page));
        memory.store(pages + 7, 4);
        memory.store(pages + 7, 5);
        memory.store(pages + 100, 6);
        assert_eq!(
            harvested(&tracker),
            [run(pages + 7, 1), run(pages + 100, 1)]
        );
        assert_eq!([7, 9, 100].map(|page| memory.load(pages + page)), [5, 2, 6]);

        let end = handler.stop();
        assert_eq!((end.faults, end.errors, end.last_error), (4, 0, None));
    }
}

#[test]
fn memory_that_was_never_touched_is_protected_too() {
    for kind in TRACKABLE {
        let memory = Memory::new(kind, BLOCK);
        let mapping = Mapping::new(IPA, memory.start(), memory.len);
        let (tracker, _handler) = track(&[mapping], AT_ONCE);
        tracker.arm().expect("the host protects");
        assert_eq!(harvested(&tracker), []);
        // Reading it makes a page present, and does not open it.
        assert_eq!(memory.load(5), 0);
        memory.store(5, 1);
        assert_eq!(harvested(&tracker), [run(0, BLOCK / PAGE)], "{kind:?}");
    }
}

#[test]
fn mappings_anywhere_are_one_guest() {
    let memories = [1, 2].map(|blocks| Memory::new(Kind::Anonymous, blocks * BLOCK));
    let mappings = [
        Mapping::new(IPA + 3 * BLOCK as u64, memories[1].start(), memories[1].len),
        Mapping::new(IPA, memories[0].start(), memories[0].len),
    ];
    let (tracker, _handler) = track(&mappings, StepDown::DEFAULT);
    tracker.arm().expect("the host protects");
    memories[0].store(3, 1);
    memories[1].store(BLOCK / PAGE + 3, 1);
    let pages = BLOCK / PAGE;
    assert_eq!(harvested(&tracker), [run(0, pages), run(4 * pages, pages)]);
}

#[test]
fn one_region_over_several_mappings() {
    let memories = [1, 1].map(|blocks| Memory::new(Kind::Anonymous, blocks * BLOCK));
    let mappings = [0, 1].map(|n| {
        let memory = &memories[n];
        Mapping::new(IPA + (n * BLOCK) as u64, memory.start(), memory.len)
    });
    let protection = UffdProtection::new(mappings).expect("anonymous");
    let geometry = protection.geometry();
    let region = BoxedRegion::boxed(IPA, 2 * BLOCK as u64, geometry).expect("a region");
    let tracker = Arc::new(WriteTracker::new(protection, vec![region]).expect("one region"));
    let _handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    tracker.arm().expect("both are protected");
    for memory in &memories {
        memory.store(8, 1);
    }
    assert_eq!(harvested(&tracker), [run(0, 2 * BLOCK / PAGE)]);
}

#[test]
fn a_system_call_that_writes_is_seen() {
    let memory = Memory::new(Kind::Anonymous, BLOCK);
    let mapping = Mapping::identity(memory.start(), memory.len);
    let (tracker, _handler) = track(&[mapping], StepDown::DEFAULT);
    if tracker.protection().access() != Access::Full {
        say!("skipped: only this program's own stores are tracked for this user");
        return;
    }
    tracker.arm().expect("the host protects");
    // SAFETY: a buffer of ours, and room for its bytes.
    let got = unsafe { libc::getrandom(memory.page(3).cast(), 16, 0) };
    assert_eq!(got, 16);
    assert_eq!(harvested(&tracker)[0].start, memory.address());
}

#[test]
fn without_a_handler_nothing_is_protected() {
    let memory = Memory::new(Kind::Anonymous, BLOCK);
    let mapping = Mapping::identity(memory.start(), memory.len);
    let protection = UffdProtection::new([mapping]).expect("anonymous");
    let regions = protection.regions().expect("small");
    let tracker = Arc::new(WriteTracker::new(protection, regions).expect("in order"));
    let refused = tracker.arm().expect_err("nobody would open a page");
    assert!(matches!(
        refused,
        ArmError::Host {
            error: ProtectError::NoHandler,
            ..
        }
    ));
    memory.store(0, 1);

    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    let second = UffdHandler::spawn(Arc::clone(&tracker));
    assert_eq!(second.err(), Some(ServeError::AlreadyServed));
    // The one that was refused did not end the other.
    tracker.arm().expect("it is served");
    memory.store(1, 1);
    assert_eq!(handler.stop().faults, 1);
}

#[test]
fn a_handler_that_ends_opens_all_and_marks_all() {
    let memory = Memory::new(Kind::Anonymous, 4 * BLOCK);
    let mapping = Mapping::identity(memory.start(), memory.len);
    let (tracker, handler) = track(&[mapping], StepDown::DEFAULT);
    let whole = DirtyRun {
        start: memory.address(),
        len: memory.len as u64,
    };
    tracker.arm().expect("the host protects");

    // While writers wait for it, too.
    let go_on = AtomicBool::new(true);
    thread::scope(|scope| {
        for writer in 0..2 {
            let (memory, go_on) = (&memory, &go_on);
            scope.spawn(move || {
                let mut page = writer;
                while go_on.load(Relaxed) {
                    // The second half stays as it was: protected and clean.
                    memory.store(page % (memory.len / PAGE / 2), 1);
                    page += 513;
                }
            });
        }
        thread::sleep(Duration::from_millis(5));
        handler.stop();
        go_on.store(false, Relaxed);
    });

    let refused = tracker.harvest(|_| Ok::<_, ()>(()));
    assert!(matches!(
        refused,
        Err(HarvestError::Host {
            error: ProtectError::NoHandler,
            ..
        })
    ));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the other one ended");
    assert_eq!(harvested(&tracker), [whole]);
    memory.store(0, 2);
    assert_eq!(handler.stop().faults, 1);
}

#[test]
fn dropped_everything_is_open() {
    let memory = Memory::new(Kind::Shared, BLOCK);
    let mapping = Mapping::identity(memory.start(), memory.len);
    let (tracker, handler) = track(&[mapping], StepDown::DEFAULT);
    tracker.arm().expect("the host protects");
    drop((tracker, handler));
    memory.store(3, 1);
    // And it may be registered again.
    let (tracker, _handler) = track(&[mapping], StepDown::DEFAULT);
    tracker.arm().expect("the host protects");
}

#[test]
fn a_page_of_no_region_is_opened_and_told() {
    let memory = Memory::new(Kind::Anonymous, 2 * BLOCK);
    let mapping = Mapping::new(IPA, memory.start(), memory.len);
    let protection = UffdProtection::new([mapping]).expect("anonymous");
    let region = BoxedRegion::boxed(IPA, BLOCK as u64, protection.geometry()).expect("a region");
    let tracker = Arc::new(WriteTracker::new(protection, vec![region]).expect("one region"));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    let ipa = IPA + BLOCK as u64;
    let protected = tracker.protection().protect(ipa..ipa + PAGE as u64);
    protected.expect("in the mapping");
    memory.store(BLOCK / PAGE, 1);
    let end = handler.stop();
    assert_eq!((end.faults, end.errors), (1, 1));
    assert_eq!(end.last_error, Some(HandlerError::NotTracked { ipa }));
}

#[test]
fn a_loop_of_ones_own() {
    let memory = Memory::new(Kind::Anonymous, BLOCK);
    let mapping = Mapping::new(IPA, memory.start(), memory.len);
    let protection = UffdProtection::new([mapping]).expect("anonymous");
    let faults = protection.faults().expect("nobody else");
    assert!(matches!(
        protection.faults(),
        Err(ServeError::AlreadyServed)
    ));
    let page = IPA + 3 * PAGE as u64;
    protection.protect(IPA..IPA + BLOCK as u64).expect("served");
    assert_eq!(faults.read(|_| unreachable!("nobody wrote")), Ok(0));
    thread::scope(|scope| {
        scope.spawn(|| memory.store(3, 7));
        let mut seen = Vec::new();
        while seen.len() < 2 {
            // The first time it is not opened, only tried again.
            faults.read(|ipa| seen.push(ipa)).expect("it can be read");
            if seen.len() == 1 {
                faults.retry(page);
            }
            thread::yield_now();
        }
        assert_eq!(seen, [page, page]);
        protection
            .unprotect(page..page + PAGE as u64)
            .expect("ours");
    });
    assert_eq!(memory.load(3), 7);
    drop(faults);
    memory.store(4, 8);
    let refused = protection.protect(IPA..page);
    assert_eq!(refused, Err(ProtectError::NoHandler));
}

/// A handler that ends opens pages: no last harvest, at whatever moment, may call them clean.
#[test]
fn a_handler_that_ends_is_never_seen_half_way() {
    let memory = Memory::new(Kind::Anonymous, 64 * BLOCK);
    // The first one is open long before the last one.
    let mappings: Vec<_> = (0..64)
        .map(|n| {
            let ipa = IPA + (n * BLOCK) as u64;
            Mapping::new(ipa, memory.page(n * BLOCK / PAGE), BLOCK)
        })
        .collect();
    let protection = UffdProtection::new(mappings).expect("anonymous");
    let regions = protection.regions().expect("small");
    let tracker = Arc::new(WriteTracker::new(protection, regions).expect("in order"));
    let (mut ended, mut delivered) = (0, 0);
    for round in 0..60_u8 {
        let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the other one ended");
        tracker.arm().expect("it is served");
        thread::scope(|scope| {
            scope.spawn(|| handler.stop());
            thread::sleep(Duration::from_micros(10 * u64::from(round % 20)));
            memory.store(3, round);
            // The store went through.
            let mut found = false;
            let outcome = loop {
                let outcome = tracker.final_harvest(|run| {
                    found |= run.range().contains(&(IPA + 3 * PAGE as u64));
                    Ok::<_, ()>(())
                });
                match outcome {
                    Err(HarvestError::HandlersInFlight { .. }) => thread::yield_now(),
                    outcome => break outcome,
                }
            };
            if outcome.is_ok() {
                assert!(found, "round {round}: written, and in no harvest");
                delivered += 1;
            } else {
                ended += 1;
            }
        });
    }
    say!("{delivered} stores came before the handler ended, {ended} after");
}
