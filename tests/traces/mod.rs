//! Traces of real guests: which pages were written in each epoch. README.md beside this file
//! describes the format, and how the ones that are kept here were recorded.
//!
//! Whoever evaluates something on them includes this file with `#[path]`.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// What a trace begins with.
pub const MAGIC: &[u8] = b"pugtrace1\n";

const EPOCH: u64 = 0;
const PHASE: u64 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// In bytes.
    pub page_size: u64,
    /// The number of the first page: its address divided by the page size.
    pub first_page: u64,
    /// How many pages the trace is about.
    pub pages: u64,
    pub records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Epoch(Epoch),
    /// A phase of the guest's work begins, and this is its name.
    Phase(String),
}

/// What one harvest found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// Since the epoch before it, or since the recording began.
    pub time: Duration,
    /// Ascending and not empty, counted from the trace's first page.
    pub runs: Vec<Range<u64>>,
}

impl Epoch {
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }
}

/// Why a file is not a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATrace {
    /// The byte at which that was found.
    pub at: usize,
    pub problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    Magic,
    Truncated,
    NumberTooLarge,
    PageSize(u64),
    Pages,
    UnknownRecord(u64),
    EmptyRun,
    /// A run leads past the last page.
    OutsidePages(u64),
    NameNotText,
}

impl std::error::Error for NotATrace {}

impl fmt::Display for NotATrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a trace: at byte {}, ", self.at)?;
        match self.problem {
            Problem::Magic => f.write_str("`pugtrace1` is not there"),
            Problem::Truncated => f.write_str("the file ends within a record"),
            Problem::NumberTooLarge => f.write_str("a number has more than 64 bits"),
            Problem::PageSize(size) => write!(f, "the page size is {size}"),
            Problem::Pages => f.write_str("the pages lead past the end of the address space"),
            Problem::UnknownRecord(kind) => write!(f, "a record is of the unknown kind {kind}"),
            Problem::EmptyRun => f.write_str("a run has no page"),
            Problem::OutsidePages(pages) => write!(f, "a run leads past the {pages} pages"),
            Problem::NameNotText => f.write_str("a phase's name is not text"),
        }
    }
}

impl Trace {
    /// Reads a whole file.
    pub fn read(bytes: &[u8]) -> Result<Self, NotATrace> {
        let mut reader = Reader { bytes, at: 0 };
        if !bytes.starts_with(MAGIC) {
            return Err(reader.error(Problem::Magic));
        }
        reader.at = MAGIC.len();
        let page_size = reader.number()?;
        if !page_size.is_power_of_two() {
            return Err(reader.error(Problem::PageSize(page_size)));
        }
        let [first_page, pages] = [reader.number()?, reader.number()?];
        let end = first_page.checked_add(pages);
        if end.is_none_or(|end| end > u64::MAX / page_size) {
            return Err(reader.error(Problem::Pages));
        }
        let mut records = Vec::new();
        while reader.at < bytes.len() {
            records.push(match reader.number()? {
                EPOCH => Record::Epoch(reader.epoch(pages)?),
                PHASE => Record::Phase(reader.name()?),
                other => return Err(reader.error(Problem::UnknownRecord(other))),
            });
        }
        Ok(Self {
            page_size,
            first_page,
            pages,
            records,
        })
    }

