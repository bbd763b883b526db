//! What only the inside of the module can be put through: a disk that fails, a machine that loses
//! power, bytes that are no snapshot.

mod bytes;
mod failures;
mod power;

use ::std::boxed::Box;
use ::std::path::{Path, PathBuf};
use ::std::vec::Vec;
use ::std::{env, format, fs, process, vec};
use core::convert::Infallible;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::disk::Disk;
use super::{Chain, SnapshotError, Written};
use crate::{BoxedRegion, PageGeometry, WriteProtect, WriteTracker};

const BASE: u64 = 0x4000_0000;
/// Small, so that files are, and every bit of one can be tried.
const PAGE: u64 = 512;
const SIZE: usize = 20 * PAGE as usize + 100;

/// All that a tracker asks is granted; what is written is told to it.
struct Host;

impl WriteProtect for Host {
    type Error = Infallible;

    fn protect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }
}

struct Guest {
    tracker: WriteTracker<Host, [BoxedRegion; 1]>,
    memory: Vec<u8>,
}

impl Guest {
    fn new() -> Self {
        let geometry = PageGeometry::new(PAGE, 8 * PAGE).expect("a geometry");
        let region = BoxedRegion::boxed(BASE, SIZE as u64, geometry).expect("a region");
        Self {
            tracker: WriteTracker::new(Host, [region]).expect("a tracker"),
            memory: vec![0; SIZE],
        }
    }

    /// Writes here and there, in a way that is that of `step` alone.
    fn run(&mut self, step: u64) {
        for i in 0..4 {
            let at = (step * 7 + i * i * 3) * 1234 % SIZE as u64;
            let byte = if (step + i).is_multiple_of(3) {
                0
            } else {
                (step * 16 + i) as u8
            };
            let page = at - at % PAGE..(at - at % PAGE + PAGE).min(SIZE as u64);
            self.memory[page.start as usize..page.end as usize].fill(byte);
            let written = self
                .tracker
                .mark_written(BASE + page.start..BASE + page.end);
            written.expect("in the region");
        }
    }

    fn snapshot(&self, chain: &mut Chain) -> Result<Written, SnapshotError> {
        let harvest = self.tracker.begin_harvest().expect("the only one");
        chain.write(harvest, |address, bytes| {
            let at = (address - BASE) as usize;
            bytes.copy_from_slice(&self.memory[at..at + bytes.len()]);
            Ok(())
        })
    }
}

fn restored(chain: &Chain) -> Vec<u8> {
    let mut memory = vec![0xee; SIZE];
    let mut bytes_given = 0;
    let restored = chain.restore(|address, bytes| {
        let at = (address - BASE) as usize;
        memory[at..at + bytes.len()].copy_from_slice(bytes);
        bytes_given += bytes.len();
        Ok(())
    });
    restored.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bytes_given, SIZE, "each byte once");
    memory
}

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let id = process::id();
        Self(env::temp_dir().join(format!("pugmark-{name}-{id}-{count}")))
    }

    fn create_on(&self, disk: impl Disk + 'static) -> Result<Chain, SnapshotError> {
        Chain::create_on(Box::new(disk), &self.0)
    }

    fn open(&self) -> Result<Chain, SnapshotError> {
        Chain::open(&self.0)
    }

    fn names(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).expect("the folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        names.sort();
        names
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
