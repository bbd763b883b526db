//! Reads a file, and believes nothing of it that no checksum covers.

use ::std::fs::File;
use ::std::io::{self, BufReader, Read, Seek, SeekFrom};
use ::std::path::{Path, PathBuf};
use ::std::vec;
use ::std::vec::Vec;
use core::ops::Range;

use zerocopy::{FromZeros, IntoBytes};

use super::error::{FileFault, SnapshotError, Step};
use super::format::{self, End, FrameHead, Header, MAX_DATA, MAX_RUNS, Run};
use super::info::{FileInfo, Kind};
use super::layout::{Layout, RegionLayout};

pub(super) struct Reader<S> {
    path: PathBuf,
    source: S,
    file_size: u64,
    sequence: u64,
    kind: Kind,
    layout: Layout,
    /// The header's checksum, where the id begins.
    seed: u64,
    /// Where the first frame begins.
    frames_at: u64,
    /// Where the source stands.
    at: u64,
}

/// The runs of a frame.
pub(super) struct Frame {
    at: u64,
    data_len: usize,
    data_checksum: u64,
    checksum: u64,
    runs: Vec<Run>,
}

impl Frame {
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Each run: its addresses, and where its data is in the frame's; `None` where it is zero.
    pub fn runs(&self) -> impl Iterator<Item = (Range<u64>, Option<Range<usize>>)> {
        let mut used = 0;
        self.runs.iter().map(move |run| {
            let data = (run.kind.get() == format::DATA).then(|| {
                let start = used;
                used += run.len.get() as usize;
                start..used
            });
            (run.start.get()..run.end(), data)
        })
    }
}

impl Reader<BufReader<File>> {
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = opened.map_err(|error| SnapshotError::io(Step::Open, path, error))?;
        Self::new(path, BufReader::new(file), len)
    }
}

