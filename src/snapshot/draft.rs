//! [`Draft`]: a snapshot that is being written, and its commit.

use ::std::io;
use ::std::path::PathBuf;
use core::fmt;
use core::ops::Range;

use super::chain::Chain;
use super::coverage::Coverage;
use super::error::{SnapshotError, Step};
use super::info::{FileInfo, Kind};
use super::layout::Layout;
use super::packer::{Failed, Packer};
use crate::pages::{DirtyRun, Harvest, RegionSet};

/// The next snapshot of a chain, under its temporary name.
///
/// For a guest that should stop only shortly; [`Chain::write`] does it all at once.
///
/// ```no_run
/// # use core::{convert::Infallible, ops::Range};
/// # use pugmark::{BoxedRegion, WriteProtect, WriteTracker, snapshot::Chain};
/// # use std::{error::Error, io};
/// # struct Host;
/// # impl WriteProtect for Host {
/// #     type Error = Infallible;
/// #     fn protect(&self, _: Range<u64>) -> Result<(), Infallible> { Ok(()) }
/// #     fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> { Ok(()) }
/// # }
/// # fn pause() {}
/// # fn resume() {}
/// # fn take(
/// #     chain: &mut Chain,
/// #     tracker: &WriteTracker<Host, [BoxedRegion; 1]>,
/// #     mut memory: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
/// # ) -> Result<(), Box<dyn Error>> {
/// let mut harvest = tracker.begin_harvest()?;
/// let mut draft = chain.draft(&harvest)?;
/// for run in harvest.runs() {
///     draft.add(run, &mut memory)?; // most of it, while the guest runs
/// }
/// pause(); // every vCPU
/// let last = harvest.extend_final(|run| draft.add(run, &mut memory));
/// resume();
/// last?;
/// draft.commit(harvest)?; // the fsyncs, then the harvest
/// # Ok(())
/// # }
/// ```
///
/// Dropped without a commit, it leaves the chain as it was.
pub struct Draft<'c> {
    chain: &'c mut Chain,
    packer: Packer,
    layout: Layout,
    coverage: Coverage,
    sequence: u64,
    kind: Kind,
    temporary: PathBuf,
    renamed: bool,
}

/// A snapshot that is written, with its harvest committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Written {
    /// Its number in the chain.
    pub sequence: u64,
    /// Its id.
    pub id: u64,
    /// Runs in it.
    pub runs: u64,
    /// Bytes of page data in it.
    pub data: u64,
    /// Bytes that it says are zero, without holding them.
    pub zeros: u64,
    /// Size of the file, in bytes.
    pub file_size: u64,
}

impl<'c> Draft<'c> {
    pub(super) fn new(
        chain: &'c mut Chain,
        layout: Layout,
        sequence: u64,
        kind: Kind,
    ) -> Result<Self, SnapshotError> {
        let coverage = Coverage::new(&layout).ok_or_else(|| chain.other_regions())?;
        let temporary = chain.temporary();
        let created = chain.disk.create(&temporary);
        let output = created.map_err(|error| SnapshotError::io(Step::Create, &temporary, error))?;
        match Packer::new(output, &layout, sequence, kind) {
            Ok(packer) => Ok(Self {
                chain,
                packer,
                layout,
                coverage,
                sequence,
                kind,
                temporary,
                renamed: false,
            }),
            Err(error) => {
                // What stays behind is replaced by the next.
                let _ = chain.disk.remove(&temporary);
                Err(SnapshotError::io(Step::Write, &temporary, error))
            }
        }
    }

    /// Copies `run`, through `memory`: see [`Chain::write`]. A page may be added again; what was
    /// copied last counts.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; then drop the draft, and the harvest.
    pub fn add(
        &mut self,
        run: DirtyRun,
        memory: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        self.put(run.range(), |packer, range, cell| {
            packer.fill(range, cell, memory)
        })
    }

