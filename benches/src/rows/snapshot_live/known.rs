//! pugmark: copies what was written, in rounds while the threads write on, and stops them for the
//! last one.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::thread;

use pugmark::host::uffd::{Mapping, OpenError, UffdHandler, UffdLog, UffdProtection};
use pugmark::{BoxedRegion, DirtyRun, HarvestError, PageGeometry, WriteProtect, WriteTracker};

use super::world::{Before, Live, World};
use super::writers::Gate;

/// Rounds while the threads write, and pages that are few enough to stop them for.
pub const ROUNDS: usize = 4;
pub const FEW: usize = 32;

type Tracker<P> = WriteTracker<P, Vec<BoxedRegion>>;

/// Whether this machine can do it, both ways.
pub fn can_track(world: &World) -> Result<(), OpenError> {
    UffdProtection::new([mapping(world)])?;
    UffdLog::new([mapping(world)]).map(drop)
}

/// The kernel logs what is written.
pub fn by_log(world: &World) -> Live {
    let log = UffdLog::new([mapping(world)]).expect("it was tried");
    let tracker = tracker(world, log);
    tracker.arm().expect("the memory is registered");
    world.turn(Before::Last, |gate| take(&tracker, world, gate))
}

/// A handler opens each page.
pub fn by_handler(world: &World) -> Live {
    let protection = UffdProtection::new([mapping(world)]).expect("it was tried");
    let tracker = Arc::new(tracker(world, protection));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("nobody serves the faults");
    tracker.arm().expect("the memory is registered");
    let live = world.turn(Before::Last, |gate| take(&tracker, world, gate));
    let end = handler.stop();
    assert!(end.faults > 0 && end.last_error.is_none(), "{end:?}");
    live
}

fn mapping(world: &World) -> Mapping {
    Mapping::identity(world.memory.as_ptr(), world.memory.len())
}

/// By the page.
fn tracker<P: WriteProtect>(world: &World, protection: P) -> Tracker<P> {
    let page = world.memory.page_size() as u64;
    let geometry = PageGeometry::new(page, page).expect("a page is a power of two");
    let start = world.memory.addresses().start;
    let region = BoxedRegion::boxed(start, world.memory.len() as u64, geometry);
    let regions = vec![region.expect("the memory is aligned")];
    WriteTracker::new(protection, regions).expect("one region")
}

fn take<P: WriteProtect>(tracker: &Tracker<P>, world: &World, gate: &Gate)
where
    P::Error: Debug,
{
    let copy = |run: DirtyRun| {
        let run = run.range();
        let pages = world.memory.page_of(run.start)..world.memory.page_of(run.end);
        world.copy.copy_live(&world.memory, pages);
        Ok::<_, Infallible>(())
    };
    let mut harvest = tracker.begin_harvest().expect("the memory is registered");
    harvest.runs().for_each(|run| copy(run).unwrap());
    for _ in 1..ROUNDS {
        let more = harvest.extend(copy).expect("the memory is registered");
        if more.pages < FEW {
            break;
        }
    }
    let last = gate.stopped(|| {
        loop {
            match harvest.extend_final(copy) {
                // The thread went on before the handler that opened its page returned.
                Err(HarvestError::HandlersInFlight { .. }) => thread::yield_now(),
                done => break done,
            }
        }
    });
    last.expect("the memory is registered");
    harvest.commit();
}
