//! The smallest complete embedding: a region, a fault, a harvest, a diff.
//!
//! `cargo run --example embed --features std`
//!
//! A VMM supplies a `WriteProtect`, calls the tracker at each write fault, and harvests when it wants
//! to know. The host here is a table of permissions; a real one edits stage 2, or its like.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use pugmark::host::std::Clock;
use pugmark::{BoxedRegion, FaultOutcome, PageGeometry, WriteProtectMut, WriteTracker};

const RAM: u64 = 0x4000_0000;
const SIZE: u64 = 4 << 20;
const GEOMETRY: PageGeometry = PageGeometry::ARM64_4K;
const PAGES: usize = (SIZE / GEOMETRY.page_size()) as usize;

/// 1. The host: which pages may the guest write?
struct Permissions(Vec<bool>);

impl Permissions {
    fn set(&mut self, range: Range<u64>, writable: bool) {
        let page = |address: u64| ((address - RAM) / GEOMETRY.page_size()) as usize;
        self.0[page(range.start)..page(range.end)].fill(writable);
    }
}

impl WriteProtectMut for Permissions {
    type Error = std::convert::Infallible;

    fn protect(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.set(range, false);
        Ok(())
    }

    fn unprotect(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.set(range, true);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 2. The tracker: what to track, and by which host. A lock makes the table shareable.
    let host = Mutex::new(Permissions(vec![true; PAGES]));
    let region = BoxedRegion::boxed(RAM, SIZE, GEOMETRY)?;
    let tracker = WriteTracker::new(host, [region])?;
    let clock = Clock::new();

    // 3. A checkpoint. What is in memory now is the baseline: copy it after this.
    tracker.arm()?;

    // 4. The guest stores to a protected page, and exits. The exit handler:
    let faulting_address = RAM + 0x20_1234;
    match tracker.on_write_fault(faulting_address)? {
        FaultOutcome::Granted { span, granule, .. } => {
            println!("fault at {faulting_address:#x}: opened {span:#x?} ({granule:?})");
        } // … and it resumes the vCPU at the same instruction.
        FaultOutcome::NotTracked => unreachable!("not RAM: MMIO, for the VMM's devices"),
    }

    // 5. A device model wrote too. It does not fault, so it says so, after the write.
    tracker.mark_written(RAM + 0x3000..RAM + 0x3200)?;

    // 6. The diff: every page written since the checkpoint, protected again before it is copied.
    let mut diff = BTreeMap::new();
    let harvested = tracker.harvest(|run| {
        diff.insert(run.start, run.len); // here: copy the memory of `run`
        Ok::<(), std::io::Error>(()) // an error would mark the run again
    })?;

    for (start, len) in &diff {
        println!("written: {len:#9x} bytes at {start:#x}");
    }
    println!("{} pages in {} runs", harvested.pages, harvested.runs);
    tracker.tick(clock.now()); // blocks that fault often are opened by the page from now on
    Ok(())
}
