//! What was measured, for a person: a line for each comparison, in the terminal and as Markdown.

use std::fmt::Write;

use console::style;

use super::Report;
use super::report::{Other, Outcome};

/// What the ratios say.
const READING: &str = "\
To a limit: how many times as long pugmark takes. To a peer: how many times as long the peer takes.
Beside each median the middle half of the rounds; times are medians, for one unit of the work.";

const TITLES: [&str; COLUMNS] = ["", "who", "time", "ratio", "middle half", "goal", ""];
const COLUMNS: usize = 7;
/// The one that says whether the goal is met.
const VERDICT: usize = 6;

type Line = [String; COLUMNS];

/// The table, then what is to be said of it. Goals that are met are green, and those missed red.
pub fn terminal(rows: &[Outcome]) -> String {
    let titles = TITLES.map(String::from);
    let all: Vec<Line> = rows.iter().flat_map(lines).collect();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        let all = all.iter().chain([&titles]);
        let widths = all.map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    });
    let write = |text: &mut String, line: &Line| {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            let padded = match is_right(column) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            };
            match cell.as_str() {
                MET => style(padded).green().to_string(),
                MISSED => style(padded).red().bold().to_string(),
                _ => padded,
            }
        });
        let cells: Vec<String> = cells.collect();
        *text += "  ";
        *text += cells.join("  ").trim_end();
        text.push('\n');
    };
    let mut text = String::new();
    write(&mut text, &titles);
    for outcome in rows {
        let Outcome { work, row, .. } = outcome;
        let _ = writeln!(text, "{}  ({row})", style(work).bold());
        lines(outcome)
            .iter()
            .for_each(|line| write(&mut text, line));
        if let Some(note) = note(outcome) {
            let _ = writeln!(text, "  {}", style(note).red());
        }
    }
    format!("{text}\n{READING}\n{}\n", verdict(rows))
}

/// When and on what it was measured.
pub fn measured(report: &Report) -> String {
    let quick = if report.quick { " (--quick)" } else { "" };
    let Report {
        date, cpu, rust, ..
    } = report;
    format!("{date}, {cpu}, {rust}{quick}")
}

/// All of it, with the `pictures`: names of files beside it.
pub fn markdown(report: &Report, pictures: &[String]) -> String {
    let rows = &report.rows;
    let mut text = format!(
        "# What pugmark costs\n\nMeasured {}, by `cargo xtask bench`.\n\n",
        measured(report)
    );
    text += &short(rows);
    for (picture, file) in report.pictures.iter().zip(pictures) {
        let _ = write!(text, "\n![{}]({file})\n", picture.title);
    }
    let _ = write!(text, "\n## Everything\n\n{READING}\n\n");
    row(
        &mut text,
        &[
            "work",
            "",
            "who",
            "time",
            "ratio",
            "middle half",
            "goal",
            "",
        ]
        .map(String::from),
    );
    row(
        &mut text,
        &["---", "---", "---", "--:", "--:", "---", "---", "---"].map(String::from),
    );
    for outcome in rows {
        for (number, line) in lines(outcome).into_iter().enumerate() {
            let work = format!("{} (`{}`)", outcome.work, outcome.row);
            let mut cells = vec![if number == 0 { work } else { String::new() }];
            cells.extend(line);
            bold_if_missed(&mut cells[VERDICT + 1]);
            row(&mut text, &cells);
        }
    }
    text.push('\n');
    for outcome in rows {
        if let Some(note) = note(outcome) {
            let _ = writeln!(text, "- `{}`: {note}", outcome.row);
        }
    }
    let end = if text.ends_with("\n\n") { "" } else { "\n" };
    text + &format!("{end}{}\n", verdict(rows))
}

/// A line for each row: for a README.
fn short(rows: &[Outcome]) -> String {
    let mut text = String::new();
    row(
        &mut text,
        &["work", "limit", "pugmark", "ratio", "next best", "goal", ""].map(String::from),
    );
    row(
        &mut text,
        &["---", "--:", "--:", "--:", "---", "---", "---"].map(String::from),
    );
    for outcome in rows.iter().filter(|outcome| outcome.skipped.is_none()) {
        let limit = outcome.limit.as_ref();
        let mut peers: Vec<&Other> = outcome.peers.iter().collect();
        peers.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
        let mut verdict = verdict_of(outcome.met);
        bold_if_missed(&mut verdict);
        row(
            &mut text,
            &[
                outcome.work.clone(),
                limit.map_or_else(String::new, |limit| {
                    format!("{}, {}", limit.name, time(limit.time))
                }),
                time(outcome.us),
                limit.map_or_else(String::new, |limit| format!("{}×", number_of(limit.ratio))),
                peers.first().map_or_else(String::new, |peer| {
                    format!("{}, {}×", peer.name, number_of(peer.ratio))
                }),
                goals(outcome),
                verdict,
            ],
        );
    }
    text
}

/// Goals that are the same for several peers are told once.
fn goals(outcome: &Outcome) -> String {
    let limit = outcome.limit.as_ref().and_then(|limit| limit.goal);
    let mut goals: Vec<String> = limit.iter().map(|goal| format!("≤ {goal}×")).collect();
    let mut peers: Vec<(f64, Vec<&str>)> = Vec::new();
    for peer in &outcome.peers {
        let Some(goal) = peer.goal else { continue };
        match peers.iter_mut().find(|(other, _)| *other == goal) {
            Some((_, names)) => names.push(&peer.name),
            None => peers.push((goal, vec![&peer.name])),
        }
    }
    let told =
        |(goal, names): &(f64, Vec<&str>)| format!("≥ {goal}× faster than {}", names.join(", "));
    goals.extend(peers.iter().map(told));
    goals.join("; ")
}

