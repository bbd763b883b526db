use core::fmt;

/// Why a permission could not be changed. Addresses are guest physical (IPA).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Stage2Error {
    /// Nothing is mapped here, so there is nothing to open. Nothing was changed.
    Unmapped {
        /// The first such address in the range.
        ipa: u64,
    },
    /// A block must be split and the source has too few tables left. Nothing was changed.
    OutOfTables {
        /// The start of the block.
        ipa: u64,
    },
    /// One end of the range is no multiple of 4 KiB. Opening the whole page would open more than
    /// the caller marks. Nothing was changed.
    Unaligned {
        /// That end.
        ipa: u64,
    },
    /// The tables refused an edit that the walk before it had found possible. The range may be
    /// changed in part, and a block in it unmapped.
    Refused {
        /// Where the edit began.
        ipa: u64,
    },
}

impl fmt::Display for Stage2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmapped { ipa } => write!(f, "nothing is mapped at IPA {ipa:#x}"),
            Self::OutOfTables { ipa } => {
                write!(f, "no page table left to split the block at IPA {ipa:#x}")
            }
            Self::Unaligned { ipa } => write!(f, "IPA {ipa:#x} is not on a 4 KiB boundary"),
            Self::Refused { ipa } => write!(f, "the page tables refused an edit at IPA {ipa:#x}"),
        }
    }
}

impl core::error::Error for Stage2Error {}
