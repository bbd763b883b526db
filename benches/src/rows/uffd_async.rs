//! A harvest of what the kernel logged itself: userfaultfd's asynchronous form, and `PAGEMAP_SCAN`.
//!
//! The limit calls the same scan on the same memory, and only counts. The peer does what a program of
//! its own would have to, for marks of devices to come together with the kernel's: it puts what the
//! scan finds into a bitmap of plain words, and takes the runs out of it.

use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use pugmark::WriteTracker;
use pugmark::host::uffd::{Mapping, UffdLog};

use super::Row;
use crate::harness::{Bench, Measured, limit, peer, time, us};
use crate::linux::{Memory, bare::Pagemap};

pub const ALL: Row = Row {
    name: "uffd-async-all",
    work: "harvest the kernel's log of 256 MiB, all written",
    unit: "written page",
    measure: |bench| measure(bench, 1),
    note: None,
};

pub const EVERY_8TH: Row = Row {
    name: "uffd-async-every-8th",
    work: "harvest the kernel's log of 256 MiB, every eighth page written",
    unit: "written page",
    measure: |bench| measure(bench, 8),
    note: Some(APART),
};

pub const ONE_IN_100: Row = Row {
    name: "uffd-async-1-in-100",
    work: "harvest the kernel's log of 256 MiB, one page in 100 written",
    unit: "written page",
    measure: |bench| measure(bench, 100),
    note: Some(APART),
};

const PAGES: usize = 1 << 16;

const APART: &str = "the scan is the same, see the row where all is written; each run apart then costs \
    7 to 13 ns, to go through the bitmap that devices mark meanwhile and out again, where the limit only counts. \
    Runs that share a word are marked together. A plain bitmap without atomics, which is the peer, costs 5 \
    ns: 1.11 times the scan of every eighth page";

fn measure(bench: &Bench, every: usize) -> Measured {
    let memory = &Memory::new(PAGES);
    let mapping = Mapping::identity(memory.as_ptr(), memory.len());
    let log = match UffdLog::new([mapping]) {
        Ok(log) => log,
        Err(error) => return Measured::skipped(error),
    };
    let pagemap = match Pagemap::open() {
        Ok(pagemap) => pagemap,
        Err(error) => return Measured::skipped(error),
    };
    let regions = log.regions().expect("it fits a bitmap");
    let tracker = WriteTracker::new(log, regions).expect("one region");
    tracker.arm().expect("the memory is registered");

    let mut words = vec![0_u64; PAGES / 64];
    let written: Vec<usize> = (0..PAGES).step_by(every).collect();
    let write = || {
        let store = |page: &usize| memory.page(*page)[0].store(*page as u64, Relaxed);
        written.iter().for_each(store);
    };
    bench.rounds([
        limit("the scan", || {
            write();
            let (turn, bytes) = time(written.len(), || {
                let mut bytes = 0;
                pagemap.scan(memory.addresses(), |run| bytes += run.end - run.start);
                bytes as usize
            });
            assert_eq!(bytes, written.len() * memory.page_size());
            turn
        })
        .at_most(1.1),
        us(|| {
            write();
            let (turn, bytes) = time(written.len(), || {
                let mut bytes = 0;
                let harvested = tracker.harvest(|run| {
                    bytes += run.range().end - run.range().start;
                    Ok::<_, ()>(())
                });
                harvested.map(|_| bytes as usize)
            });
            assert_eq!(bytes, Ok(written.len() * memory.page_size()));
            turn
        }),
        peer("the scan, by a bitmap", || {
            write();
            let (turn, pages) = time(written.len(), || {
                pagemap.scan(memory.addresses(), |run| {
                    for page in memory.page_of(run.start)..memory.page_of(run.end) {
                        words[page / 64] |= 1 << (page % 64);
                    }
                });
                let mut pages = 0;
                take_runs(&mut words, |run| pages += black_box(run).len());
                pages
            });
            assert_eq!(pages, written.len());
            turn
        }),
    ])
}

/// The runs of bits, each as long as it can be, and clean words after that.
fn take_runs(words: &mut [u64], mut each: impl FnMut(Range<usize>)) {
    let mut run = 0..0;
    for (index, word) in words.iter_mut().enumerate() {
        let mut bits = std::mem::take(word);
        while bits != 0 {
            let first = bits.trailing_zeros();
            let len = (bits >> first).trailing_ones();
            let start = index * 64 + first as usize;
            if start != run.end {
                if !run.is_empty() {
                    each(run);
                }
                run = start..start;
            }
            run.end = start + len as usize;
            bits &= !(u64::MAX >> (64 - len) << first);
        }
    }
    if !run.is_empty() {
        each(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_long_as_they_can_be() {
        let mut words = [1 | 1 << 63, u64::MAX, 0b110];
        let mut runs = Vec::new();
        take_runs(&mut words, |run| runs.push(run));
        assert_eq!(runs, [0..1, 63..128, 129..131]);
        assert_eq!(words, [0; 3]);
    }
}