/// A line of a Markdown table.
fn row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn bold_if_missed(verdict: &mut String) {
    if verdict == MISSED {
        *verdict = format!("**{MISSED}**");
    }
}

const MET: &str = "met";
const MISSED: &str = "MISSED";

fn verdict_of(met: Option<bool>) -> String {
    match met {
        Some(true) => MET.into(),
        Some(false) => MISSED.into(),
        None => String::new(),
    }
}

/// Numbers are right-aligned.
fn is_right(column: usize) -> bool {
    matches!(TITLES[column], "ratio" | "time")
}

/// The limit, pugmark, and each peer.
fn lines(outcome: &Outcome) -> Vec<Line> {
    if outcome.skipped.is_some() {
        return Vec::new();
    }
    let limit = outcome.limit.iter().map(|limit| line("limit", "≤", limit));
    let mut us = Line::default();
    us[0] = "us".into();
    us[1] = "pugmark".into();
    us[2] = time(outcome.us);
    let peers = outcome.peers.iter().map(|peer| line("peer", "≥", peer));
    limit.chain([us]).chain(peers).collect()
}

fn line(role: &str, sign: &str, other: &Other) -> Line {
    let [low, high] = other.quartiles;
    let goal = other.goal.map(|goal| format!("{sign} {goal}"));
    [
        role.into(),
        other.name.clone(),
        time(other.time),
        format!("{}×", number_of(other.ratio)),
        format!("{}–{}", number_of(low), number_of(high)),
        goal.unwrap_or_default(),
        verdict_of(other.met),
    ]
}

/// Why a goal is missed, where it is known, or why nothing was measured.
fn note(outcome: &Outcome) -> Option<String> {
    if let Some(reason) = &outcome.skipped {
        return Some(format!("skipped: {reason}"));
    }
    let note = outcome.note.clone()?;
    (outcome.met == Some(false)).then_some(note)
}

fn verdict(rows: &[Outcome]) -> String {
    let others = rows
        .iter()
        .flat_map(|row| row.limit.iter().chain(&row.peers));
    let verdicts: Vec<bool> = others.filter_map(|other| other.met).collect();
    let met = verdicts.iter().filter(|met| **met).count();
    format!("{met} of {} goals met", verdicts.len())
}

/// Three digits, and not fewer than are before the point.
pub fn number_of(number: f64) -> String {
    match number {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// The unit that leaves the fewest digits.
pub fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        1e6.. => format!("{} ms", number_of(nanoseconds / 1e6)),
        1e3.. => format!("{} µs", number_of(nanoseconds / 1e3)),
        _ => format!("{} ns", number_of(nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(name: &str, ratio: f64, goal: Option<f64>, met: Option<bool>) -> Other {
        Other {
            name: name.into(),
            time: 1500.0,
            ratio,
            quartiles: [ratio, ratio],
            goal,
            met,
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            row: "slot".into(),
            work: "write a slot".into(),
            unit: "write".into(),
            rounds: 9,
            us: 2.0,
            limit: Some(other("memcpy", 1.5, Some(2.0), Some(true))),
            peers: vec![
                other("cell", 123.4, None, None),
                other("lock", 4.4, Some(5.0), Some(false)),
            ],
            ratio: Some(1.5),
            goal: Some("≤ 2× memcpy; ≥ 5× faster than lock".into()),
            met: Some(false),
            note: Some("the reason".into()),
            skipped: None,
        }
    }

    fn skipped() -> Outcome {
        Outcome {
            limit: None,
            peers: Vec::new(),
            met: None,
            skipped: Some("no such kernel".into()),
            ..outcome()
        }
    }

    #[test]
    fn a_line_for_each_who_does_it() {
        console::set_colors_enabled(false);
        let text = terminal(&[outcome()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..7],
            [
                "         who         time  ratio  middle half  goal",
                "write a slot  (slot)",
                "  limit  memcpy   1.50 µs  1.50×  1.50–1.50    ≤ 2   met",
                "  us     pugmark  2.00 ns",
                "  peer   cell     1.50 µs   123×  123–123",
                "  peer   lock     1.50 µs  4.40×  4.40–4.40    ≥ 5   MISSED",
                "  the reason",
            ]
        );
        assert!(text.ends_with("\n1 of 2 goals met\n"));
    }

    #[test]
    fn a_skipped_row_says_why() {
        console::set_colors_enabled(false);
        let text = terminal(&[skipped()]);
        let mut lines = text.lines().skip(1);
        assert_eq!(lines.next(), Some("write a slot  (slot)"));
        assert_eq!(lines.next(), Some("  skipped: no such kernel"));
        assert!(text.ends_with("\n0 of 0 goals met\n"));
    }

    #[test]
    fn markdown_has_as_many_cells_in_each_line() {
        let report = Report {
            date: "2025-01-01".into(),
            cpu: "a CPU".into(),
            rust: "rustc".into(),
            quick: true,
            rows: vec![outcome(), skipped()],
            pictures: Vec::new(),
        };
        let text = markdown(&report, &[]);
        let (short, long) = text.split_once("## Everything").expect("two tables");
        for (table, lines) in [(short, 3), (long, 6)] {
            let table = table.lines().filter(|line| line.starts_with('|'));
            let bars: Vec<usize> = table.map(|line| line.matches('|').count()).collect();
            assert_eq!(bars, vec![bars[0]; lines]);
        }
        assert!(short.contains("| memcpy, 1.50 µs | 2.00 ns | 1.50× | lock, 4.40× |"));
        assert!(short.contains("| ≤ 2×; ≥ 5× faster than lock | **MISSED** |"));
        assert!(text.contains("| **MISSED** |") && text.contains("(--quick)"));
        assert!(text.contains("- `slot`: the reason\n- `slot`: skipped: no such kernel\n"));
    }
}
