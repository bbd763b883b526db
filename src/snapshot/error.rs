//! What can go wrong with a snapshot, and what to do then.

use ::std::io;
use ::std::path::{Path, PathBuf};
use core::fmt;
use core::ops::Range;

/// Why a snapshot could not be written, read or restored.
///
/// Where it was to be written, its harvest was dropped: every page is marked again, and the next
/// snapshot has them all.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file system refused.
    Io {
        /// What was asked of it.
        step: Step,
        /// The file or the folder.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// The caller's closure could not read the guest's memory.
    Memory {
        /// Guest physical addresses that it was to read.
        range: Range<u64>,
        /// What it says.
        error: io::Error,
    },
    /// The caller's closure could not take what was restored.
    Target {
        /// Guest physical addresses of it.
        range: Range<u64>,
        /// What it says.
        error: io::Error,
    },
    /// The file is not what it should be.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// The folder of a new chain has snapshots in it.
    Occupied {
        /// The folder.
        folder: PathBuf,
    },
    /// Another chain writes to the folder, of this process or another one.
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has no snapshot, or no base at or before the one asked for.
    NoBase {
        /// The folder.
        folder: PathBuf,
    },
    /// The chain has no such checkpoint.
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The number of the checkpoint.
        sequence: u64,
    },
    /// The chain was opened at an earlier checkpoint than its last, or another one wrote since.
    NotTheLast {
        /// The checkpoint that it was opened at.
        opened: u64,
        /// The last.
        last: u64,
    },
    /// The harvest's regions are not those of the chain.
    OtherRegions {
        /// The folder.
        folder: PathBuf,
    },
    /// The run is not whole pages of one of the regions.
    NotARun {
        /// Guest physical addresses of it.
        range: Range<u64>,
    },
    /// The snapshot lacks memory: a base some of all, a diff some of what its harvest holds.
    Incomplete {
        /// Guest physical addresses, the first that it lacks.
        range: Range<u64>,
    },
}

/// What was asked of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Step {
    /// Making the folder.
    MakeFolder,
    /// Reading the names in the folder.
    ListFolder,
    /// Opening the folder, to lock it.
    Lock,
    /// Making the temporary file.
    Create,
    /// Writing to it.
    Write,
    /// Its `fsync`.
    Sync,
    /// Giving it its own name.
    Rename,
    /// The `fsync` of the folder. The file is there and whole, but a loss of power may undo that.
    /// The next snapshot replaces it.
    SyncFolder,
    /// Opening a snapshot.
    Open,
    /// Reading from it.
    Read,
    /// Removing a file that a merge made needless. The chain is whole, with it or without.
    Remove,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FileFault {
    /// It does not begin as a snapshot does.
    NotASnapshot,
    /// It is of a version that this one cannot read.
    Version {
        /// The version that it names.
        found: u32,
    },
    /// It ends too early.
    Truncated {
        /// Its size, in bytes.
        len: u64,
    },
    /// What a checksum covers has changed, or makes no sense.
    Corrupted {
        /// Where that part begins, in bytes from the start of the file.
        at: u64,
    },
    /// There is more after its end.
    TrailingBytes {
        /// Where it should end, in bytes from the start of the file.
        at: u64,
    },
    /// It applies to another checkpoint than the one before it.
    WrongBase {
        /// The id that it applies to.
        expected: u64,
        /// The id of the one before it.
        found: u64,
    },
    /// Its name does not have the number that it holds.
    WrongName {
        /// The number that it holds.
        sequence: u64,
    },
    /// It is another file than when the chain was opened.
    Replaced,
    /// It is of other regions than the one before it.
    OtherRegions,
    /// It is a base, and lacks memory.
    IncompleteBase {
        /// The first address that it lacks.
        start: u64,
    },
}

impl SnapshotError {
    pub(super) fn io(step: Step, path: &Path, error: io::Error) -> Self {
        Self::Io {
            step,
            path: path.into(),
            error,
        }
    }

