//! Restore and merge: the newest content of every page.

use ::std::io;
use ::std::vec::Vec;
use core::ops::Range;

use super::chain::Chain;
use super::coverage::Coverage;
use super::draft::{Draft, Written};
use super::error::{FileFault, SnapshotError};
use super::info::{FileInfo, Kind};
use super::layout::Layout;
use super::reader::Reader;

impl Chain {
    /// Gives `target` the content of all memory at the last checkpoint: a guest physical address,
    /// and bytes from there. Each byte comes once, zeros included, in no particular order, at most
    /// 256 KiB at a time.
    ///
    /// Page data is checked before it is given, but piece by piece: after an error the target has
    /// parts of the checkpoint. Where that matters, [`verify`](Self::verify) first.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`].
    pub fn restore(
        &self,
        mut target: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut give = |start: u64, bytes: &[u8]| {
            let range = start..start + bytes.len() as u64;
            let refused = |error| SnapshotError::Target { range, error };
            target(start, bytes).map_err(refused)
        };
        self.tip()?;
        newest(self.files(), |run, data| match data {
            Some(data) => give(run.start, data),
            None => {
                let mut starts = run.clone().step_by(ZEROS.len());
                starts.try_for_each(|start| {
                    let len = (run.end - start).min(ZEROS.len() as u64);
                    give(start, &ZEROS[..len as usize])
                })
            }
        })
    }

    /// Makes one base of the base and all diffs. It stands for the last checkpoint, whose number
    /// and id it keeps, so that the chain goes on as before. The older files are removed.
    ///
    /// Killed at any moment, the chain is whole, with the old files or with the new one.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; the chain is whole nevertheless.
    pub fn merge(&mut self) -> Result<Written, SnapshotError> {
        self.claim()?;
        let tip = self.tip()?;
        let (sequence, id, layout) = (tip.sequence, tip.id, Layout::from(tip));
        let files = self.files().to_vec();
        let mut draft = Draft::new(self, layout, sequence, Kind::Merged { id })?;
        newest(&files, |run, data| draft.add_copied(run, data))?;
        let written = draft.publish()?;
        self.remove_older_than_base()?;
        Ok(written)
    }
}

/// Gives `each` the newest content of all memory, piece by piece: data, or `None` where it is zero.
///
/// From the last file to the base, and in each from the last frame to the first, so that what was
/// given once need not be given again: all is read once. Memory: a bit a page, 8 bytes a frame of
/// one file, and one frame.
pub(super) fn newest(
    files: &[FileInfo],
    mut each: impl FnMut(Range<u64>, Option<&[u8]>) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let Some(tip) = files.last() else {
        return Ok(());
    };
    let layout = Layout::from(tip);
    let corrupted = || SnapshotError::file(&tip.path, FileFault::Corrupted { at: 0 });
    let mut coverage = Coverage::new(&layout).ok_or_else(corrupted)?;
    let mut data = Vec::new();
    for file in files.iter().rev() {
        let mut reader = Reader::open(&file.path)?;
        let mut frames = Vec::new();
        let now = reader.walk(|frame| frames.push(frame.at()))?;
        if now.id != file.id {
            return Err(SnapshotError::file(&file.path, FileFault::Replaced));
        }
        for at in frames.into_iter().rev() {
            let frame = reader.frame_at(at, &mut data)?;
            for (run, stored) in frame.runs() {
                let Some(region) = layout.region_of(&run) else {
                    return Err(SnapshotError::file(&file.path, FileFault::Corrupted { at }));
                };
                let stored = stored.map(|at| &data[at]);
                for part in coverage.uncovered(region, run.clone()) {
                    let offset = |address: u64| (address - run.start) as usize;
                    let within = offset(part.start)..offset(part.end);
                    each(part, stored.map(|data| &data[within]))?;
                }
                coverage.cover(region, run);
            }
        }
    }
    match coverage.first_gap() {
        None => Ok(()),
        Some(gap) => Err(SnapshotError::file(
            &files[0].path,
            FileFault::IncompleteBase { start: gap.start },
        )),
    }
}
