//! What is in a file, for people.

use ::std::path::PathBuf;
use ::std::vec::Vec;
use core::fmt;

use super::layout::RegionLayout;

/// All of memory, or what was written since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Kind {
    /// All of memory.
    Base,
    /// What was written since the checkpoint before.
    Diff {
        /// The id of that checkpoint.
        parent: u64,
    },
    /// All of memory: the base and the diffs up to this checkpoint, merged.
    Merged {
        /// The id that the checkpoint had before, and keeps.
        id: u64,
    },
}

impl Kind {
    /// Whether it needs no other file.
    pub const fn is_base(self) -> bool {
        !matches!(self, Self::Diff { .. })
    }

    /// The id of a checkpoint of this kind whose file's own is `own`.
    pub(super) const fn id_or(self, own: u64) -> u64 {
        match self {
            Self::Merged { id } => id,
            _ => own,
        }
    }
}

/// What is in a file. Its [`Display`](fmt::Display) is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// Where it is.
    pub path: PathBuf,
    /// Its size, in bytes.
    pub file_size: u64,
    /// Its number in the chain.
    pub sequence: u64,
    /// Its id.
    pub id: u64,
    /// Whether it is a base.
    pub kind: Kind,
    /// The regions that it is of.
    pub regions: Vec<RegionLayout>,
    /// Runs in it.
    pub runs: u64,
    /// Bytes of page data in it.
    pub data: u64,
    /// Bytes that it says are zero, without holding them.
    pub zeros: u64,
}

impl FileInfo {
    /// Bytes of guest memory.
    pub fn memory(&self) -> u64 {
        self.regions.iter().map(|region| region.size).sum()
    }
}

impl fmt::Display for FileInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path.display())?;
        let id = self.id;
        write!(f, "  checkpoint {}: id {id:016x}, ", self.sequence)?;
        match self.kind {
            Kind::Base => writeln!(f, "a base")?,
            Kind::Diff { parent } => writeln!(f, "a diff on {parent:016x}")?,
            Kind::Merged { .. } => writeln!(f, "a base, merged")?,
        }
        for region in &self.regions {
            writeln!(f, "  memory {region}")?;
        }
        let memory = self.memory();
        let share = |bytes: u64| bytes as f64 * 100.0 / memory as f64;
        let (data, zeros) = (self.data, self.zeros);
        writeln!(f, "  data   {data} bytes, {:.2} % of memory", share(data))?;
        writeln!(
            f,
            "  zeros  {zeros} bytes, {:.2} %, not stored",
            share(zeros)
        )?;
        let runs = self.runs;
        write!(f, "  runs   {runs}; the file has {} bytes", self.file_size)
    }
}
