//! What the hypervisor reports: a file that it appends to, one JSON object a line.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The work between two checkpoints.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Phase {
    pub name: String,
    /// In milliseconds of the guest's time.
    pub ms: u64,
    /// Pages that differ from the copy of the checkpoint before.
    pub written: u64,
    /// Pages that were in a harvest.
    pub reported: u64,
    /// Written and not reported.
    pub lost: u64,
    /// Reported and not written.
    pub over: u64,
    pub faults: u64,
    pub harvests: u64,
    pub harvest_pages_median: u64,
    pub harvest_pages_max: u64,
    /// The time that the vCPUs spent at EL2, in microseconds.
    pub el2_us: u64,
    #[serde(default)]
    pub step_downs: u64,
}

/// One round of the migration: what it copied while the guest ran.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Round {
    pub pages: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Migration {
    /// How long the guest stood still, in microseconds of its time.
    pub pause_us: u64,
    /// Pages that are not the same in both memories at the end.
    pub differing: u64,
}

#[derive(Debug, PartialEq)]
pub enum Event {
    Start {
        vcpus: u64,
    },
    Phase(Phase),
    Round(Round),
    Migration(Migration),
    /// How the guest ended.
    End(String),
    /// The hypervisor cannot go on.
    Error(String),
    /// Anything else that a person may want to see.
    Note(String),
}

impl Event {
    fn parse(line: &str) -> Result<Self> {
        let object: Map<String, Value> = serde_json::from_str(line)?;
        let mut entries = object.into_iter();
        let (Some((kind, value)), None) = (entries.next(), entries.next()) else {
            anyhow::bail!("it is not an object with one entry");
        };
        Ok(match kind.as_str() {
            "start" => Self::Start {
                vcpus: field(value, "vcpus")?,
            },
            "phase" => Self::Phase(typed(value)?),
            "migration_round" => Self::Round(typed(value)?),
            "migration" => Self::Migration(typed(value)?),
            "end" => Self::End(field(value, "reason")?),
            "error" => Self::Error(field(value, "message")?),
            _ => Self::Note(format!("{}: {value}", kind.replace('_', " "))),
        })
    }
}

fn field<T: DeserializeOwned>(mut value: Value, name: &str) -> Result<T> {
    let field = value.get_mut(name).map(Value::take).unwrap_or_default();
    typed(field).with_context(|| format!("`{name}`"))
}

/// serde_json does not say which number did not fit (with `arbitrary_precision`, which defmt-decoder
/// turns on): the text does.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    let text = value.to_string();
    serde_json::from_value(value).context(text)
}

/// All that one run reported.
#[derive(Debug, Default)]
pub struct Report {
    pub phases: Vec<Phase>,
    pub rounds: Vec<Round>,
    pub migration: Option<Migration>,
    pub end: Option<String>,
    pub error: Option<String>,
}

impl Report {
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Phase(phase) => self.phases.push(phase.clone()),
            Event::Round(round) => self.rounds.push(round.clone()),
            Event::Migration(migration) => self.migration = Some(migration.clone()),
            Event::End(reason) => self.end = Some(reason.clone()),
            Event::Error(message) => self.error = Some(message.clone()),
            Event::Start { .. } | Event::Note(_) => {}
        }
    }

    /// All phases together.
    pub fn sum(&self) -> Phase {
        let mut sum = Phase {
            name: "all".into(),
            ..Phase::default()
        };
        for phase in &self.phases {
            sum.ms += phase.ms;
            sum.written += phase.written;
            sum.reported += phase.reported;
            sum.lost += phase.lost;
            sum.over += phase.over;
            sum.faults += phase.faults;
            sum.harvests += phase.harvests;
            // The median of all harvests cannot be had from those of the phases.
            sum.harvest_pages_max = sum.harvest_pages_max.max(phase.harvest_pages_max);
            sum.el2_us += phase.el2_us;
            sum.step_downs += phase.step_downs;
        }
        sum
    }
}

/// The file, while it grows.
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// The line that is not whole yet.
    rest: Vec<u8>,
    lines: usize,
}

