//! `footprint`: what the library weighs, on each bare-metal target with each set of features.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::budget::{Budget, Row};
use crate::elf::{self, Size};
use crate::matrix::{self, Matrix};
use crate::process::{Counts, capture_with_progress, describe};
use crate::repo::Repo;
use crate::{BadInput, qemu, setup};

const PACKAGE: &str = "pugmark-parts";

/// The programs of the package, and what each has of the library.
const PARTS: [(&str, &str); 5] = [
    ("fault", "fault path"),
    ("harvest", "harvest"),
    ("pages", "pages and host"),
    ("slots", "slots"),
    ("least", "a bitmap and a slot"),
];
/// Those with which no panic may be linked.
const WITHOUT_PANIC: [&str; 2] = ["fault", "harvest"];
/// Whose statics are as large as things are in memory.
const SIZES: &str = "sizes";
const SIZE_PREFIX: &str = "SIZE_";
/// A whole program for a microcontroller, which boots.
const FIRMWARE: &str = "footprint";

#[derive(clap::Args)]
/// Weigh the library, and hold it to benches/budget/footprint.json.
///
/// For each bare-metal target of features/matrix.json: how many bytes a page, a block, a slot and
/// their owners take, and how large the code is with each set of features. Each part is a program of
/// benches/parts that links this part alone, as fast as the compiler can make it; its text is code and
/// constants together. The last row is examples/footprint.rs: a whole firmware, start-up included.
///
/// Fails if a number moves by more than 2 % (10 % with another compiler than the recorded one), if a
/// promised size is missed, or if a panic is linked with the fault path or with a harvest.
pub struct Args {
    /// Only this target
    #[arg(long)]
    target: Option<String>,
    /// Record what is found now
    #[arg(long)]
    bless: bool,
}

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let matrix = Matrix::read(repo)?;
    let wanted = |row: &&matrix::Row| {
        let only = args.target.as_deref();
        row.is_bare_metal() && only.is_none_or(|only| only == row.target)
    };
    let rows: Vec<&matrix::Row> = matrix.rows.iter().filter(wanted).collect();
    if rows.is_empty() {
        let sentence = "features/matrix.json has no such bare-metal target";
        return Err(BadInput(sentence.into()).into());
    }
    let targets: BTreeSet<&str> = rows.iter().map(|row| row.target.as_str()).collect();
    setup::ensure(&setup::Needs {
        toolchains: vec![setup::targets(
            targets.iter().map(|target| String::from(*target)),
        )],
        qemu: false,
    })?;
    let mut budget = Budget::open(repo, "footprint", "cargo xtask footprint", args.bless)?;
    let mut counts = Counts::default();
    for target in targets {
        println!("\nbuilding the parts for {target}");
        let mut found = Vec::new();
        let of_target = rows.iter().filter(|row| row.target == target);
        for (index, row) in of_target.enumerate() {
            let folder = build(repo, row)?;
            if index == 0 {
                found.extend(sizes(&folder.join(SIZES))?);
            }
            for (part, what) in PARTS {
                let elf = folder.join(part);
                let text = Size::of(&elf)?.text;
                found.push((format!("text of {what}, {}", row.features()), text));
            }
            for part in WITHOUT_PANIC {
                counts += check_panics(&folder.join(part), &format!("{part}, {}", row.features()))?;
            }
            if row.boots(FIRMWARE) {
                let elf = qemu::build(repo.cargo("build"), &repo.program(FIRMWARE)?, row)?;
                let what = format!("text of examples/{FIRMWARE}.rs, {}", row.features());
                found.push((what, Size::of(&elf)?.text));
            }
        }
        counts += budget.check(target, &found);
    }
    budget.close(counts)?;
    println!("\n{counts}");
    Ok(counts.failed == 0)
}

/// Builds the parts as the row says; the folder that they are in.
fn build(repo: &Repo, row: &matrix::Row) -> Result<std::path::PathBuf> {
    let folder = repo.target_dir.join(PACKAGE);
    let mut cargo = repo.cargo("build --profile bench --package");
    cargo.args([PACKAGE, "--target", &row.target]);
    cargo.arg("--target-dir").arg(&folder);
    cargo.args(row.features_flag());
    for (part, _) in PARTS {
        cargo.args(["--bin", part]);
    }
    cargo.args(["--bin", SIZES]);
    // Without the link arguments that .cargo/config.toml has for programs that boot.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "");
    let output = capture_with_progress(&mut cargo)?;
    ensure!(
        output.success(),
        "`{}`:\n{}",
        describe(&cargo),
        output.lines.join("\n")
    );
    Ok(folder.join(&row.target).join("release"))
}

/// `SIZE_1_block` is as large as a block's state.
fn sizes(elf: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (symbol, size) in elf::symbols(elf)? {
        if let Some(name) = symbol.strip_prefix(SIZE_PREFIX) {
            let (order, name) = name.split_once('_').context("a size without a name")?;
            rows.push((
                order.to_owned(),
                (format!("bytes: {}", name.replace('_', " ")), size),
            ));
        }
    }
    ensure!(!rows.is_empty(), "{} has no {SIZE_PREFIX}…", elf.display());
    rows.sort();
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn check_panics(elf: &Path, what: &str) -> Result<Counts> {
    let symbols = elf::symbols(elf)?;
    ensure!(
        symbols.iter().any(|(name, _)| name == "_start"),
        "{} has no symbols",
        elf.display()
    );
    let panics = symbols.iter().filter(|(name, _)| is_panic(name));
    let panics: Vec<&str> = panics.map(|(name, _)| name.as_str()).collect();
    if !panics.is_empty() {
        println!("a panic is linked with {what}: {}", panics.join(", "));
    }
    Ok(Counts::one(panics.is_empty()))
}

/// Whether only a panic leads to this function: all of them go through `core::panicking`, and that to
/// the program's panic handler.
fn is_panic(symbol: &str) -> bool {
    symbol.contains("9panicking") || symbol.contains("rust_begin_unwind")
}

#[cfg(test)]
mod tests {
    use super::is_panic;

    #[test]
    fn panics_are_known_by_either_mangling() {
        assert!(is_panic(
            "_ZN4core9panicking18panic_bounds_check17h7d9b37094697dfe8E"
        ));
        assert!(is_panic("_RNvNtCsg3SjgaGcPXb_4core9panicking9panic_fmt"));
        assert!(is_panic("_RNvCs8x2_7___rustc17rust_begin_unwind"));
        assert!(!is_panic(
            "_ZN7pugmark5pages7tracker25on_write_fault17h7d9b37094697dfe8E"
        ));
    }
}
