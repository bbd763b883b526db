//! A harvest, for a consumer that accepts everything.

use core::convert::Infallible;

use crate::fault::Tracker;

/// How many pages it delivered; none where it failed.
#[inline(always)]
pub fn harvest(tracker: &Tracker) -> usize {
    let mut bytes = 0;
    let harvested = tracker.harvest(|run| {
        bytes += run.len;
        Ok::<(), Infallible>(())
    });
    match harvested {
        Ok(harvested) if bytes != 0 => harvested.pages,
        _ => 0,
    }
}
