//! What was measured, for a person: a line for each comparison, in the terminal and as Markdown.

use std::fmt::Write;

use console::style;

use super::Report;
use super::report::{Other, Outcome};

/// What the ratios say.
const READING: &str = "\
To a limit: how many times as long pugmark takes. To a peer: how many times as long the peer takes.
Beside each median the middle half of the rounds; times are medians, for one unit of the work.";

const TITLES: [&str; COLUMNS] = [
    "row",
    "ratio",
    "to",
    "middle half",
    "goal",
    "",
    "time",
    "pugmark",
];
const COLUMNS: usize = 8;
/// The one that says whether the goal is met.
const VERDICT: usize = 5;

type Line = [String; COLUMNS];

/// The table, then what is to be said of it. Goals that are met are green, and those missed red.
pub fn terminal(rows: &[Outcome]) -> String {
    let lines: Vec<Line> = rows.iter().flat_map(lines).collect();
    let titles = TITLES.map(String::from);
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        let all = lines.iter().chain([&titles]);
        let widths = all.map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in [&titles].into_iter().chain(&lines) {
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
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    format!("{text}\n{READING}\n{}{}\n", notes(rows), verdict(rows))
}

/// The same, with where and when it was measured.
pub fn markdown(report: &Report) -> String {
    let mut text = format!(
        "Measured {} on {}, {}{}.\n\n",
        report.date,
        report.cpu,
        report.rust,
        if report.quick { " (`--quick`)" } else { "" },
    );
    let mut row = |cells: &[String]| text += &format!("| {} |\n", cells.join(" | "));
    row(&TITLES.map(String::from));
    row(&std::array::from_fn::<_, COLUMNS, _>(|column| {
        String::from(if is_right(column) { "--:" } else { "---" })
    }));
    for mut line in report.rows.iter().flat_map(lines) {
        if line[VERDICT] == MISSED {
            line[VERDICT] = format!("**{MISSED}**");
        }
        row(&line);
    }
    let _ = write!(text, "\n{READING}\n\n");
    for outcome in &report.rows {
        let _ = writeln!(
            text,
            "- `{}`: {}; times are per {}",
            outcome.row, outcome.work, outcome.unit
        );
    }
    let notes = notes(&report.rows);
    let gap = if notes.is_empty() { "" } else { "\n" };
    text + &format!("\n{notes}{gap}{}\n", verdict(&report.rows))
}

const MET: &str = "met";
const MISSED: &str = "MISSED";

/// Numbers are right-aligned.
fn is_right(column: usize) -> bool {
    matches!(TITLES[column], "ratio" | "time" | "pugmark")
}

/// The row's name is on the first of its lines.
fn lines(outcome: &Outcome) -> Vec<Line> {
    if outcome.skipped.is_some() {
        let mut line = Line::default();
        line[0] = outcome.row.clone();
        line[2] = "skipped".into();
        return vec![line];
    }
    let others = outcome.limit.iter().map(|limit| (limit, "≤"));
    let others = others.chain(outcome.peers.iter().map(|peer| (peer, "≥")));
    let lines = others.enumerate().map(|(number, (other, sign))| {
        let Other {
            ratio,
            quartiles: [low, high],
            ..
        } = other;
        [
            if number == 0 {
                outcome.row.clone()
            } else {
                String::new()
            },
            format!("{}×", number_of(*ratio)),
            other.name.clone(),
            format!("{}–{}", number_of(*low), number_of(*high)),
            other
                .goal
                .map_or_else(String::new, |goal| format!("{sign} {goal}")),
            match other.met {
                Some(true) => MET.into(),
                Some(false) => MISSED.into(),
                None => String::new(),
            },
            time(other.time),
            time(outcome.us),
        ]
    });
    lines.collect()
}

/// Why goals are missed, where it is known, and why rows were skipped.
fn notes(rows: &[Outcome]) -> String {
    let note = |outcome: &Outcome| {
        let row = &outcome.row;
        if let Some(reason) = &outcome.skipped {
            return Some(format!("{row}: skipped: {reason}\n"));
        }
        let note = outcome.note.as_ref()?;
        (outcome.met == Some(false)).then(|| format!("{row}: {note}\n"))
    };
    rows.iter().filter_map(note).collect()
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
fn number_of(number: f64) -> String {
    match number {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// The unit that leaves the fewest digits.
fn time(nanoseconds: f64) -> String {
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
                other("lock", 4.4, Some(5.0), Some(false)),
                other("cell", 123.4, None, None),
            ],
            ratio: Some(1.5),
            goal: Some("≤ 2× memcpy; ≥ 5× faster than lock".into()),
            met: Some(false),
            note: Some("the reason".into()),
            skipped: None,
        }
    }

    #[test]
    fn a_line_for_each_comparison() {
        console::set_colors_enabled(false);
        let text = terminal(&[outcome()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "row   ratio  to      middle half  goal             time  pugmark",
                "slot  1.50×  memcpy  1.50–1.50    ≤ 2   met     1.50 µs  2.00 ns",
                "      4.40×  lock    4.40–4.40    ≥ 5   MISSED  1.50 µs  2.00 ns",
                "       123×  cell    123–123                    1.50 µs  2.00 ns",
            ]
        );
        assert!(text.ends_with("slot: the reason\n1 of 2 goals met\n"));
    }

    #[test]
    fn a_skipped_row_says_why() {
        console::set_colors_enabled(false);
        let skipped = Outcome {
            limit: None,
            peers: Vec::new(),
            met: None,
            skipped: Some("no such kernel".into()),
            ..outcome()
        };
        let text = terminal(&[skipped]);
        assert!(text.lines().nth(1).unwrap().ends_with("skipped"), "{text}");
        assert!(text.ends_with("slot: skipped: no such kernel\n0 of 0 goals met\n"));
    }

    #[test]
    fn markdown_has_as_many_cells_in_each_line() {
        let report = Report {
            date: "2025-01-01".into(),
            cpu: "a CPU".into(),
            rust: "rustc".into(),
            quick: true,
            rows: vec![outcome()],
        };
        let text = markdown(&report);
        let table = text.lines().filter(|line| line.starts_with('|'));
        let bars: Vec<usize> = table.map(|line| line.matches('|').count()).collect();
        assert_eq!(bars, [COLUMNS + 1; 5]);
        assert!(text.contains("| **MISSED** |") && text.contains("(`--quick`)"));
    }
}
