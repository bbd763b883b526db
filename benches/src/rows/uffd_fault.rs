//! A write to a protected page, by userfaultfd: the writer waits until the handler's thread has
//! opened the page. By the clock on the wall, since most of it is two switches between threads.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use pugmark::host::uffd::{Mapping, UffdHandler, UffdProtection};
use pugmark::{BoxedRegion, HarvestError, PageGeometry, WriteTracker};

use super::Row;
use crate::harness::{Bench, Measured, Turn, limit, time_waiting, us};
use crate::linux::{Memory, bare::Uffd};

pub const SYNC: Row = Row {
    name: "uffd-fault",
    work: "write to a protected page, userfaultfd's handler opens it",
    unit: "page",
    measure,
    note: None,
};

const PAGES: usize = 4096;

fn measure(bench: &Bench) -> Measured {
    let memory = &Memory::new(PAGES);
    let mapping = Mapping::identity(memory.as_ptr(), memory.len());
    let protection = match UffdProtection::new([mapping]) {
        Ok(protection) => protection,
        Err(error) => return Measured::skipped(error),
    };
    let page = memory.page_size() as u64;
    // A block is a page, so that each write faults, as with the bare handler.
    let geometry = PageGeometry::new(page, page).expect("a page is a power of two");
    let addresses = memory.addresses();
    let region = BoxedRegion::boxed(addresses.start, memory.len() as u64, geometry);
    let regions = vec![region.expect("the memory is aligned")];
    let tracker = Arc::new(WriteTracker::new(protection, regions).expect("one region"));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("nobody serves the faults");
    tracker.arm().expect("the memory is registered");

    // A mapping has one descriptor, so the bare loop has memory of its own.
    let theirs = &Memory::new(PAGES);
    let uffd = match Uffd::new(theirs) {
        Ok(uffd) => uffd,
        Err(error) => return Measured::skipped(error),
    };
    let end = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let before = Cell::new(0);
    thread::scope(|scope| {
        let loops = scope.spawn(|| {
            while !end.load(Relaxed) {
                uffd.wait();
                uffd.faults::<16>(|address| {
                    uffd.open(&theirs.addresses_of(theirs.page_of(address)));
                    served.fetch_add(1, Relaxed);
                });
            }
        });
        let measured = bench.rounds([
            limit("a bare handler", || {
                uffd.protect(&theirs.addresses());
                served.store(0, Relaxed);
                let turn = write_all(theirs);
                // The writer goes on before its fault is counted.
                while served.load(Relaxed) < PAGES && !loops.is_finished() {
                    thread::yield_now();
                }
                assert_eq!(served.load(Relaxed), PAGES);
                turn
            })
            .at_most(1.1),
            us(|| {
                let turn = write_all(memory);
                // It protects everything for the next turn.
                let harvested = loop {
                    match tracker.final_harvest(|_| Ok::<_, ()>(())) {
                        Err(HarvestError::HandlersInFlight { .. }) => thread::yield_now(),
                        done => break done,
                    }
                };
                assert_eq!(harvested.map(|harvested| harvested.pages), Ok(PAGES));
                let faults = tracker.counters().faults;
                assert_eq!(faults - before.replace(faults), PAGES);
                turn
            }),
        ]);
        end.store(true, Relaxed);
        let end = handler.stop();
        assert_eq!((end.errors, end.last_error), (0, None));
        measured
    })
}

fn write_all(memory: &Memory) -> Turn {
    let write = |page| memory.page(page)[0].store(page as u64, Relaxed);
    time_waiting(PAGES, || (0..PAGES).for_each(write)).0
}
