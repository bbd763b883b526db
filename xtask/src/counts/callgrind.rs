//! What callgrind wrote: how often each function was called, and what its calls cost in all.

use anyhow::{Context, Result, ensure};

use crate::budget::Row;

/// How the functions that are rows begin.
const PREFIX: &str = "count_";

/// Ir is instructions. Ge is global bus events: what has a lock prefix, or implies one.
const EVENTS: &str = "events: Ir Ge";

/// The mean cost of a call, of each function whose name begins with [`PREFIX`]; two rows each.
///
/// The file has a record for each place that calls: `fn=` the caller, `cfn=` the callee, `calls=` how
/// often, and in the line after it the position and what the calls cost with all that they called.
/// (Callgrind's manual: *Callgrind Format Specification*.)
pub fn rows(text: &str) -> Result<Vec<Row>> {
    ensure!(
        text.lines().any(|line| line == EVENTS),
        "callgrind did not write `{EVENTS}`"
    );
    let mut costs: Vec<(&str, [u64; 3])> = Vec::new();
    let mut callee = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("cfn=") {
            callee = name;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let cost = lines.next().context("callgrind's file ends early")?;
            let Some(name) = callee.strip_prefix(PREFIX) else {
                continue;
            };
            let added = [first(calls)?, number(cost, 1)?, number(cost, 2)?];
            match costs.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => sum.iter_mut().zip(added).for_each(|(sum, n)| *sum += n),
                None => costs.push((name, added)),
            }
        }
    }
    ensure!(!costs.is_empty(), "callgrind saw no function {PREFIX}…");
    let rows = costs
        .into_iter()
        .flat_map(|(name, [calls, instructions, locked])| {
            let name = name.replace('_', "-");
            let mean = |sum: u64| (sum + calls / 2) / calls;
            let locked_row = (format!("{name}, locked"), mean(locked));
            [(name, mean(instructions)), locked_row]
        });
    Ok(rows.collect())
}

fn first(line: &str) -> Result<u64> {
    number(line, 0).and_then(|calls| {
        ensure!(calls > 0, "callgrind counted no call: `{line}`");
        Ok(calls)
    })
}

/// The number in column `column`; zeros at the end of a line are not written.
fn number(line: &str, column: usize) -> Result<u64> {
    let Some(word) = line.split_whitespace().nth(column) else {
        return Ok(0);
    };
    let number = word.parse();
    number.with_context(|| format!("callgrind's line `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1\nevents: Ir Ge\n\nfn=main\n10 5\ncfn=count_mark_first\n\
        calls=2 40\n10 81 4\ncfn=elsewhere\ncalls=7 1\n10 7000 9\n\
        cfn=count_drain\ncalls=1 50\n11 300\n\nfn=other\ncfn=count_mark_first\ncalls=2 40\n3 79 4\n\
        \nfn=count_mark_first\n40 160 8\n";

    #[test]
    fn calls_are_summed_and_averaged() -> Result<()> {
        let row = |name: &str, n| (String::from(name), n);
        assert_eq!(
            rows(FILE)?,
            [
                row("mark-first", 40),
                row("mark-first, locked", 2),
                row("drain", 300),
                row("drain, locked", 0)
            ]
        );
        Ok(())
    }

    #[test]
    fn what_is_not_such_a_file_is_refused() {
        assert!(rows("").is_err());
        assert!(rows(&FILE.replace("Ir Ge", "Ir")).is_err());
        assert!(rows(&FILE.replace("count_", "")).is_err());
        assert!(rows(&FILE.replace("81 4", "x 4")).is_err());
    }
}