    /// The file that [`Trace::read`] reads.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [self.page_size, self.first_page, self.pages] {
            push(&mut bytes, number);
        }
        for record in &self.records {
            match record {
                Record::Epoch(epoch) => {
                    push(&mut bytes, EPOCH);
                    push(&mut bytes, epoch.time.as_micros() as u64);
                    push(&mut bytes, epoch.runs.len() as u64);
                    let mut end = 0;
                    for run in &epoch.runs {
                        push(&mut bytes, run.start - end);
                        push(&mut bytes, run.end - run.start);
                        end = run.end;
                    }
                }
                Record::Phase(name) => {
                    push(&mut bytes, PHASE);
                    push(&mut bytes, name.len() as u64);
                    bytes.extend(name.as_bytes());
                }
            }
        }
        bytes
    }

    /// The phases with their epochs. The first has no name where the trace begins with an epoch.
    pub fn phases(&self) -> Vec<(&str, Vec<&Epoch>)> {
        let mut phases = Vec::new();
        for record in &self.records {
            match record {
                Record::Phase(name) => phases.push((name.as_str(), Vec::new())),
                Record::Epoch(epoch) => match phases.last_mut() {
                    Some((_, epochs)) => epochs.push(epoch),
                    None => phases.push(("", vec![epoch])),
                },
            }
        }
        phases
    }

    /// The same with fewer epochs: what was written within `time` becomes one. None spans two
    /// phases.
    pub fn merged(&self, time: Duration) -> Self {
        let mut records = Vec::new();
        let mut open: Option<Epoch> = None;
        for record in &self.records {
            match record {
                Record::Epoch(epoch) => {
                    let sum = open.get_or_insert_default();
                    sum.time += epoch.time;
                    sum.runs.extend(epoch.runs.iter().cloned());
                    if sum.time >= time {
                        records.extend(open.take().map(joined));
                    }
                }
                Record::Phase(_) => {
                    records.extend(open.take().map(joined));
                    records.push(record.clone());
                }
            }
        }
        records.extend(open.map(joined));
        Self { records, ..*self }
    }
}

/// The epoch with its runs in order, each page in one of them.
fn joined(mut epoch: Epoch) -> Record {
    epoch.runs.sort_unstable_by_key(|run| run.start);
    epoch.runs.dedup_by(|next, run| {
        let joins = next.start <= run.end;
        if joins {
            run.end = run.end.max(next.end);
        }
        joins
    });
    Record::Epoch(epoch)
}

/// LEB128, unsigned.
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn error(&self, problem: Problem) -> NotATrace {
        let at = self.at;
        NotATrace { at, problem }
    }

    fn number(&mut self) -> Result<u64, NotATrace> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.bytes.get(self.at);
            let byte = *byte.ok_or(self.error(Problem::Truncated))?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            self.at += 1;
            number |= part << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.error(Problem::NumberTooLarge))
    }

    fn epoch(&mut self, pages: u64) -> Result<Epoch, NotATrace> {
        let time = Duration::from_micros(self.number()?);
        // The number is not believed: each run takes room in the file, and then it is there.
        let count = self.number()?;
        let mut runs = Vec::new();
        let mut end = 0u64;
        for _ in 0..count {
            let [gap, len] = [self.number()?, self.number()?];
            if len == 0 {
                return Err(self.error(Problem::EmptyRun));
            }
            let start = end.saturating_add(gap);
            end = start.saturating_add(len);
            if end > pages {
                return Err(self.error(Problem::OutsidePages(pages)));
            }
            runs.push(start..end);
        }
        Ok(Epoch { time, runs })
    }

    fn name(&mut self) -> Result<String, NotATrace> {
        let len = self.number()?;
        let rest = &self.bytes[self.at..];
        let name = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let name = name.ok_or(self.error(Problem::Truncated))?;
        let text = std::str::from_utf8(name);
        let text = text.map_err(|_| self.error(Problem::NameNotText))?;
        self.at += name.len();
        Ok(text.into())
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "the range is meant")]
mod tests {
    use super::*;

    fn epoch(micros: u64, runs: &[Range<u64>]) -> Record {
        Record::Epoch(Epoch {
            time: Duration::from_micros(micros),
            runs: runs.to_vec(),
        })
    }

