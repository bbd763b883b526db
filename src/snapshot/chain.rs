//! [`Chain`]: a folder of snapshots, one on the other.

use ::std::boxed::Box;
use ::std::format;
use ::std::fs;
use ::std::io;
use ::std::path::{Path, PathBuf};
use ::std::string::String;
use ::std::vec::Vec;

use super::coverage::Coverage;
use super::disk::{Disk, System};
use super::draft::{Draft, Written};
use super::error::{FileFault, SnapshotError, Step};
use super::info::{FileInfo, Kind};
use super::layout::Layout;
use super::lock::Lock;
use super::reader::Reader;
use crate::pages::{Harvest, RegionSet};

/// The one temporary name, so that what a killed process left behind is replaced by the next.
const TEMPORARY: &str = "unfinished.tmp";

/// A base and the diffs on it, in a folder of their own.
///
/// One at a time writes to a folder: see [one writer](super#one-writer).
#[derive(Debug)]
pub struct Chain {
    pub(super) disk: Box<dyn Disk>,
    folder: PathBuf,
    /// The base, then each diff.
    files: Vec<FileInfo>,
    /// Held since it first wrote.
    lock: Option<Lock>,
}

impl Chain {
    /// A new, empty chain. The folder is made if it is not there, and each above it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Occupied`] where the folder has snapshots; [`SnapshotError::Io`].
    pub fn create(folder: impl AsRef<Path>) -> Result<Self, SnapshotError> {
        Self::create_on(Box::new(System), folder.as_ref())
    }

    pub(super) fn create_on(disk: Box<dyn Disk>, folder: &Path) -> Result<Self, SnapshotError> {
        let make = |error| SnapshotError::io(Step::MakeFolder, folder, error);
        let parents = parents_of_new(folder);
        fs::create_dir_all(folder).map_err(make)?;
        if !numbers_in(folder)?.is_empty() {
            return Err(SnapshotError::Occupied {
                folder: folder.into(),
            });
        }
        // So that the folder too survives a loss of power, and all that lead to it.
        let mut parents = parents.into_iter().rev();
        parents
            .try_for_each(|parent| disk.sync_folder(parent))
            .map_err(make)?;
        Ok(Self {
            disk,
            folder: folder.into(),
            files: Vec::new(),
            lock: None,
        })
    }