    /// Adds `run` out of another file: its data, or `None` where it is zero.
    pub(super) fn add_copied(
        &mut self,
        run: Range<u64>,
        data: Option<&[u8]>,
    ) -> Result<(), SnapshotError> {
        let start = run.start;
        self.put(run, |packer, range, cell| match data {
            None => packer.zero(range),
            Some(data) => packer.fill(range, cell, |at, into| {
                let at = (at - start) as usize;
                into.copy_from_slice(&data[at..at + into.len()]);
                Ok(())
            }),
        })
    }

    fn put(
        &mut self,
        range: Range<u64>,
        put: impl FnOnce(&mut Packer, Range<u64>, u64) -> Result<(), Failed>,
    ) -> Result<(), SnapshotError> {
        let Some(region) = self.layout.region_of(&range) else {
            return Err(SnapshotError::NotARun { range });
        };
        let cell = self.layout.regions()[region].cell();
        let done = put(&mut self.packer, range.clone(), cell);
        done.map_err(|failed| self.error(failed))?;
        self.coverage.cover(region, range);
        Ok(())
    }

    /// Makes the snapshot the chain's next checkpoint, then commits the harvest.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; the harvest was dropped, every page is marked again.
    /// [`SnapshotError::Incomplete`] where it holds runs that were not added, or where the snapshot
    /// is a base and lacks memory.
    pub fn commit<P, R: RegionSet>(
        self,
        harvest: Harvest<'_, P, R>,
    ) -> Result<Written, SnapshotError> {
        if Layout::of(harvest.regions()) != self.layout {
            return Err(self.chain.other_regions());
        }
        for run in harvest.runs() {
            self.check_covered(run)?;
        }
        let written = self.publish()?;
        harvest.commit();
        Ok(written)
    }

    fn check_covered(&self, run: DirtyRun) -> Result<(), SnapshotError> {
        let range = run.range();
        let region = self.layout.region_of(&range);
        let missing = match region {
            Some(region) => self.coverage.uncovered(region, range).next(),
            None => Some(range),
        };
        missing.map_or(Ok(()), |range| Err(SnapshotError::Incomplete { range }))
    }

    /// All but the harvest's commit.
    pub(super) fn publish(mut self) -> Result<Written, SnapshotError> {
        if self.kind.is_base()
            && let Some(range) = self.coverage.first_gap()
        {
            return Err(SnapshotError::Incomplete { range });
        }
        let finished = self.packer.finish();
        finished.map_err(|failed| self.error(failed))?;

        let path = self.chain.path_of(self.sequence);
        let renamed = self.chain.disk.rename(&self.temporary, &path);
        renamed.map_err(|error| SnapshotError::io(Step::Rename, &path, error))?;
        self.renamed = true;
        // Where this fails the file stays: it is whole, and the next one, which has the same number
        // and at least the same pages, replaces it.
        let folder = self.chain.folder();
        let synced = self.chain.disk.sync_folder(folder);
        synced.map_err(|error| SnapshotError::io(Step::SyncFolder, folder, error))?;

        let totals = self.packer.totals();
        let written = Written {
            sequence: self.sequence,
            id: self.kind.id_or(self.packer.id()),
            runs: totals.runs,
            data: totals.data,
            zeros: totals.zeros,
            file_size: self.packer.file_size(),
        };
        let info = FileInfo {
            path,
            file_size: written.file_size,
            sequence: written.sequence,
            id: written.id,
            kind: self.kind,
            regions: self.layout.regions().into(),
            runs: written.runs,
            data: written.data,
            zeros: written.zeros,
        };
        self.chain.append(info);
        Ok(written)
    }

    fn error(&self, failed: Failed) -> SnapshotError {
        match failed {
            Failed::Memory(range, error) => SnapshotError::Memory { range, error },
            Failed::Write(error) => SnapshotError::io(Step::Write, &self.temporary, error),
            Failed::Sync(error) => SnapshotError::io(Step::Sync, &self.temporary, error),
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // What stays behind is replaced by the next.
            let _ = self.chain.disk.remove(&self.temporary);
        }
    }
}

impl fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("sequence", &self.sequence)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
