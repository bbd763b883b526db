//! `wasm`: builds the module with threads, and runs it in Node.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::process::{Counts, capture_with_progress};
use crate::repo::Repo;
use crate::setup;

#[derive(clap::Args)]
/// Build tests/wasm for WebAssembly with threads, and run its test in Node.
///
/// A worker writes slots in shared memory by plain addresses, through the module and in JavaScript
/// alone, while the main thread descends. The build needs nightly: only it can build the core library
/// with atomics.
pub struct Args {}

pub fn run(repo: &Repo, _: &Args) -> Result<bool> {
    setup::ensure(&setup::Needs {
        toolchains: vec![setup::nightly(vec!["rust-src"])],
        ..Default::default()
    })?;
    setup::ensure_node()?;

    let folder = repo.root.join("tests/wasm");
    let mut cargo = repo.cargo("+nightly build --release");
    // Its .cargo/config.toml says the rest, where no variable says otherwise.
    cargo.current_dir(&folder).env_remove("RUSTFLAGS");
    ensure!(cargo.status()?.success(), "tests/wasm does not build");

    let output = repo.target_dir.join("wasm32-unknown-unknown/release");
    let mut node = Command::new("node");
    node.arg(folder.join("test.mjs"));
    node.arg(output.join("pugmark_wasm.wasm"));
    let output = capture_with_progress(&mut node)?;
    output.lines.iter().for_each(|line| println!("{line}"));
    Ok(output.success() && Counts::of(&output).failed == 0)
}
