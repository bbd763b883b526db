//! From the baseline to the last harvest.

use core::time::Duration;

#[cfg(feature = "stage2")]
use pugmark::stage2::{PooledTables, Stage2Protection};
use pugmark::{FaultOutcome, PageGeometry, WriteTracker};

#[cfg(all(feature = "stage2", feature = "spin"))]
type Host = spin::Mutex<Stage2Protection<PooledTables>>;
#[cfg(all(feature = "stage2", not(feature = "spin")))]
type Host = critical_section::Mutex<core::cell::RefCell<Stage2Protection<PooledTables>>>;
#[cfg(not(feature = "stage2"))]
type Host = pugmark_parts::fault::Still;

const BASE: u64 = 0x4000_0000;
const SIZE: u64 = 64 << 20;
const GEOMETRY: PageGeometry = PageGeometry::ARM64_4K;

#[cfg(feature = "alloc")]
fn regions() -> [pugmark::BoxedRegion; 1] {
    let region = pugmark::BoxedRegion::boxed(BASE, SIZE, GEOMETRY);
    [region.unwrap_or_else(|_| unreachable!())]
}

#[cfg(not(feature = "alloc"))]
fn regions() -> &'static [Region; 1] {
    static RAM: [Region; 1] = [Region::new(BASE, SIZE, GEOMETRY)];
    &RAM
}

#[cfg(not(feature = "alloc"))]
type Region = pugmark::StaticRegion<
    { pugmark::words_for(pugmark::pages_for(SIZE, GEOMETRY)) },
    { pugmark::blocks_for(BASE, SIZE, GEOMETRY) },
>;

#[unsafe(no_mangle)]
extern "C" fn _start(host: &Host, copy: extern "C" fn(u64, u64) -> bool) -> usize {
    let Ok(tracker) = WriteTracker::new(host, regions()) else {
        return 0;
    };
    let mut consumer = |run: pugmark::DirtyRun| match copy(run.start, run.len) {
        true => Ok(()),
        false => Err(()),
    };
    let mut done = usize::from(tracker.arm().is_ok());
    if let Ok(FaultOutcome::Granted { span, .. }) = tracker.on_write_fault(BASE) {
        done += span.start as usize;
    }
    done += usize::from(tracker.mark_written(BASE..BASE + 1).is_ok());
    tracker.tick(Duration::from_millis(1));
    if let Ok(harvested) = tracker.harvest(&mut consumer) {
        done += harvested.pages;
    }
    if let Ok(mut harvest) = tracker.begin_harvest() {
        done += usize::from(harvest.runs().all(|run| consumer(run).is_ok()));
        if harvest.extend_final(&mut consumer).is_ok() {
            done += harvest.commit().pages;
        }
    }
    done + usize::from(tracker.disarm().is_ok())
}