impl<S: Read + Seek> Reader<S> {
    pub fn new(path: &Path, source: S, file_size: u64) -> Result<Self, SnapshotError> {
        let mut this = Self {
            path: path.into(),
            source,
            file_size,
            sequence: 0,
            kind: Kind::Base,
            layout: Layout::default(),
            seed: 0,
            frames_at: 0,
            at: 0,
        };
        this.header()?;
        Ok(this)
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn header(&mut self) -> Result<(), SnapshotError> {
        let mut header = Header::new_zeroed();
        // The magic alone first: a foreign file may be shorter than a header.
        let magic = header.magic.len();
        self.fill(&mut header.as_mut_bytes()[..magic])?;
        if header.magic != format::MAGIC {
            return Err(self.fault(FileFault::NotASnapshot));
        }
        self.fill(&mut header.as_mut_bytes()[magic..])?;
        let found = header.version.get();
        if found != format::VERSION {
            return Err(self.fault(FileFault::Version { found }));
        }

        let count = u64::from(header.regions.get());
        if count * size_of::<format::Region>() as u64 > self.file_size.saturating_sub(self.at) {
            return Err(self.truncated());
        }
        let mut regions = vec![format::Region::new_zeroed(); count as usize];
        self.fill(regions.as_mut_bytes())?;
        let checksum = format::checksum_of_head(header.as_bytes(), regions.as_bytes());
        let corrupted = FileFault::Corrupted { at: 0 };
        if checksum != header.checksum.get() {
            return Err(self.fault(corrupted));
        }

        let regions = regions.iter().map(|region| RegionLayout {
            base: region.base.get(),
            size: region.size.get(),
            page_size: region.page_size.get(),
        });
        let layout = Layout::new(regions.collect());
        self.layout = layout.ok_or_else(|| self.fault(corrupted))?;
        let link = header.link.get();
        self.kind = match header.kind.get() {
            format::BASE => Kind::Base,
            format::DIFF => Kind::Diff { parent: link },
            format::MERGED => Kind::Merged { id: link },
            _ => return Err(self.fault(corrupted)),
        };
        self.sequence = header.sequence.get();
        self.seed = checksum;
        self.frames_at = self.at;
        Ok(())
    }

    /// Goes through the whole file, and checks everything but page data.
    pub fn walk(&mut self, mut each: impl FnMut(&Frame)) -> Result<FileInfo, SnapshotError> {
        self.walk_with(|this, frame| {
            each(frame);
            this.seek(this.at + frame.data_len as u64)
        })
    }

    /// Goes through the whole file, and checks everything.
    pub fn verify(&mut self) -> Result<FileInfo, SnapshotError> {
        let mut data = Vec::new();
        self.walk_with(|this, frame| this.data(frame, &mut data))
    }

    /// `data` goes past the frame's page data.
    fn walk_with(
        &mut self,
        mut data: impl FnMut(&mut Self, &Frame) -> Result<(), SnapshotError>,
    ) -> Result<FileInfo, SnapshotError> {
        self.seek(self.frames_at)?;
        let mut info = FileInfo {
            path: self.path.clone(),
            file_size: self.file_size,
            sequence: self.sequence,
            id: self.seed,
            kind: self.kind,
            regions: self.layout.regions().into(),
            runs: 0,
            data: 0,
            zeros: 0,
        };
        let mut frames = 0;
        let mut id = self.seed;
        loop {
            let at = self.at;
            match self.record()? {
                Record::Frame(frame) => {
                    frames += 1;
                    id = format::next_id(id, frame.checksum);
                    info.runs += frame.runs.len() as u64;
                    info.data += frame.data_len as u64;
                    let zeros = frame.runs().filter(|(_, data)| data.is_none());
                    info.zeros += zeros.map(|(run, _)| run.end - run.start).sum::<u64>();
                    data(self, &frame)?;
                }
                Record::End(end) => {
                    // The frames are whole, each; these say that they are all, and in order.
                    if end.frames.get() != frames || end.id.get() != id {
                        return Err(self.fault(FileFault::Corrupted { at }));
                    }
                    if self.at != self.file_size {
                        return Err(self.fault(FileFault::TrailingBytes { at: self.at }));
                    }
                    info.id = info.kind.id_or(id);
                    return Ok(info);
                }
            }
        }
    }

    /// The frame that begins there, and its page data.
    pub fn frame_at(&mut self, at: u64, data: &mut Vec<u8>) -> Result<Frame, SnapshotError> {
        self.seek(at)?;
        match self.record()? {
            Record::Frame(frame) => {
                self.data(&frame, data)?;
                Ok(frame)
            }
            Record::End(_) => Err(self.fault(FileFault::Corrupted { at })),
        }
    }

    /// The page data of the frame, at which the source stands.
    fn data(&mut self, frame: &Frame, data: &mut Vec<u8>) -> Result<(), SnapshotError> {
        data.resize(frame.data_len, 0);
        self.fill(data)?;
        if format::checksum(data) != frame.data_checksum {
            return Err(self.fault(FileFault::Corrupted { at: frame.at }));
        }
        Ok(())
    }

    fn record(&mut self) -> Result<Record, SnapshotError> {
        let at = self.at;
        let mut bytes = [0; size_of::<End>()];
        self.fill(&mut bytes)?;
        let corrupted = FileFault::Corrupted { at };
        let head: FrameHead = zerocopy::transmute!(bytes);
        let end: End = zerocopy::transmute!(bytes);
        match head.tag {
            format::RUNS => self.frame(at, &head).map(Record::Frame),
            format::END if format::checksum_of_head(&bytes, &[]) == end.checksum.get() => {
                Ok(Record::End(end))
            }
            _ => Err(self.fault(corrupted)),
        }
    }

    fn frame(&mut self, at: u64, head: &FrameHead) -> Result<Frame, SnapshotError> {
        let corrupted = FileFault::Corrupted { at };
        let count = head.runs.get() as usize;
        let data_len = head.data.get() as usize;
        // Before they are believed: they decide how much is allocated.
        if count > MAX_RUNS || data_len > MAX_DATA {
            return Err(self.fault(corrupted));
        }
        let mut runs = vec![Run::new_zeroed(); count];
        self.fill(runs.as_mut_bytes())?;
        let checksum = format::checksum_of_head(head.as_bytes(), runs.as_bytes());
        if checksum != head.checksum.get() || !self.are_sound(&runs, data_len) {
            return Err(self.fault(corrupted));
        }
        Ok(Frame {
            at,
            data_len,
            data_checksum: head.data_checksum.get(),
            checksum,
            runs,
        })
    }

    /// Whether the runs ascend, are apart, lie in the regions, and have that much data.
    fn are_sound(&self, runs: &[Run], data_len: usize) -> bool {
        let mut end = 0;
        let mut data = 0;
        let each = runs.iter().all(|run| {
            let start = run.start.get();
            let Some(range) = start
                .checked_add(run.len.get().into())
                .map(|end| start..end)
            else {
                return false;
            };
            let sound = end <= range.start && self.layout.region_of(&range).is_some();
            end = range.end;
            match run.kind.get() {
                format::DATA => data += u64::from(run.len.get()),
                format::ZERO => {}
                _ => return false,
            }
            sound
        });
        each && data == data_len as u64
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        match self.source.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.truncated()),
            Err(error) => Err(SnapshotError::io(Step::Read, &self.path, error)),
        }
    }

    fn seek(&mut self, to: u64) -> Result<(), SnapshotError> {
        // By the distance where it is one: a buffered source need not forget its buffer then.
        let distance = to.wrapping_sub(self.at) as i64;
        let moved = match to >= self.at {
            true => self.source.seek_relative(distance),
            false => self.source.seek(SeekFrom::Start(to)).map(drop),
        };
        moved.map_err(|error| SnapshotError::io(Step::Read, &self.path, error))?;
        self.at = to;
        Ok(())
    }

    fn truncated(&self) -> SnapshotError {
        self.fault(FileFault::Truncated {
            len: self.file_size,
        })
    }

    fn fault(&self, fault: FileFault) -> SnapshotError {
        SnapshotError::file(&self.path, fault)
    }
}

enum Record {
    Frame(Frame),
    End(End),
}