    fn trace() -> Trace {
        Trace {
            page_size: 4096,
            first_page: 0x5_0000,
            pages: 65_536,
            records: vec![
                Record::Phase("boot".into()),
                epoch(1_500, &[0..1, 300..812]),
                epoch(9_000, &[]),
                Record::Phase("dd".into()),
                epoch(20_000, &[1..3, 5..6, 65_535..65_536]),
                epoch(1, &[2..5]),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Trace::read(&trace().write()), Ok(trace()));
    }

    /// The example of README.md.
    #[test]
    fn the_bytes_are_as_documented() {
        let mut trace = trace();
        trace.records.truncate(2);
        let mut bytes = b"pugtrace1\n".to_vec();
        bytes.extend([0x80, 0x20, 0x80, 0x80, 0x14, 0x80, 0x80, 0x04]);
        bytes.extend(b"\x01\x04boot");
        bytes.extend([0x00, 0xdc, 0x0b, 0x02, 0x00, 0x01, 0xab, 0x02, 0x80, 0x04]);
        assert_eq!(trace.write(), bytes);
    }

    #[test]
    fn a_part_of_a_file_is_refused() {
        let bytes = trace().write();
        // Where a record ends the file may end.
        let mut ends = 0;
        for len in 0..bytes.len() {
            match Trace::read(&bytes[..len]) {
                Ok(_) => ends += 1,
                Err(error) if len < MAGIC.len() => assert_eq!(error.problem, Problem::Magic),
                Err(error) => assert_eq!(error.problem, Problem::Truncated),
            }
        }
        assert_eq!(ends, trace().records.len());
    }

    #[test]
    fn garbage_is_refused_with_the_reason_and_the_place() {
        let read = |rest: &[u8]| {
            let bytes = [MAGIC, &[0x80, 0x20, 0x00, 0x10][..], rest].concat();
            let error = Trace::read(&bytes).expect_err("refused");
            (error.problem, error.at - MAGIC.len() - 4)
        };
        assert_eq!(read(&[7]), (Problem::UnknownRecord(7), 1));
        assert_eq!(read(&[0, 1, 1, 3, 0]), (Problem::EmptyRun, 5));
        assert_eq!(read(&[0, 1, 1, 3, 14]), (Problem::OutsidePages(16), 5));
        assert_eq!(read(&[1, 1, 0xff]), (Problem::NameNotText, 2));
        let too_large = [&[0xff; 9][..], &[2]].concat();
        assert_eq!(read(&too_large), (Problem::NumberTooLarge, 9));
        assert_eq!(read(&[0xff; 12]), (Problem::NumberTooLarge, 9));
        // Numbers that are read but too large for what they say.
        let max = [&[0xff; 9][..], &[1]].concat();
        let runs = [&[0, 1][..], &max, &[1, 1]].concat();
        assert_eq!(read(&runs).0, Problem::Truncated);
        let gap = [&[0, 1, 1][..], &max, &max].concat();
        assert_eq!(read(&gap).0, Problem::OutsidePages(16));
        let name = [&[1][..], &max, b"boot"].concat();
        assert_eq!(read(&name).0, Problem::Truncated);

        let head = |numbers: [u64; 3]| {
            let mut bytes = MAGIC.to_vec();
            numbers.iter().for_each(|number| push(&mut bytes, *number));
            Trace::read(&bytes).map(|trace| trace.pages)
        };
        assert_eq!(head([4096, 0, 9]), Ok(9));
        let problem = |numbers| head(numbers).expect_err("refused").problem;
        assert_eq!(problem([4095, 0, 9]), Problem::PageSize(4095));
        assert_eq!(problem([4096, u64::MAX >> 12, 9]), Problem::Pages);
        assert_eq!(problem([1, u64::MAX, 1]), Problem::Pages);
        let error = Trace::read(b"\x7fELF").expect_err("refused").to_string();
        assert_eq!(error, "not a trace: at byte 0, `pugtrace1` is not there");
    }

    #[test]
    fn phases_have_their_epochs() {
        let trace = trace();
        let phases = trace.phases();
        let counts = phases.iter().map(|(name, epochs)| (*name, epochs.len()));
        assert_eq!(counts.collect::<Vec<_>>(), [("boot", 2), ("dd", 2)]);
    }

    #[test]
    fn merged_epochs_have_each_page_once_and_keep_to_their_phase() {
        let merged = trace().merged(Duration::from_millis(20));
        let expected = [
            Record::Phase("boot".into()),
            epoch(10_500, &[0..1, 300..812]),
            Record::Phase("dd".into()),
            epoch(20_000, &[1..3, 5..6, 65_535..65_536]),
            epoch(1, &[2..5]),
        ];
        assert_eq!(merged.records, expected);
        let merged = trace().merged(Duration::from_secs(1));
        assert_eq!(merged.records[3], epoch(20_001, &[1..6, 65_535..65_536]));
        assert_eq!(Trace::read(&merged.write()), Ok(merged));
    }
}
