//! A diff of 128 MiB, safe on the disk, against a plain file of the same bytes. Both with their
//! `fsync`; the diff is also renamed, and its folder is synced, as is the peer's. By the clock on the
//! wall.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use pugmark::snapshot::Chain;
use pugmark::{BoxedRegion, PageGeometry, WriteProtect, WriteTracker};

use super::Row;
use crate::harness::{Bench, Measured, limit, peer, time_waiting, us};

pub const WRITE: Row = Row {
    name: "snapshot-diff-write",
    work: "write a diff of 128 MiB in runs of 64 pages, with its fsync",
    unit: "diff",
    measure,
    note: Some(
        "measured apart, idle: the page cache takes 33 ms of CPU for 128 MiB, the copy out of memory, \
         the look for zeros and the checksum 10 to 17 ms more, an fsync of it all 45 to 50 ms. The disk \
         is told to begin every 8 MiB, so that the fsync has less to wait for. By the clock on the wall, \
         so whatever else the disk does is in it",
    ),
};

const PAGE: usize = 4096;
const RUN: usize = 64 * PAGE;
/// Every other run of this is written.
const MEMORY: usize = 256 << 20;

fn measure(bench: &Bench) -> Measured {
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return Measured::skipped(error),
    };
    let memory = &memory();
    let runs: Vec<Range<usize>> = (0..MEMORY)
        .step_by(2 * RUN)
        .map(|start| start..start + RUN)
        .collect();
    let bytes: usize = runs.iter().map(Range::len).sum();

    let plain = &folder.path().join("plain");
    let chain = &folder.path().join("chain");
    let region = BoxedRegion::boxed(0, MEMORY as u64, PageGeometry::X86_64);
    let regions = [region.expect("the memory is whole pages")];
    let tracker = &WriteTracker::new(NoHost, regions).expect("one region");
    let turn_of_plain = |path: &Path, renamed: bool| {
        let write = || -> std::io::Result<()> {
            let temporary = path.with_extension("tmp");
            let mut file = File::create_new(if renamed { &temporary } else { path })?;
            for run in &runs {
                file.write_all(&memory[run.clone()])?;
            }
            file.sync_all()?;
            if renamed {
                fs::rename(&temporary, path)?;
                File::open(folder.path())?.sync_all()?;
            }
            Ok(())
        };
        let (turn, written) = time_waiting(1, write);
        written.expect("there is room");
        let found = fs::read(path).expect("the file just written");
        assert_eq!(found.len(), bytes);
        let mut same = runs.iter().zip(found.chunks(RUN));
        assert!(same.all(|(run, found)| memory[run.clone()] == *found));
        fs::remove_file(path).expect("the file just read");
        turn
    };
    bench.rounds([
        // 80 % of its speed.
        limit("a plain file", || turn_of_plain(plain, false)).at_most(1.25),
        us(|| {
            let mut all = Chain::create(chain).expect("a new folder");
            // A base of zeros, of which there is nothing to be written.
            tracker.mark_written(0..MEMORY as u64).expect("tracked");
            let harvest = tracker.begin_harvest().expect("one at a time");
            all.write(harvest, |_, into| {
                into.fill(0);
                Ok(())
            })
            .expect("there is room");
            for run in &runs {
                let run = run.start as u64..run.end as u64;
                tracker.mark_written(run).expect("tracked");
            }
            let (turn, written) = time_waiting(1, || {
                let harvest = tracker.begin_harvest().expect("one at a time");
                all.write(harvest, |address, into| {
                    into.copy_from_slice(&memory[address as usize..][..into.len()]);
                    Ok(())
                })
            });
            assert_eq!(written.expect("there is room").data, bytes as u64);
            check(chain, memory, &runs);
            fs::remove_dir_all(chain).expect("the folder just read");
            turn
        }),
        peer("a plain file, renamed", || turn_of_plain(plain, true)),
    ])
}

/// No byte of it is zero.
fn memory() -> Vec<u8> {
    let words = (0..MEMORY / 8).map(|word| (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words
        .flat_map(|word| (word | 0x0101_0101_0101_0101).to_le_bytes())
        .collect()
}

/// What it restores to is `runs` of memory, and zeros between.
fn check(chain: &Path, memory: &[u8], runs: &[Range<usize>]) {
    let mut restored = vec![1; MEMORY];
    let chain = Chain::open(chain).expect("a whole chain");
    let done = chain.restore(|address, bytes| {
        restored[address as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    });
    done.expect("a whole chain");
    let same = |run: &Range<usize>| {
        let gap = run.end..run.end + RUN;
        restored[run.clone()] == memory[run.clone()] && restored[gap].iter().all(|byte| *byte == 0)
    };
    assert!(runs.iter().all(same));
}

/// Nobody writes but who says so.
struct NoHost;

impl WriteProtect for NoHost {
    type Error = Infallible;

    fn protect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }
}
