//! How long a class goes on: until harvests have come in between its stores; and for the hot
//! pattern until the controller has made its blocks step down.

use core::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use pugmark::Granule;

use super::{
    cpu,
    guest::{CLASSES, HOT},
    layout::{REGION_PAGES, page_index},
    schedule,
    tracking::tracker,
};

/// Harvests that must begin while a class runs.
const HARVESTS: usize = 3;
/// Passes that the guest makes in any case.
const PASSES: u64 = 2;
/// After this long it is enough anyhow. What is found does not depend on it.
const LIMIT: Duration = Duration::from_secs(5);

/// When the class began, in milliseconds, and the harvests before.
static BEGAN: AtomicU64 = AtomicU64::new(0);
static HARVESTS_BEFORE: AtomicUsize = AtomicUsize::new(0);

/// A class begins.
pub fn begin() {
    BEGAN.store(cpu::now().as_millis() as u64, Relaxed);
    HARVESTS_BEFORE.store(tracker().counters().harvests, Relaxed);
}

/// Whether a vCPU that made `passes` of the class may stop.
pub fn enough(passes: u64) -> bool {
    let began = Duration::from_millis(BEGAN.load(Relaxed));
    if cpu::now().saturating_sub(began) > LIMIT {
        return true;
    }
    let harvests = tracker().counters().harvests - HARVESTS_BEFORE.load(Relaxed);
    let is_hot = CLASSES
        .get(schedule::class() as usize)
        .is_some_and(|class| class.is_hot());
    passes >= PASSES && harvests >= HARVESTS && (!is_hot || all_fine())
}

fn all_fine() -> bool {
    HOT.iter().all(|window| is_fine(window.page(0)))
}

/// Whether the block of `ipa` has stepped down to pages.
pub fn is_fine(ipa: u64) -> bool {
    page_index(ipa).is_some_and(|index| {
        let region = &tracker().regions()[index / REGION_PAGES];
        region.granule_at(ipa) == Some(Granule::Page)
    })
}