    /// The chain in `folder`, up to its last checkpoint. To write on to it, the guest's memory must
    /// be what it [restores](Self::restore) to, but for pages that are marked. So a new tracker,
    /// which has every page marked, is always right; to spare its first diff, arm it after a
    /// restore.
    ///
    /// It goes through every file that the checkpoint needs and checks all but the page data, which
    /// [`verify`](Self::verify) and [`restore`](Self::restore) do.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] where there is none, or where one of its files is not as it was written.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, SnapshotError> {
        Self::open_on(Box::new(System), folder.as_ref(), None)
    }

    /// As [`open`](Self::open), up to the checkpoint of number `sequence`: to restore an earlier
    /// state, or what is left of a damaged chain. Later files are not looked at.
    ///
    /// # Errors
    ///
    /// Also [`SnapshotError::Missing`] where there is no such checkpoint.
    pub fn open_at(folder: impl AsRef<Path>, sequence: u64) -> Result<Self, SnapshotError> {
        Self::open_on(Box::new(System), folder.as_ref(), Some(sequence))
    }

    pub(super) fn open_on(
        disk: Box<dyn Disk>,
        folder: &Path,
        sequence: Option<u64>,
    ) -> Result<Self, SnapshotError> {
        let numbers = numbers_in(folder)?;
        let no_base = || SnapshotError::NoBase {
            folder: folder.into(),
        };
        let last = *numbers.last().ok_or_else(no_base)?;
        let mut this = Self {
            disk,
            folder: folder.into(),
            files: Vec::new(),
            lock: None,
        };
        // From the last one back to the base: what lies before that, a merge has left behind.
        let mut sequence = sequence.unwrap_or(last);
        loop {
            if numbers.binary_search(&sequence).is_err() {
                return Err(SnapshotError::Missing {
                    folder: folder.into(),
                    sequence,
                });
            }
            let info = this.read(sequence)?;
            let is_base = info.kind.is_base();
            this.files.push(info);
            if is_base {
                break;
            }
            sequence = sequence.checked_sub(1).ok_or_else(no_base)?;
        }
        this.files.reverse();
        Ok(this)
    }

    /// Reads the file of that number, to which those in `files` lead back.
    fn read(&self, sequence: u64) -> Result<FileInfo, SnapshotError> {
        let path = self.path_of(sequence);
        let info = Reader::open(&path)?.walk(|_| ())?;
        if info.sequence != sequence {
            let sequence = info.sequence;
            return Err(SnapshotError::file(
                &path,
                FileFault::WrongName { sequence },
            ));
        }
        if let Some(next) = self.files.last() {
            if next.regions != info.regions {
                return Err(SnapshotError::file(&next.path, FileFault::OtherRegions));
            }
            if let Kind::Diff { parent } = next.kind
                && parent != info.id
            {
                let fault = FileFault::WrongBase {
                    expected: parent,
                    found: info.id,
                };
                return Err(SnapshotError::file(&next.path, fault));
            }
        }
        Ok(info)
    }

    pub(super) fn tip(&self) -> Result<&FileInfo, SnapshotError> {
        self.files.last().ok_or_else(|| SnapshotError::NoBase {
            folder: self.folder.clone(),
        })
    }

    /// Makes this the one that writes to the folder, until it is dropped. Refuses where another
    /// one is, or was since this one was opened, and where there are later checkpoints.
    pub(super) fn claim(&mut self) -> Result<(), SnapshotError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let folder = &self.folder;
        let taken =
            Lock::take(folder).map_err(|error| SnapshotError::io(Step::Lock, folder, error))?;
        let Some(lock) = taken else {
            return Err(SnapshotError::InUse {
                folder: folder.clone(),
            });
        };
        let last = numbers_in(folder)?.last().copied();
        match (self.files.last(), last) {
            (None, None) => {}
            (None, Some(_)) => {
                return Err(SnapshotError::Occupied {
                    folder: folder.clone(),
                });
            }
            (Some(tip), Some(last)) if tip.sequence < last => {
                let opened = tip.sequence;
                return Err(SnapshotError::NotTheLast { opened, last });
            }
            (Some(tip), _) => {
                if FileInfo::read(&tip.path)?.id != tip.id {
                    return Err(SnapshotError::file(&tip.path, FileFault::Replaced));
                }
            }
        }
        self.lock = Some(lock);
        Ok(())
    }

    /// Its files: the base, then each diff.
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes what `harvest` holds as the next checkpoint, and commits it: the base where the chain
    /// is empty, a diff after that.
    ///
    /// `memory` is given a guest physical address and bytes to fill from there; the range lies in
    /// one region. It reads memory that the guest may be writing at that moment. What it reads of
    /// such a page does not matter: the page was protected before, so it faulted, is marked, and is
    /// in the next harvest. *How* it reads does: a plain copy that races with a write is undefined
    /// behaviour. Copy with volatile or atomic loads, as vm-memory does, or through the kernel.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; the harvest was dropped, so every page is marked again, and the next
    /// snapshot has it all. The chain is as it was, and the file is gone. But after a failed rename
    /// or `fsync` of the folder ([`Step::Rename`], [`Step::SyncFolder`]) it may be there, and whole:
    /// a process that opens the folder now finds it as the last checkpoint. The next snapshot has
    /// the same number, applies to the same checkpoint, and replaces it.
    pub fn write<P, R: RegionSet>(
        &mut self,
        harvest: Harvest<'_, P, R>,
        mut memory: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<Written, SnapshotError> {
        let mut draft = self.draft(&harvest)?;
        for run in harvest.runs() {
            draft.add(run, &mut memory)?;
        }
        draft.commit(harvest)
    }

    /// Begins the next checkpoint, to be filled run by run and committed with `harvest`.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], as for [`write`](Self::write).
    pub fn draft<P, R: RegionSet>(
        &mut self,
        harvest: &Harvest<'_, P, R>,
    ) -> Result<Draft<'_>, SnapshotError> {
        self.claim()?;
        let layout = Layout::of(harvest.regions());
        let (sequence, kind) = match self.files.last() {
            None => (0, Kind::Base),
            Some(tip) => {
                if tip.regions != layout.regions() {
                    return Err(self.other_regions());
                }
                (tip.sequence + 1, Kind::Diff { parent: tip.id })
            }
        };
        Draft::new(self, layout, sequence, kind)
    }

    /// Reads every file whole, and checks all of it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] of the first file that is not as it was written.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        for file in &self.files {
            verify(&file.path)?;
        }
        Ok(())
    }

    pub(super) fn path_of(&self, sequence: u64) -> PathBuf {
        self.folder.join(name_of(sequence))
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.folder.join(TEMPORARY)
    }

    pub(super) fn other_regions(&self) -> SnapshotError {
        SnapshotError::OtherRegions {
            folder: self.folder.clone(),
        }
    }

    /// The file is there, and survives a loss of power.
    pub(super) fn append(&mut self, info: FileInfo) {
        if info.kind.is_base() {
            self.files.clear();
        }
        self.files.push(info);
    }

    /// Removes the files that a merge has left behind.
    pub(super) fn remove_older_than_base(&self) -> Result<(), SnapshotError> {
        let Some(base) = self.files.first() else {
            return Ok(());
        };
        for number in numbers_in(&self.folder)? {
            if number < base.sequence {
                let path = self.path_of(number);
                let removed = self.disk.remove(&path);
                removed.map_err(|error| SnapshotError::io(Step::Remove, &path, error))?;
            }
        }
        Ok(())
    }
}

