//! What is told in several places must not drift apart: the features, their pages and the rows
//! that check them; the README's commands and what CI runs; the oldest Rust.
#![cfg(not(any(target_os = "none", miri, loom)))]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a cargo command prints.
fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(root())
        .output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "cargo {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// This package, as cargo describes it.
fn package() -> Value {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours = packages
        .iter()
        .find(|package| package["name"] == env!("CARGO_PKG_NAME"));
    ours.expect("our package").clone()
}

#[test]
fn features_are_the_pages_and_the_names_in_the_matrix() {
    let package = package();
    let features = package["features"].as_object().expect("features");
    let features: BTreeSet<String> = features.keys().cloned().collect();

    let files = fs::read_dir(root().join("features")).expect("features/");
    let pages: BTreeSet<String> = files
        .map(|file| {
            file.expect("features/")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter_map(|name| name.strip_suffix(".md").map(String::from))
        .collect();
    assert_eq!(features, pages, "[features] and features/*.md");

    let matrix: Value = serde_json::from_str(&read("features/matrix.json")).expect("matrix.json");
    let rows = matrix["rows"].as_array().expect("rows");
    let names: BTreeSet<String> = rows
        .iter()
        .flat_map(|row| row["features"].as_array().expect("features"))
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(features, names, "[features] and features/matrix.json");
}

#[test]
fn the_readme_shows_the_commands_that_ci_runs() {
    let commands_in = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().map(str::trim_start);
        let lines = lines.map(|line| line.trim_start_matches("$ ").trim_start_matches("exec "));
        let commands = lines.filter(|line| line.starts_with("cargo xtask "));
        commands.map(|line| line.trim_end().to_owned()).collect()
    };
    let readme = commands_in(&read("README.md"));
    let ci = commands_in(&read(".ci/run"));
    assert_eq!(ci.len(), 1, "CI runs one command: {ci:?}");
    assert!(ci.is_subset(&readme), "the README does not show {ci:?}");

    // That one command runs the others as its steps, perhaps with more options.
    let steps = commands_in(&cargo(&["xtask", "test", "--list"]));
    for command in readme.difference(&ci) {
        let is_run = steps.iter().any(|step| step.starts_with(command));
        assert!(is_run, "CI does not run `{command}`");
    }
}

#[test]
fn the_oldest_rust_is_named_in_one_place() {
    let package = package();
    let oldest = package["rust_version"].as_str().expect("rust-version");
    let is_part_of_a_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut files: Vec<PathBuf> = [
        ".ci", ".cargo", "examples", "features", "src", "tests", "xtask",
    ]
    .iter()
    .flat_map(|folder| files_below(&root().join(folder)))
    .collect();
    files.push(root().join("README.md"));
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let named = text
            .split(|c: char| !is_part_of_a_number(c))
            .any(|word| word == oldest);
        assert!(
            !named,
            "{} names {oldest}; only Cargo.toml should",
            file.display()
        );
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
