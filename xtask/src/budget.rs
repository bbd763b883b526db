//! A budget: numbers that were recorded, in a file of the repository, and that new ones are held to.
//!
//! Instructions and bytes are the same on every machine as long as the compiler is. So with the
//! compiler of the record a number may move by 2 %, either way: one that falls may be a path that is
//! not taken any more. Another compiler moves them for reasons of its own; then 10 % are allowed, and
//! the output says so. `at_most` is a promise, and holds whatever was recorded.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use console::style;
use serde::{Deserialize, Serialize};

use crate::process::{Counts, ask};
use crate::repo::Repo;

const PERCENT: f64 = 2.0;
const PERCENT_OTHER_COMPILER: f64 = 10.0;

/// A name and its number, as measured now.
pub type Row = (String, u64);

/// A file in benches/budget/.
pub struct Budget {
    path: PathBuf,
    shown: String,
    /// What writes it anew.
    command: &'static str,
    rust: String,
    recorded: BTreeMap<String, Group>,
    bless: bool,
}

/// What one compiler made for one machine.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// `rustc --version`
    rust: String,
    /// The promises.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    at_most: BTreeMap<String, u64>,
    rows: BTreeMap<String, u64>,
}

impl Budget {
    /// Reads benches/budget/`name`.json. With `bless` it is written anew, by [`close`](Self::close).
    pub fn open(repo: &Repo, name: &str, command: &'static str, bless: bool) -> Result<Self> {
        let path = repo.root.join(format!("benches/budget/{name}.json"));
        let shown = repo.shown(&path);
        let text = fs::read_to_string(&path).with_context(|| shown.clone())?;
        let recorded = serde_json::from_str(&text).with_context(|| shown.clone())?;
        let rust = ask("rustc", &["--version"]).context("rustc does not run")?;
        Ok(Self {
            path,
            shown,
            command,
            rust: rust.trim().into(),
            recorded,
            bless,
        })
    }

    /// Shows the rows of a group beside what was recorded, and says which hold.
    pub fn check(&mut self, name: &str, rows: &[Row]) -> Counts {
        let names = rows.iter().map(|(row, _)| row.len());
        let width = names.chain([name.len()]).max().unwrap_or(0) + 2;
        if self.bless {
            let group = self.recorded.entry(name.into()).or_default();
            group.rust.clone_from(&self.rust);
            group.rows = rows.iter().cloned().collect();
        }
        let Some(group) = self.recorded.get(name) else {
            println!("\n{name} (nothing is recorded for it, so nothing is held)");
            rows.iter()
                .for_each(|(row, now)| println!("  {row:width$}{now:>10}"));
            return Counts::default();
        };
        let same = group.rust == self.rust;
        println!(
            "\n{name:0$}{1:>10}{2:>10}{3:>9}",
            width + 2,
            "now",
            "recorded",
            "at most"
        );
        let mut counts = Counts::default();
        for (row, now) in rows {
            let recorded = group.rows.get(row).copied();
            let at_most = group.at_most.get(row).copied();
            let verdict = verdict(*now, recorded, at_most, same);
            let shown = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
            println!(
                "  {row:width$}{now:>10}{:>10}{:>9}  {}",
                shown(recorded),
                shown(at_most),
                match &verdict {
                    Verdict::Holds(note) => style(note).dim(),
                    Verdict::Fails(why) => style(why).red(),
                }
            );
            counts += Counts::one(matches!(verdict, Verdict::Holds(_)));
        }
        for row in group.rows.keys() {
            if !rows.iter().any(|(name, _)| name == row) {
                println!(
                    "  {row:width$}{:>10}  {}",
                    "-",
                    style("is not measured any more").red()
                );
                counts += Counts::one(false);
            }
        }
        if !same {
            println!(
                "  recorded with {}, and this is {}: {PERCENT_OTHER_COMPILER} % are allowed",
                group.rust, self.rust
            );
        }
        counts
    }

    /// Writes what was blessed, or says how to bless what failed.
    pub fn close(self, counts: Counts) -> Result<()> {
        if self.bless {
            let text = serde_json::to_string_pretty(&self.recorded)? + "\n";
            fs::write(&self.path, text).with_context(|| self.shown.clone())?;
            println!("\nwrote {}, with {}", self.shown, self.rust);
        } else if counts.failed > 0 {
            println!(
                "\n{} is missed. If the change is meant, record it: {} --bless",
                self.shown, self.command
            );
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Holds(String),
    Fails(String),
}

fn verdict(now: u64, recorded: Option<u64>, at_most: Option<u64>, same_compiler: bool) -> Verdict {
    if let Some(most) = at_most
        && now > most
    {
        return Verdict::Fails(format!("more than {most}"));
    }
    let Some(recorded) = recorded else {
        return Verdict::Fails("is not recorded".into());
    };
    let allowed = match same_compiler {
        true => PERCENT,
        false => PERCENT_OTHER_COMPILER,
    };
    let percent = (now as f64 - recorded as f64) / recorded as f64 * 100.0;
    match now == recorded {
        true => Verdict::Holds(String::new()),
        false if percent.abs() <= allowed => Verdict::Holds(format!("{percent:+.1} %")),
        false => Verdict::Fails(format!("{percent:+.1} %")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(now: u64, recorded: u64, at_most: Option<u64>, same_compiler: bool) -> bool {
        let verdict = verdict(now, Some(recorded), at_most, same_compiler);
        matches!(verdict, Verdict::Holds(_))
    }

    #[test]
    fn two_percent_either_way_are_held() {
        assert!(holds(1000, 1000, None, true));
        assert!(holds(1020, 1000, None, true) && holds(980, 1000, None, true));
        assert!(!holds(1021, 1000, None, true) && !holds(979, 1000, None, true));
        assert!(!holds(31, 30, None, true));
    }

    #[test]
    fn another_compiler_is_given_ten() {
        assert!(holds(1100, 1000, None, false) && holds(900, 1000, None, false));
        assert!(!holds(1101, 1000, None, false));
    }

    #[test]
    fn nothing_is_allowed_above_a_promise() {
        assert!(holds(150, 150, Some(150), true));
        assert!(!holds(151, 151, Some(150), true));
        assert!(!holds(151, 150, Some(150), false));
    }

    #[test]
    fn zero_stays_zero() {
        assert!(holds(0, 0, None, true));
        assert!(!holds(1, 0, None, false));
        assert!(!holds(0, 1, None, false));
    }

    #[test]
    fn what_is_new_must_be_recorded() {
        assert!(matches!(verdict(1, None, None, true), Verdict::Fails(_)));
    }
}