    pub(super) fn file(path: &Path, fault: FileFault) -> Self {
        Self::File {
            path: path.into(),
            fault,
        }
    }
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::MakeFolder => "make",
            Self::ListFolder => "list",
            Self::Lock => "lock",
            Self::Create => "create",
            Self::Write => "write",
            Self::Sync | Self::SyncFolder => "fsync",
            Self::Rename => "rename",
            Self::Open => "open",
            Self::Read => "read",
            Self::Remove => "remove",
        }
    }

    /// Whether a snapshot was being written, and thus nothing is lost.
    const fn is_of_writing(self) -> bool {
        matches!(
            self,
            Self::Lock | Self::Create | Self::Write | Self::Sync | Self::Rename | Self::SyncFolder
        )
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { step, path, error } => {
                write!(f, "cannot {} {}: {error}", step.name(), path.display())?;
                if error.kind() == io::ErrorKind::StorageFull {
                    f.write_str("; free some space, or merge the chain")?;
                }
                if step.is_of_writing() {
                    f.write_str("; nothing is lost, the next snapshot has it all")?;
                }
                Ok(())
            }
            Self::Memory { range, error } => {
                write!(f, "cannot read the guest's memory at {range:#x?}: {error}")
            }
            Self::Target { range, error } => {
                write!(f, "what was restored of {range:#x?} was refused: {error}")
            }
            Self::File { path, fault } => write!(f, "{}: {fault}", path.display()),
            Self::Occupied { folder } => write!(
                f,
                "{} has snapshots already: open that chain, or use another folder",
                folder.display()
            ),
            Self::InUse { folder } => write!(
                f,
                "another chain writes to {}: let it end, or drop it; nothing is lost, the next \
                 snapshot has it all",
                folder.display()
            ),
            Self::NoBase { folder } => write!(
                f,
                "{} has no base: write the first harvest of a new tracker there",
                folder.display()
            ),
            Self::Missing { folder, sequence } => write!(
                f,
                "{} lacks checkpoint {sequence}: bring its file back, or open the chain at an \
                 earlier one",
                folder.display()
            ),
            Self::NotTheLast { opened, last } => write!(
                f,
                "the chain was opened at checkpoint {opened}, and its last is {last}: copy the \
                 files up to {opened} to a folder of their own, and write there"
            ),
            Self::OtherRegions { folder } => write!(
                f,
                "the tracker's regions or pages are not those of the chain in {}: begin a new one",
                folder.display()
            ),
            Self::NotARun { range } => {
                write!(f, "{range:#x?} is not whole pages of one region")
            }
            Self::Incomplete { range } => write!(
                f,
                "the snapshot lacks {range:#x?}: a base needs all memory, which the first harvest \
                 of a new tracker has, or one after `mark_written` of everything; a diff needs \
                 every run of its harvest"
            ),
        }
    }
}

impl core::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } | Self::Memory { error, .. } | Self::Target { error, .. } => {
                Some(error)
            }
            Self::File { fault, .. } => Some(fault),
            _ => None,
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASnapshot => {
                f.write_str("not a snapshot; in a chain's folder, move it elsewhere")
            }
            Self::Version { found } => write!(
                f,
                "a snapshot of version {found}: read it with the pugmark that wrote it"
            ),
            Self::Truncated { len } => write!(
                f,
                "truncated: it ends after {len} bytes, in the midst of a record; bring back a \
                 whole copy, or open the chain at an earlier checkpoint"
            ),
            Self::Corrupted { at } => write!(
                f,
                "corrupted: the record at byte {at} is not as it was written; bring back a whole \
                 copy, or open the chain at an earlier checkpoint"
            ),
            Self::TrailingBytes { at } => write!(
                f,
                "more bytes after its end at {at}: something else wrote to it; bring back a whole \
                 copy"
            ),
            Self::WrongBase { expected, found } => write!(
                f,
                "it applies to checkpoint {expected:016x}, and the one before it is {found:016x}: \
                 it is of another chain"
            ),
            Self::WrongName { sequence } => {
                write!(f, "it is checkpoint {sequence}: rename it")
            }
            Self::Replaced => f.write_str(
                "another file than when the chain was opened: let one process at a time write to \
                 the folder, and open the chain again",
            ),
            Self::OtherRegions => {
                f.write_str("it is of other regions than the one before it: of another chain")
            }
            Self::IncompleteBase { start } => {
                write!(f, "a base that lacks the memory at {start:#x}")
            }
        }
    }
}

impl core::error::Error for FileFault {}
