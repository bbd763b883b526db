//! Writes a file: a header, frames as they fill up, an end.

use ::std::boxed::Box;
use ::std::io;
use ::std::vec;
use ::std::vec::Vec;
use core::mem;
use core::ops::Range;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::disk::Output;
use super::format::{self, End, FrameHead, Header, MAX_DATA, MAX_RUNS, Run};
use super::info::Kind;
use super::layout::Layout;

/// The disk begins with so many bytes at once: enough for it to be busy with while the next are
/// packed. With 1 MiB or 32 MiB it took a third longer on the machine where this was measured.
const BEGIN: u64 = 8 << 20;

/// What is in the frames that it has written so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub runs: u64,
    pub data: u64,
    pub zeros: u64,
}

#[derive(Debug)]
pub(super) struct Packer {
    sink: Sink,
    /// Of the frame that is being filled.
    runs: Vec<Run>,
    /// The page data of its runs, [`MAX_DATA`] bytes of which `used` are.
    data: Box<[u8]>,
    used: usize,
    frames: u64,
    id: u64,
    totals: Totals,
}

impl Packer {
    pub fn new(
        output: Box<dyn Output>,
        layout: &Layout,
        sequence: u64,
        kind: Kind,
    ) -> io::Result<Self> {
        let regions = layout.regions().iter().map(|region| format::Region {
            base: U64::new(region.base),
            size: U64::new(region.size),
            page_size: U64::new(region.page_size),
        });
        let regions: Vec<_> = regions.collect();
        let (kind, link) = match kind {
            Kind::Base => (format::BASE, 0),
            Kind::Diff { parent } => (format::DIFF, parent),
            Kind::Merged { id } => (format::MERGED, id),
        };
        let mut header = Header {
            magic: format::MAGIC,
            version: U32::new(format::VERSION),
            kind: U32::new(kind),
            sequence: U64::new(sequence),
            link: U64::new(link),
            regions: U32::new(regions.len() as u32),
            reserved: U32::new(0),
            checksum: U64::new(0),
        };
        let checksum = format::checksum_of_head(header.as_bytes(), regions.as_bytes());
        header.checksum = U64::new(checksum);
        let mut this = Self {
            sink: Sink {
                output,
                bytes: 0,
                begun: 0,
                broken: false,
            },
            runs: Vec::with_capacity(MAX_RUNS),
            data: vec![0; MAX_DATA].into(),
            used: 0,
            frames: 0,
            id: checksum,
            totals: Totals::default(),
        };
        this.sink.put(header.as_bytes())?;
        this.sink.put(regions.as_bytes())?;
        Ok(this)
    }

