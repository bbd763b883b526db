//! Snapshots: a base, and diffs that hold only what was written since.
//!
//! A [`Chain`] is a folder with one file a checkpoint. The first one is the *base*, all of memory;
//! each later one is a *diff*, what a harvest found. [`Chain::write`] takes a two-phase harvest
//! through to its commit, in the order that loses nothing:
//!
//! 1. the file is written under a temporary name (`unfinished.tmp`), and `fsync`ed;
//! 2. it is renamed to its own name, and the folder is `fsync`ed;
//! 3. then the harvest commits.
//!
//! Where any step fails, the harvest is dropped, its pages are marked again, and the next diff has
//! them. Killed at any moment, the chain is whole up to its last file.
//!
//! ```
//! use pugmark::snapshot::Chain;
//! # use core::{convert::Infallible, ops::Range};
//! # use pugmark::{BoxedRegion, PageGeometry, WriteProtect, WriteTracker};
//! # struct Host;
//! # impl WriteProtect for Host {
//! #     type Error = Infallible;
//! #     fn protect(&self, _: Range<u64>) -> Result<(), Infallible> { Ok(()) }
//! #     fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> { Ok(()) }
//! # }
//! # const SIZE: usize = 64 << 10;
//! # let folder = std::env::temp_dir().join(format!("pugmark-doc-{}", std::process::id()));
//! # let mut memory = vec![0; SIZE];
//! # let region = BoxedRegion::boxed(0, SIZE as u64, PageGeometry::ARM64_4K)?;
//! # let tracker = WriteTracker::new(Host, [region])?;
//! let mut chain = Chain::create(&folder)?;
//!
//! // A new tracker has every page marked: its first harvest is the base.
//! chain.write(tracker.begin_harvest()?, |address, bytes| {
//!     let at = address as usize;
//!     bytes.copy_from_slice(&memory[at..][..bytes.len()]);
//!     Ok(())
//! })?;
//!
//! memory[0x3000] = 7;
//! tracker.on_write_fault(0x3000)?;
//! let written = chain.write(tracker.begin_harvest()?, |address, bytes| {
//! #   let at = address as usize;
//! #   bytes.copy_from_slice(&memory[at..][..bytes.len()]);
//! #   Ok(())
//!     // …
//! })?;
//! assert_eq!(written.sequence, 1);
//!
//! let mut restored = vec![0xff; SIZE];
//! Chain::open(&folder)?.restore(|address, bytes| {
//!     restored[address as usize..][..bytes.len()].copy_from_slice(bytes);
//!     Ok(())
//! })?;
//! assert_eq!(restored, memory);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a checkpoint holds
//!
//! Of each page, what it held when it was copied, which is after the harvest protected it. A guest
//! that is stopped from before the harvest until the last page is copied gives memory as it was at
//! that moment. A guest that runs on gives each page at its own moment; what it wrote meanwhile is
//! marked, so the next diff has it.
//!
//! To stop it only shortly, use a [`Draft`]: copy while the guest runs, then stop it,
//! [extend](crate::Harvest::extend_final) the harvest by what it wrote meanwhile, and let it go
//! before the slow part, the `fsync`.
//!
//! # One writer
//!
//! From its first checkpoint or merge until it is dropped, a [`Chain`] holds a lock on its folder
//! (`flock`), and another one that is to write there is refused ([`SnapshotError::InUse`]). The lock
//! ends with its process, however that ends: there is nothing to clear away. Who only reads needs
//! no lock. A chain that was opened before another one wrote is refused too.
//!
//! It is between processes of one machine, and on Unix. Nothing else keeps two machines from writing
//! to a folder that they share, or two processes elsewhere, or a forked child that goes on with its
//! parent's chain: do not.
//!
//! # What it takes
//!
//! To write: 320 KiB, and a bit a page. To restore or to merge: the same, and 8 bytes for each
//! 256 KiB of the largest file. Files are readable by their owner alone, where the system has such
//! permissions: they hold the guest's secrets.
//!
//! # The format
//!
//! Version 1. Integers are little-endian, nothing is aligned or padded. A file is a header, any
//! number of frames, and an end:
//!
//! | bytes | header |
//! | --- | --- |
//! | 8 | `pugmark` and a byte of 0x1a |
//! | 4 | version, 1 |
//! | 4 | kind: 0 base, 1 diff, 2 merged base |
//! | 8 | sequence number in the chain, which is also the file's name: `00000012.pugmark` |
//! | 8 | of a diff, the id of the checkpoint before, which it applies to; of a merged base, the id of the checkpoint that it stands for; of a base, 0 |
//! | 4 | regions |
//! | 4 | 0 |
//! | 8 | checksum of the bytes above and of the regions |
//! | 24 each | regions: base, size, page size, in bytes |
//!
//! | bytes | frame |
//! | --- | --- |
//! | 4 | `RUNS` |
//! | 4 | runs, 4,096 at most |
//! | 4 | bytes of page data, 262,144 at most |
//! | 4 | 0 |
//! | 8 | checksum of the page data |
//! | 8 | checksum of the bytes above and of the runs |
//! | 16 each | runs, ascending and apart: first address (8), bytes (4), kind (4): 0 data, 1 all zero, of which there is no data |
//! | | page data, run by run |
//!
//! | bytes | end |
//! | --- | --- |
//! | 4 | `END.` |
//! | 4 | 0 |
//! | 8 | frames |
//! | 8 | id of this file |
//! | 8 | checksum of the bytes above |
//!
//! A page may be in several frames of a file; the last one counts. Runs begin and end at pages, or
//! at the end of a region; of pages above 64 KiB, at multiples of 64 KiB from the region's base.
//!
//! The checksum is XXH3, 64 bits, seed 0. The id is a chain of them: at first the header's checksum,
//! then for each frame the XXH3 of the id so far and the frame's last checksum, 16 bytes. So the id
//! follows from what the file holds and what it applies to, and a diff cannot be put on another
//! base. A merge keeps the id of its checkpoint, so that diffs on it stay good. XXH3 is fast, and it finds what disks, cables and people do by accident. It is no
//! protection from someone who forges a file.
//!
//! # Not included
//!
//! The state of vCPUs and devices; compression; encryption.

mod chain;
mod coverage;
mod disk;
mod draft;
mod error;
mod format;
mod info;
mod layout;
mod lock;
mod merge;
mod packer;
mod reader;
#[cfg(test)]
mod tests;

pub use chain::Chain;
pub use draft::{Draft, Written};
pub use error::{FileFault, SnapshotError, Step};
pub use info::{FileInfo, Kind};
pub use layout::RegionLayout;
