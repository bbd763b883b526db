//! What the runs found, for a person: one line a phase, and the controllers side by side.

use super::report::{Phase, Report};

/// The title of the lines that [`line`] makes.
pub fn title() -> String {
    let above = "pages a harvest";
    let cells = [
        "phase", "time", "written", "faults", "harvests", "median", "max",
    ];
    let [phase, time, written, faults, harvests, median, max] = cells;
    format!(
        "{above:>64}\n\
         {phase:8}{time:>9}{written:>10}{faults:>11}{harvests:>10}{median:>8}{max:>8}{:>17}{:>17}",
        "over-reported", "at EL2",
    )
}

/// One phase, or the sum of all.
pub fn line(phase: &Phase, vcpus: u64) -> String {
    // The median of a sum is not known, and that of no harvest is none.
    let median = match phase.harvest_pages_median {
        0 if phase.harvest_pages_max > 0 => String::new(),
        median => count(median),
    };
    format!(
        "{:8}{:>9}{:>10}{:>11}{:>10}{median:>8}{:>8}{:>10}{:>7}{:>10}{:>7}",
        phase.name,
        time(phase.ms * 1000),
        count(phase.written),
        count(phase.faults),
        count(phase.harvests),
        count(phase.harvest_pages_max),
        count(phase.over),
        share(phase.over, phase.reported),
        time(phase.el2_us),
        share(phase.el2_us, phase.ms * 1000 * vcpus)
    )
}

/// What over-reported means.
pub const OVER_REPORTED: &str = "\
over-reported: in a harvest, but the same as before. A coarse block reports its 512 pages until it
steps down, and a page may be rewritten with what it held. At EL2: of the time of both vCPUs.";

/// The migration in two lines.
pub fn migration(report: &Report) -> Option<String> {
    let migration = report.migration.as_ref()?;
    let pages: Vec<_> = report
        .rounds
        .iter()
        .map(|round| count(round.pages))
        .collect();
    let same = match migration.differing {
        0 => "both memories are equal".into(),
        pages => format!("{} PAGES DIFFER", count(pages)),
    };
    Some(format!(
        "migration: {} rounds while Linux ran: {} pages\n\
         migration: the guest stood still for {} µs; {same}",
        pages.len(),
        pages.join(" → "),
        count(migration.pause_us),
    ))
}

/// The sums of several runs, side by side. `names` are the controllers.
pub fn side_by_side(runs: &[(&str, Phase, u64)]) -> String {
    let row = |name: &str, cell: &dyn Fn(&Phase, u64) -> String| {
        let cells = runs.iter().map(|(_, sum, vcpus)| cell(sum, *vcpus));
        let cells: String = cells.map(|cell| format!("{cell:>18}")).collect();
        format!("{name:16}{cells}")
    };
    let names = runs.iter().map(|(name, ..)| format!("{name:>18}"));
    [
        format!("{:16}{}", "controller", names.collect::<String>()),
        row("faults", &|sum, _| count(sum.faults)),
        row("step-downs", &|sum, _| count(sum.step_downs)),
        row("over-reported", &|sum, _| {
            format!("{} {:>6}", count(sum.over), share(sum.over, sum.reported))
        }),
        row("time at EL2", &|sum, vcpus| {
            let all = sum.ms * 1000 * vcpus;
            format!("{} {:>6}", time(sum.el2_us), share(sum.el2_us, all))
        }),
    ]
    .join("\n")
}

/// `12,345`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".into(),
        _ => format!("{:.1} %", part as f64 / whole as f64 * 100.0),
    }
}

/// Microseconds, in the unit that fits.
pub fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Migration, Round};
    use super::*;

    fn phase(name: &str) -> Phase {
        Phase {
            name: name.into(),
            ms: 10_700,
            written: 25_844,
            reported: 30_000,
            over: 4_156,
            faults: 812,
            harvests: 640,
            harvest_pages_median: 12,
            harvest_pages_max: 4_096,
            el2_us: 51_234,
            step_downs: 3,
            ..Phase::default()
        }
    }

    #[test]
    fn numbers_are_grouped() {
        let texts = [0, 999, 1_000, 65_536, 1_234_567].map(count);
        assert_eq!(texts, ["0", "999", "1,000", "65,536", "1,234,567"]);
        let texts = [999, 51_234, 10_700_000].map(time);
        assert_eq!(texts, ["999 µs", "51 ms", "10.7 s"]);
        assert_eq!(share(0, 0), "-");
        assert_eq!(share(1, 8), "12.5 %");
    }

    #[test]
    fn a_phase_is_a_line_below_the_title() {
        let table = [title(), line(&phase("dd"), 2), line(&Phase::default(), 2)].join("\n");
        let expected = "                                                 pages a harvest
phase        time   written     faults  harvests  median     max    over-reported           at EL2
dd         10.7 s    25,844        812       640      12   4,096     4,156 13.9 %     51 ms  0.2 %
             0 µs         0          0         0       0       0         0      -      0 µs      -";
        assert_eq!(table, expected);
    }

    #[test]
    fn the_median_of_a_sum_is_left_out() {
        let report = Report {
            phases: vec![phase("dd"), phase("sort")],
            ..Report::default()
        };
        let line = line(&report.sum(), 2);
        assert!(line.contains("1,280           4,096"), "{line}");
    }

    #[test]
    fn controllers_stand_side_by_side() {
        let text = side_by_side(&[("on", phase("all"), 2), ("off", phase("all"), 2)]);
        let expected = "\
controller                      on               off
faults                         812               812
step-downs                       3                 3
over-reported         4,156 13.9 %      4,156 13.9 %
time at EL2           51 ms  0.2 %      51 ms  0.2 %";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_migration_says_whether_it_was_right() {
        let mut report = Report::default();
        assert_eq!(migration(&report), None);
        report.rounds = [65_536, 512].map(|pages| Round { pages }).into();
        report.migration = Some(Migration {
            pause_us: 1_234,
            differing: 0,
        });
        let text = migration(&report).unwrap_or_default();
        let (rounds, pause) = text.split_once('\n').unwrap_or_default();
        assert!(rounds.ends_with("2 rounds while Linux ran: 65,536 → 512 pages"));
        assert!(
            pause.ends_with("1,234 µs; both memories are equal"),
            "{pause}"
        );
        report.migration = Some(Migration {
            pause_us: 1,
            differing: 3,
        });
        assert!(migration(&report).is_some_and(|text| text.contains("3 PAGES DIFFER")));
    }
}
