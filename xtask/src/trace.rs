//! `trace`: what is in a recorded trace.

#[path = "../../tests/traces/mod.rs"]
mod format;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

pub use format::{Epoch, Record, Trace};

use crate::linux::table::{count, time};
use crate::{BadInput, heatmap};

#[derive(clap::Args)]
/// Show what is in a recorded trace: which pages a guest wrote, epoch by epoch.
///
/// `cargo xtask demo --guest linux --controller fine` records one as target/linux-guest/fine/trace.bin;
/// a few are kept in tests/traces, where README.md describes the format.
pub struct Args {
    file: PathBuf,
    /// Merge epochs until each is at least this long
    #[arg(long, value_name = "MILLISECONDS")]
    merge: Option<u64>,
    /// Write the trace here, as --merge made it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw its heat map here, as a PNG
    #[arg(long, value_name = "FILE")]
    heatmap: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<bool> {
    let mut trace = read(&args.file)?;
    if let Some(milliseconds) = args.merge {
        trace = trace.merged(Duration::from_millis(milliseconds));
    }
    let bytes = trace.write();
    print!("{}", describe(&trace, bytes.len()));
    let write = |file: &PathBuf, contents: &[u8]| {
        let size = contents.len() as u64;
        println!("{}: {} bytes", file.display(), count(size));
        fs::write(file, contents).with_context(|| file.display().to_string())
    };
    if let Some(file) = &args.output {
        write(file, &bytes)?;
    }
    if let Some(file) = &args.heatmap {
        let title = "Pages that Linux wrote, boot to power off";
        write(file, &heatmap::png(&trace, title)?)?;
    }
    Ok(true)
}

fn read(file: &Path) -> Result<Trace> {
    let bad = || BadInput(file.display().to_string());
    let bytes = fs::read(file).with_context(bad)?;
    Trace::read(&bytes).with_context(bad)
}

/// A table of the phases, then how many pages an epoch has.
fn describe(trace: &Trace, size: usize) -> String {
    let phases = trace.phases();
    let all: Vec<&Epoch> = phases
        .iter()
        .flat_map(|(_, epochs)| epochs.clone())
        .collect();
    let mut text = format!(
        "{} pages of {} KiB from {:#x}, {} bytes\n\n",
        count(trace.pages),
        trace.page_size >> 10,
        trace.first_page * trace.page_size,
        count(size as u64),
    );
    text += "                                                    pages an epoch\n\
             phase      epochs     time      pages distinct     runs   median      90 %      max\n";
    for (name, epochs) in phases.iter().filter(|_| phases.len() > 1) {
        text += &line(name, epochs);
    }
    text += &line("all", &all);
    text += "\npages an epoch\n";
    text + &distribution(&all)
}

fn line(name: &str, epochs: &[&Epoch]) -> String {
    let mut sizes: Vec<u64> = epochs.iter().map(|epoch| epoch.pages()).collect();
    sizes.sort_unstable();
    let part = |percent: usize| match sizes.len() {
        0 => 0,
        len => sizes[(len - 1) * percent / 100],
    };
    let duration: Duration = epochs.iter().map(|epoch| epoch.time).sum();
    let pages = epochs.iter().flat_map(|epoch| &epoch.runs);
    let distinct: BTreeSet<u64> = pages.flat_map(Clone::clone).collect();
    let runs: usize = epochs.iter().map(|epoch| epoch.runs.len()).sum();
    format!(
        "{name:8}{:>9}{:>9}{:>11}{:>9}{:>9}{:>9}{:>10}{:>9}\n",
        count(epochs.len() as u64),
        time(duration.as_micros() as u64),
        count(sizes.iter().sum()),
        count(distinct.len() as u64),
        count(runs as u64),
        count(part(50)),
        count(part(90)),
        count(part(100)),
    )
}

/// A bar for each power of two.
fn distribution(epochs: &[&Epoch]) -> String {
    let mut bins = [0usize; u64::BITS as usize + 1];
    for epoch in epochs {
        bins[(u64::BITS - epoch.pages().leading_zeros()) as usize] += 1;
    }
    let most = bins.iter().copied().max().unwrap_or(0).max(1);
    let last = bins.iter().rposition(|bin| *bin > 0);
    let mut text = String::new();
    for (bits, bin) in bins
        .iter()
        .enumerate()
        .take(last.map_or(0, |last| last + 1))
    {
        let range = match bits {
            0 => "none".into(),
            1 => "1".into(),
            _ => format!(
                "{}–{}",
                count(1 << (bits - 1)),
                count(u64::MAX >> (64 - bits))
            ),
        };
        let bar = "█".repeat((bin * 40).div_ceil(most));
        text += &format!("{range:>17} {:>8} {bar}", count(*bin as u64));
        text = text.trim_end().to_owned() + "\n";
    }
    text
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "the range is meant")]
mod tests {
    use super::*;

    fn epoch(millis: u64, pages: u64) -> Record {
        let time = Duration::from_millis(millis);
        let runs = if pages == 0 {
            vec![]
        } else {
            vec![8..8 + pages]
        };
        Record::Epoch(Epoch { time, runs })
    }

    #[test]
    fn a_trace_is_described() {
        let trace = Trace {
            page_size: 4096,
            first_page: 0x5_0000,
            pages: 65_536,
            records: vec![
                Record::Phase("boot".into()),
                epoch(1_000, 0),
                epoch(1_000, 5),
                Record::Phase("dd".into()),
                epoch(20, 4_000),
                epoch(20, 4_001),
            ],
        };
        let expected = "\
65,536 pages of 4 KiB from 0x50000000, 99 bytes

                                                    pages an epoch
phase      epochs     time      pages distinct     runs   median      90 %      max
boot            2    2.0 s          5        5        1        0         0        5
dd              2    40 ms      8,001    4,001        2    4,000     4,000    4,001
all             4    2.0 s      8,006    4,001        3        5     4,000    4,001

pages an epoch
             none        1 ████████████████████
                1        0
              2–3        0
              4–7        1 ████████████████████
             8–15        0
            16–31        0
            32–63        0
           64–127        0
          128–255        0
          256–511        0
        512–1,023        0
      1,024–2,047        0
      2,048–4,095        2 ████████████████████████████████████████
";
        let text = describe(&trace, 99);
        assert_eq!(text, expected, "{text}");
        let empty = Trace {
            records: vec![],
            ..trace
        };
        assert!(describe(&empty, 18).contains("all             0"));
    }

    #[test]
    fn what_is_not_a_trace_is_refused_in_one_sentence() {
        let error = read(Path::new(file!())).expect_err("refused");
        assert!(error.is::<BadInput>());
        let error = read(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("Cargo.toml")
                .as_path(),
        );
        let text = format!("{:#}", error.expect_err("refused"));
        assert!(text.ends_with("Cargo.toml: not a trace: at byte 0, `pugtrace1` is not there"));
    }

    /// The ones that are kept are small, and can be read.
    #[test]
    fn the_kept_traces_are_sound() -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces");
        let mut size = 0;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "bin") {
                size += fs::metadata(&path)?.len();
                let trace = read(&path)?;
                assert!(!trace.phases().is_empty(), "{}", path.display());
            }
        }
        assert!(size <= 2 << 20, "{size} bytes of traces");
        Ok(())
    }
}