    /// Adds `run`, whole cells of a region, with what `memory` reads there.
    pub fn fill(
        &mut self,
        run: Range<u64>,
        cell: u64,
        mut memory: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<(), Failed> {
        self.ascend(run.start)?;
        let mut at = run.start;
        while at < run.end {
            let room = (MAX_DATA - self.used) as u64 / cell;
            let room = room.min((MAX_RUNS - self.runs.len()) as u64) * cell;
            if room == 0 {
                self.flush()?;
                continue;
            }
            let end = run.end.min(at.saturating_add(room));
            let piece = self.used..self.used + (end - at) as usize;
            memory(at, &mut self.data[piece.clone()])
                .map_err(|error| Failed::Memory(at..end, error))?;
            self.keep(at, piece, cell as usize);
            at = end;
        }
        Ok(())
    }

    /// Adds `run`, which is all zero.
    pub fn zero(&mut self, run: Range<u64>) -> Result<(), Failed> {
        self.ascend(run.start)?;
        // The most bytes that a run can have, in whole cells.
        const MAX: u64 = 1 << 31;
        let mut at = run.start;
        while at < run.end {
            if self.runs.len() == MAX_RUNS {
                self.flush()?;
            }
            let end = run.end.min(at.saturating_add(MAX));
            self.push(at, (end - at) as u32, format::ZERO);
            at = end;
        }
        Ok(())
    }

    /// The last frame and the end, made to survive a loss of power.
    pub fn finish(&mut self) -> Result<(), Failed> {
        self.flush()?;
        let mut end = End {
            tag: format::END,
            reserved: U32::new(0),
            frames: U64::new(self.frames),
            id: U64::new(self.id),
            checksum: U64::new(0),
        };
        end.checksum = U64::new(format::checksum_of_head(end.as_bytes(), &[]));
        self.sink.put(end.as_bytes())?;
        self.sink.output.sync().map_err(Failed::Sync)
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub fn file_size(&self) -> u64 {
        self.sink.bytes
    }

    /// Runs of a frame ascend; one that comes again, or from below, begins another frame.
    fn ascend(&mut self, start: u64) -> io::Result<()> {
        let ascends = self.runs.last().is_none_or(|last| last.end() <= start);
        if ascends { Ok(()) } else { self.flush() }
    }

    /// Keeps of the bytes that were just read to `piece` those of cells that are not zero.
    fn keep(&mut self, start: u64, piece: Range<usize>, cell: usize) {
        let mut at = start;
        for first in piece.clone().step_by(cell) {
            let last = piece.end.min(first + cell);
            let len = last - first;
            if is_zero(&self.data[first..last]) {
                self.push(at, len as u32, format::ZERO);
            } else {
                self.push(at, len as u32, format::DATA);
                // Nothing moves as long as no cell was zero.
                if self.used != first {
                    self.data.copy_within(first..last, self.used);
                }
                self.used += len;
            }
            at += len as u64;
        }
    }

    /// Adds to the last run, or begins another, for which there is room.
    fn push(&mut self, start: u64, len: u32, kind: u32) {
        if let Some(last) = self.runs.last_mut()
            && last.end() == start
            && last.kind.get() == kind
            && let Some(sum) = last.len.get().checked_add(len)
        {
            last.len = U32::new(sum);
            return;
        }
        self.runs.push(Run {
            start: U64::new(start),
            len: U32::new(len),
            kind: U32::new(kind),
        });
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let mut head = FrameHead {
            tag: format::RUNS,
            runs: U32::new(self.runs.len() as u32),
            data: U32::new(self.used as u32),
            reserved: U32::new(0),
            data_checksum: U64::new(format::checksum(&self.data[..self.used])),
            checksum: U64::new(0),
        };
        let table = self.runs.as_bytes();
        let checksum = format::checksum_of_head(head.as_bytes(), table);
        head.checksum = U64::new(checksum);
        let head = [head.as_bytes(), table].concat();
        self.sink.put(&head)?;
        self.sink.put(&self.data[..self.used])?;

        self.id = format::next_id(self.id, checksum);
        self.frames += 1;
        for run in self.runs.drain(..) {
            if run.kind.get() == format::ZERO {
                self.totals.zeros += u64::from(run.len.get());
            }
            self.totals.runs += 1;
        }
        self.totals.data += self.used as u64;
        self.used = 0;
        Ok(())
    }
}

/// Where the bytes go.
#[derive(Debug)]
struct Sink {
    output: Box<dyn Output>,
    /// How many it has.
    bytes: u64,
    /// How many of them the disk was told to begin with.
    begun: u64,
    /// A write failed half-way: nothing can follow it.
    broken: bool,
}

impl Sink {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if mem::replace(&mut self.broken, true) {
            return Err(io::Error::other("an earlier write failed"));
        }
        self.output.write_all(bytes)?;
        self.broken = false;
        self.bytes += bytes.len() as u64;
        if self.bytes - self.begun >= BEGIN {
            self.output.begin_sync(self.begun, self.bytes);
            self.begun = self.bytes;
        }
        Ok(())
    }
}

/// Which side failed.
#[derive(Debug)]
pub(super) enum Failed {
    Memory(Range<u64>, io::Error),
    Write(io::Error),
    Sync(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // A line at a time: wide enough for the machine's vectors, and the first one mostly settles it.
    let mut lines = bytes.chunks(64);
    lines.all(|line| line.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::is_zero;

    #[test]
    fn a_cell_is_zero_only_if_every_byte_is() {
        let mut bytes = [0; 200];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in 0..bytes.len() {
            bytes[at] = 0x80;
            assert!(!is_zero(&bytes), "byte {at}");
            bytes[at] = 0;
        }
    }
}