impl FileInfo {
    /// What is in the file at `path`. Checks all but the page data.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] where it cannot be read, or is not as it was written.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SnapshotError> {
        Reader::open(path.as_ref())?.walk(|_| ())
    }

    /// The same, and checks all of it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn verify(path: impl AsRef<Path>) -> Result<Self, SnapshotError> {
        verify(path.as_ref())
    }
}

fn verify(path: &Path) -> Result<FileInfo, SnapshotError> {
    let mut reader = Reader::open(path)?;
    let info = reader.verify()?;
    if info.kind.is_base() {
        let corrupted = || SnapshotError::file(path, FileFault::Corrupted { at: 0 });
        let layout = reader.layout().clone();
        let mut coverage = Coverage::new(&layout).ok_or_else(corrupted)?;
        reader.walk(|frame| {
            for (run, _) in frame.runs() {
                if let Some(region) = layout.region_of(&run) {
                    coverage.cover(region, run);
                }
            }
        })?;
        if let Some(gap) = coverage.first_gap() {
            let start = gap.start;
            return Err(SnapshotError::file(
                path,
                FileFault::IncompleteBase { start },
            ));
        }
    }
    Ok(info)
}

/// The folders that get a new name when `folder` is made, from the innermost: its parent, and that
/// of each level that is not there yet.
fn parents_of_new(folder: &Path) -> Vec<&Path> {
    let mut parents = Vec::new();
    // The root of a path has no parent, and that of a bare name is empty: it is here.
    for level in folder.ancestors().skip(1) {
        let is_here = level.as_os_str().is_empty();
        parents.push(if is_here { Path::new(".") } else { level });
        if is_here || level.exists() {
            break;
        }
    }
    parents
}

fn name_of(sequence: u64) -> String {
    format!("{sequence:08}.pugmark")
}

/// The numbers of the snapshots in the folder, ascending.
fn numbers_in(folder: &Path) -> Result<Vec<u64>, SnapshotError> {
    let list = |error| SnapshotError::io(Step::ListFolder, folder, error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        let stem = Path::new(&name).file_stem().and_then(|stem| stem.to_str());
        let number = stem.and_then(|stem| stem.parse().ok());
        if let Some(number) = number
            && name == *name_of(number)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
