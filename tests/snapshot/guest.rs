//! A guest in a vector, and its folder.

use std::convert::Infallible;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{env, fs, io, process};

use pugmark::snapshot::{Chain, SnapshotError, Written};
use pugmark::{BoxedRegion, PageGeometry, WriteProtect, WriteTracker};

pub const PAGE: u64 = 4096;

/// All that a tracker asks is granted; what is written is told to it.
#[derive(Debug)]
pub struct Host;

impl WriteProtect for Host {
    type Error = Infallible;

    fn protect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Base, size and page size of a region.
pub type Shape = (u64, usize, u64);

pub struct Guest {
    pub tracker: WriteTracker<Host, Vec<BoxedRegion>>,
    pub memory: Memory,
}

/// The bytes of each region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory(pub Vec<(u64, Vec<u8>)>);

impl Memory {
    fn at(&mut self, address: u64, len: usize) -> &mut [u8] {
        let mut regions = self.0.iter_mut().rev();
        let region = regions.find(|(base, _)| *base <= address);
        let (base, bytes) = region.expect("an address of a region");
        &mut bytes[(address - *base) as usize..][..len]
    }

    pub fn read(&self, address: u64, into: &mut [u8]) {
        let len = into.len();
        into.copy_from_slice(self.clone_of(address, len));
    }

    fn clone_of(&self, address: u64, len: usize) -> &[u8] {
        let mut regions = self.0.iter().rev();
        let region = regions.find(|(base, _)| *base <= address);
        let (base, bytes) = region.expect("an address of a region");
        &bytes[(address - base) as usize..][..len]
    }
}

impl Guest {
    pub fn new(shapes: &[Shape]) -> Self {
        let region = |&(base, size, page): &Shape| {
            let geometry = PageGeometry::new(page, page.max(32 * PAGE)).expect("a geometry");
            BoxedRegion::boxed(base, size as u64, geometry).expect("a region")
        };
        let regions: Vec<_> = shapes.iter().map(region).collect();
        let memory = shapes.iter().map(|&(base, size, _)| (base, vec![0; size]));
        Self {
            tracker: WriteTracker::new(Host, regions).expect("a tracker"),
            memory: Memory(memory.collect()),
        }
    }

    /// One region.
    pub fn of_pages(pages: u64) -> Self {
        Self::new(&[(0, (pages * PAGE) as usize, PAGE)])
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        self.memory.at(address, bytes.len()).copy_from_slice(bytes);
        let end = address + bytes.len() as u64;
        self.tracker.mark_written(address..end).expect("tracked");
    }

    pub fn snapshot(&self, chain: &mut Chain) -> Result<Written, SnapshotError> {
        let harvest = self.tracker.begin_harvest().expect("the only one");
        chain.write(harvest, |address, into| {
            self.memory.read(address, into);
            Ok(())
        })
    }

    /// One whose copy fails at `address`.
    pub fn snapshot_failing_at(
        &self,
        chain: &mut Chain,
        address: u64,
    ) -> Result<Written, SnapshotError> {
        let harvest = self.tracker.begin_harvest().expect("the only one");
        chain.write(harvest, |start, into| {
            if (start..start + into.len() as u64).contains(&address) {
                return Err(io::Error::other("no such memory"));
            }
            self.memory.read(start, into);
            Ok(())
        })
    }

    /// What the chain restores to, which is as large as this guest's memory.
    pub fn restored(&self, chain: &Chain) -> Result<Memory, SnapshotError> {
        let mut memory = self.memory.clone();
        for (_, bytes) in &mut memory.0 {
            bytes.fill(0xee);
        }
        chain.restore(|address, bytes| {
            memory.at(address, bytes.len()).copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(memory)
    }
}

/// A folder of a test's own, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let name = format!("pugmark-snapshot-{}-{count}", process::id());
        Self(env::temp_dir().join(name))
    }

    /// With a base and `diffs` diffs of one page each.
    pub fn with_chain(diffs: u8) -> (Self, Guest, Chain) {
        let folder = Self::new();
        let mut guest = Guest::of_pages(8);
        let mut chain = Chain::create(&folder).expect("a chain");
        for n in 0..=diffs {
            guest.write(u64::from(n) % 8 * PAGE, &[n + 1; 100]);
            guest.snapshot(&mut chain).expect("a snapshot");
        }
        (folder, guest, chain)
    }

    pub fn file(&self, sequence: u64) -> PathBuf {
        self.0.join(format!("{sequence:08}.pugmark"))
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().expect("UTF-8"))
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
