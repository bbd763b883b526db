//! Golden output: what a program is expected to print, in a file beside it.
//!
//! A golden file is the output as it is, line for line. Where the output varies, from run to run or
//! with the CPU model, a person writes `…` over it: within a line it stands for any text, and alone
//! on a line for any number of lines. `--bless` rewrites the lines that no longer match and keeps
//! the others, with their `…`.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const ANY: &str = "…";

/// One line of the comparison.
#[derive(Debug, PartialEq, Eq)]
enum Edit<'a> {
    /// A golden line that matched (or an `…` line).
    Same(&'a str),
    /// A golden line that the output does not have.
    Missing(&'a str),
    /// A line of output that the golden file does not have.
    Extra(&'a str),
}

/// The comparison of a golden file with an output; shown as a diff.
pub struct Comparison<'a>(Vec<Edit<'a>>);

impl Comparison<'_> {
    pub fn is_same(&self) -> bool {
        self.0.iter().all(|edit| matches!(edit, Edit::Same(_)))
    }

    /// The golden file as it should be, given this output.
    fn blessed(&self) -> String {
        let mut text = String::new();
        for edit in &self.0 {
            if let Edit::Same(line) | Edit::Extra(line) = edit {
                text += line;
                text.push('\n');
            }
        }
        text
    }
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for edit in &self.0 {
            match edit {
                Edit::Same(line) => writeln!(f, "  {line}")?,
                Edit::Missing(line) => writeln!(f, "- {line}")?,
                Edit::Extra(line) => writeln!(f, "+ {line}")?,
            }
        }
        Ok(())
    }
}

/// Compares with the file at `path`, which with `bless` is rewritten where it differs. Prints the
/// difference.
pub fn check(path: &Path, output: &[String], bless: bool) -> Result<bool> {
    let golden = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(_) if bless => String::new(),
        Err(_) => {
            println!("there is no {}; `--bless` writes it", path.display());
            return Ok(false);
        }
    };
    let comparison = compare(&golden, output);
    if comparison.is_same() {
        return Ok(true);
    }
    if bless {
        fs::write(path, comparison.blessed())
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("blessed {}", path.display());
        return Ok(true);
    }
    println!(
        "the output is not the one in {} (- expected, + seen):",
        path.display()
    );
    print!("{comparison}");
    Ok(false)
}

/// Aligns the two with as few differing lines as can be.
fn compare<'a>(golden: &'a str, output: &'a [String]) -> Comparison<'a> {
    let golden: Vec<&str> = golden.lines().map(str::trim_end).collect();
    let output: Vec<&str> = output.iter().map(|line| line.trim_end()).collect();
    let same = |i: usize, j: usize| golden[i] != ANY && line_matches(golden[i], output[j]);

    // cost[i][j]: the number of differing lines in golden[i..] against output[j..].
    let (rows, columns) = (golden.len(), output.len());
    let mut cost = vec![vec![0; columns + 1]; rows + 1];
    for i in (0..=rows).rev() {
        for j in (0..=columns).rev() {
            let missing = |price| (i < rows).then(|| cost[i + 1][j] + price);
            let extra = |price| (j < columns).then(|| cost[i][j + 1] + price);
            let best = if i < rows && golden[i] == ANY {
                missing(0).into_iter().chain(extra(0)).min()
            } else if i < rows && j < columns && same(i, j) {
                Some(cost[i + 1][j + 1])
            } else {
                missing(1).into_iter().chain(extra(1)).min()
            };
            cost[i][j] = best.unwrap_or(0);
        }
    }

    let mut edits = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < rows || j < columns {
        if i < rows && golden[i] == ANY {
            if cost[i + 1][j] == cost[i][j] {
                edits.push(Edit::Same(ANY));
                i += 1;
            } else {
                j += 1;
            }
        } else if i < rows && j < columns && same(i, j) {
            edits.push(Edit::Same(golden[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < rows && cost[i][j] == cost[i + 1][j] + 1 {
            edits.push(Edit::Missing(golden[i]));
            i += 1;
        } else {
            edits.push(Edit::Extra(output[j]));
            j += 1;
        }
    }
    Comparison(edits)
}

/// Whether `line` is `pattern` with some text in place of each `…`.
fn line_matches(pattern: &str, line: &str) -> bool {
    let Some((head, tail)) = pattern.split_once(ANY) else {
        return pattern == line;
    };
    let Some(rest) = line.strip_prefix(head) else {
        return false;
    };
    let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.any(|at| line_matches(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(String::from).collect()
    }

    fn same(golden: &str, output: &str) -> bool {
        compare(golden, &lines(output)).is_same()
    }

    #[test]
    fn plain_lines_match_exactly() {
        assert!(same("one\ntwo\n", "one\ntwo"));
        assert!(!same("one\n", "one\ntwo"));
        assert!(!same("one\ntwo\n", "one"));
        assert!(!same("one\n", "One"));
        assert!(same("trailing blanks\n", "trailing blanks  "));
    }

    #[test]
    fn an_ellipsis_in_a_line_is_any_text() {
        let golden = "lost 0 of … written pages; … faults\n";
        assert!(same(golden, "lost 0 of 12345 written pages; 9 faults"));
        assert!(!same(golden, "lost 1 of 12345 written pages; 9 faults"));
        assert!(!same(
            golden,
            "lost 0 of 12345 written pages; 9 faults; more"
        ));
        assert!(same("a…a\n", "aaéa"));
        assert!(!same("a…a\n", "a"));
    }

    #[test]
    fn an_ellipsis_alone_is_any_number_of_lines() {
        let golden = "first\n…\nlast\n";
        assert!(same(golden, "first\nlast"));
        assert!(same(golden, "first\n1\n2\nlast"));
        assert!(!same(golden, "first\n1\n2"));
        // A line that the pattern skips and that looks like the next golden line.
        assert!(same(golden, "first\nlast\nlast"));
    }

    #[test]
    fn blessing_keeps_the_ellipses_that_still_match() {
        let golden = "title\n…\nlost 0 of … pages\nold\n";
        let output = lines("title\nnoise\nlost 0 of 7 pages\nnew");
        let comparison = compare(golden, &output);
        assert!(!comparison.is_same());
        assert_eq!(comparison.blessed(), "title\n…\nlost 0 of … pages\nnew\n");
        assert_eq!(
            comparison.to_string(),
            "  title\n  …\n  lost 0 of … pages\n- old\n+ new\n"
        );
    }

    #[test]
    fn blessing_without_a_file_takes_the_output() {
        assert_eq!(compare("", &lines("a\nb")).blessed(), "a\nb\n");
    }
}
