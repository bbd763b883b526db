//! [`PageGeometry`]: how large a page is, and a block.

use core::fmt;
use core::ops::Range;

/// The two sizes that tracking works with, in bytes. Both are powers of two.
///
/// The *page* is the finest size that the host can protect. The *block* is what one fault opens
/// where the tracking is coarse; 2 MiB is what one entry of a level-2 table maps with 4 KiB pages,
/// on Arm, x86 and RISC-V alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PageGeometry {
    page_shift: u32,
    block_shift: u32,
}

impl PageGeometry {
    /// 16 KiB pages, 2 MiB blocks: Hypervisor.framework's default granule on Apple silicon.
    pub const APPLE_SILICON: Self = Self::known(16 << 10, 2 << 20);
    /// 4 KiB pages, 2 MiB blocks: Arm's 4 KiB translation granule.
    pub const ARM64_4K: Self = Self::known(4 << 10, 2 << 20);
    /// 4 KiB pages, 2 MiB blocks: x86-64, four-level and five-level paging.
    pub const X86_64: Self = Self::known(4 << 10, 2 << 20);
    /// 4 KiB pages, 2 MiB blocks: RISC-V Sv39x4 and up.
    pub const RISCV64: Self = Self::known(4 << 10, 2 << 20);

    /// A geometry of pages of `page_size` bytes in blocks of `block_size` bytes.
    ///
    /// # Errors
    ///
    /// [`GeometryError`] where a size is no power of two, or the page is larger than the block.
    pub const fn new(page_size: u64, block_size: u64) -> Result<Self, GeometryError> {
        if !page_size.is_power_of_two() {
            return Err(GeometryError::PageNotPowerOfTwo { page_size });
        }
        if !block_size.is_power_of_two() {
            return Err(GeometryError::BlockNotPowerOfTwo { block_size });
        }
        if page_size > block_size {
            return Err(GeometryError::PageLargerThanBlock {
                page_size,
                block_size,
            });
        }
        Ok(Self {
            page_shift: page_size.trailing_zeros(),
            block_shift: block_size.trailing_zeros(),
        })
    }

    const fn known(page_size: u64, block_size: u64) -> Self {
        match Self::new(page_size, block_size) {
            Ok(geometry) => geometry,
            Err(_) => panic!("not a geometry"),
        }
    }

    /// Bytes in a page.
    pub const fn page_size(self) -> u64 {
        1 << self.page_shift
    }

    /// Bytes in a block.
    pub const fn block_size(self) -> u64 {
        1 << self.block_shift
    }

    /// Pages in a whole block.
    pub const fn pages_per_block(self) -> u64 {
        1 << (self.block_shift - self.page_shift)
    }

    /// The same, as the power of two that it is.
    #[inline]
    pub(crate) const fn pages_per_block_shift(self) -> u32 {
        self.block_shift - self.page_shift
    }

    // By shift, never by division: the compiler cannot see that a size is a power of two.

    /// The page that holds `address`, counted from address 0.
    pub(crate) const fn page_number(self, address: u64) -> u64 {
        address >> self.page_shift
    }

    /// The block that holds `address`, counted from address 0.
    pub(crate) const fn block_number(self, address: u64) -> u64 {
        address >> self.block_shift
    }

    /// The addresses of block `number`, counted from address 0, which is not the last of all.
    pub(crate) const fn block(self, number: u64) -> Range<u64> {
        number << self.block_shift..(number + 1) << self.block_shift
    }

    /// Bytes in `pages` pages.
    pub(crate) const fn bytes(self, pages: usize) -> u64 {
        (pages as u64) << self.page_shift
    }
}

/// Sizes that do not make a geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum GeometryError {
    /// The page is no power of two (or is zero).
    PageNotPowerOfTwo {
        /// The size given, in bytes.
        page_size: u64,
    },
    /// The block is no power of two (or is zero).
    BlockNotPowerOfTwo {
        /// The size given, in bytes.
        block_size: u64,
    },
    /// A page must fit a block.
    PageLargerThanBlock {
        /// The page size given, in bytes.
        page_size: u64,
        /// The block size given, in bytes.
        block_size: u64,
    },
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageNotPowerOfTwo { page_size } => {
                write!(f, "a page of {page_size} bytes is no power of two")
            }
            Self::BlockNotPowerOfTwo { block_size } => {
                write!(f, "a block of {block_size} bytes is no power of two")
            }
            Self::PageLargerThanBlock {
                page_size,
                block_size,
            } => write!(
                f,
                "a page of {page_size} bytes is larger than a block of {block_size}"
            ),
        }
    }
}

impl core::error::Error for GeometryError {}
