//! The bytes of a file: see the table in the [module](super).

use twox_hash::XxHash3_64;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub const MAGIC: [u8; 8] = *b"pugmark\x1a";
pub const VERSION: u32 = 1;

/// Runs in a frame, at most: 64 KiB of them.
pub const MAX_RUNS: usize = 4096;
/// Bytes of page data in a frame, at most. Small enough to stay in a core's own cache between the
/// copy, the checksum and the write; large enough that the system call costs nothing.
pub const MAX_DATA: usize = 256 << 10;
/// Where pages are larger, their parts of this size are counted instead.
pub const MAX_CELL: u64 = 64 << 10;

pub const BASE: u32 = 0;
pub const DIFF: u32 = 1;
pub const MERGED: u32 = 2;

pub const RUNS: [u8; 4] = *b"RUNS";
pub const END: [u8; 4] = *b"END.";

pub const DATA: u32 = 0;
pub const ZERO: u32 = 1;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    pub magic: [u8; 8],
    pub version: U32,
    pub kind: U32,
    pub sequence: U64,
    /// A checkpoint's id: see [`Kind`](super::Kind).
    pub link: U64,
    pub regions: U32,
    pub reserved: U32,
    pub checksum: U64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Region {
    pub base: U64,
    pub size: U64,
    pub page_size: U64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FrameHead {
    pub tag: [u8; 4],
    pub runs: U32,
    pub data: U32,
    pub reserved: U32,
    pub data_checksum: U64,
    pub checksum: U64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Run {
    pub start: U64,
    pub len: U32,
    pub kind: U32,
}

impl Run {
    pub fn end(&self) -> u64 {
        self.start.get() + u64::from(self.len.get())
    }
}

/// As long as a [`FrameHead`], so that either can be read before it is known which it is.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct End {
    pub tag: [u8; 4],
    pub reserved: U32,
    pub frames: U64,
    pub id: U64,
    pub checksum: U64,
}

const _: () = assert!(size_of::<End>() == size_of::<FrameHead>());

pub fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The checksum of a header or a frame's head, whose last 8 bytes are the checksum's own, and of
/// the table after it.
pub fn checksum_of_head(head: &[u8], table: &[u8]) -> u64 {
    let mut both = XxHash3_64::new();
    core::hash::Hasher::write(&mut both, &head[..head.len() - size_of::<U64>()]);
    core::hash::Hasher::write(&mut both, table);
    core::hash::Hasher::finish(&both)
}

/// The id after another frame.
pub fn next_id(id: u64, frame_checksum: u64) -> u64 {
    checksum([U64::new(id), U64::new(frame_checksum)].as_bytes())
}