impl Tail {
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            file: None,
            rest: Vec::new(),
            lines: 0,
        }
    }

    /// What has come since the last time. A file that is not there has nothing yet.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        file.read_to_end(&mut self.rest)
            .with_context(|| self.path.display().to_string())?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n');
        let whole: Vec<u8> = self.rest.drain(..whole.map_or(0, |at| at + 1)).collect();
        let text = String::from_utf8_lossy(&whole);
        let mut events = Vec::new();
        for line in text.lines() {
            self.lines += 1;
            let event = Event::parse(line);
            let place = || format!("{}, line {}", self.path.display(), self.lines);
            events.push(event.with_context(place)?);
        }
        Ok(events)
    }

    /// The same at the end: then each line must be whole.
    pub fn last_events(&mut self) -> Result<Vec<Event>> {
        let events = self.events()?;
        ensure!(
            self.rest.is_empty(),
            "{} ends within a line",
            self.path.display()
        );
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const DD: &str = r#"{"phase":{"name":"dd","ms":10700,"written":25844,"reported":30000,"lost":0,"over":4156,"faults":812,"retries":3,"harvests":640,"harvest_pages_median":12,"harvest_pages_max":4096,"el2_us":51234,"step_downs":3}}"#;

    fn parse(line: &str) -> Event {
        Event::parse(line).expect("an event")
    }

    #[test]
    fn each_kind_of_line_is_read() {
        let start = r#"{"start":{"controller":"on","base":1342177280,"pages":65536,"vcpus":2}}"#;
        assert_eq!(parse(start), Event::Start { vcpus: 2 });
        let Event::Phase(dd) = parse(DD) else {
            panic!("{DD}")
        };
        assert_eq!((dd.name.as_str(), dd.written, dd.over), ("dd", 25844, 4156));
        assert_eq!((dd.harvest_pages_max, dd.step_downs), (4096, 3));
        let round = r#"{"migration_round":{"round":1,"pages":65536}}"#;
        assert_eq!(parse(round), Event::Round(Round { pages: 65536 }));
        assert_eq!(
            parse(r#"{"migration":{"rounds":7,"pause_us":1234,"differing":0}}"#),
            Event::Migration(Migration {
                pause_us: 1234,
                differing: 0
            })
        );
        assert_eq!(
            parse(r#"{"end":{"reason":"power off","written":1}}"#),
            Event::End("power off".into())
        );
        assert_eq!(
            parse(r#"{"error":{"message":"no"}}"#),
            Event::Error("no".into())
        );
        assert_eq!(
            parse(r#"{"unknown_psci":{"function":9}}"#),
            Event::Note(r#"unknown psci: {"function":9}"#.into())
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["", "{", "3", "{}", r#"{"end":{},"error":{}}"#] {
            assert!(Event::parse(line).is_err(), "{line}");
        }
        let complaint = |line| format!("{:#}", Event::parse(line).expect_err("refused"));
        assert!(complaint(r#"{"end":{}}"#).contains("reason"));
        assert!(complaint(r#"{"phase":{"name":"dd"}}"#).contains("missing field `ms`"));
        assert!(complaint(&DD.replace("812", "-812")).contains("-812"));
    }

    #[test]
    fn phases_are_summed() {
        let mut report = Report::default();
        let dd = parse(DD);
        report.add(&dd);
        report.add(&dd);
        report.add(&Event::Note("nothing".into()));
        let sum = report.sum();
        assert_eq!((sum.written, sum.reported, sum.over), (51688, 60000, 8312));
        assert_eq!((sum.faults, sum.harvest_pages_max), (1624, 4096));
    }

    #[test]
    fn lines_are_read_as_they_come() {
        let path = std::env::temp_dir().join(format!("pugmark-tail-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let mut tail = Tail::new(&path);
        let mut count = |end: bool| {
            let events = if end {
                tail.last_events()
            } else {
                tail.events()
            };
            events.map(|events| events.len())
        };
        assert_eq!(count(false).ok(), Some(0), "no file");
        let mut file = File::create(&path).expect("the file");
        let mut add = |text: &str| file.write_all(text.as_bytes()).expect("written");
        add(&format!("{DD}\n{DD}\n{}", &DD[..40]));
        assert_eq!(count(false).ok(), Some(2));
        assert!(count(true).is_err(), "a line is not whole");
        add(&DD[40..]);
        assert_eq!(count(false).ok(), Some(0));
        add("\nwhat\n");
        let error = format!("{:#}", count(true).expect_err("refused"));
        assert!(error.contains("line 4"), "{error}");
        let _ = fs::remove_file(&path);
    }
}
