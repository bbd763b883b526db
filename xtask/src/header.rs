//! `header`: the C header of the feature `capi`, made from the Rust source.

use anyhow::{Context, Result};
use cbindgen::{Builder, Config};

use crate::golden;
use crate::repo::Repo;

#[derive(clap::Args)]
/// Compare include/pugmark.h with what the Rust source says.
///
/// The tests do so too. cbindgen.toml says how the header is made.
pub struct Args {
    /// Rewrite it where it differs
    #[arg(long)]
    bless: bool,
}

/// Where the items of the header are.
const SOURCES: [&str; 2] = ["src/slots/binding.rs", "src/capi.rs"];

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let config = Config::from_file(repo.root.join("cbindgen.toml"));
    let config = config
        .map_err(anyhow::Error::msg)
        .context("cbindgen.toml")?;
    let sources = SOURCES.iter().map(|path| repo.root.join(path));
    let builder = sources.fold(Builder::new().with_config(config), Builder::with_src);
    let mut header = Vec::new();
    builder.generate()?.write(&mut header);
    let lines: Vec<String> = String::from_utf8(header)?.lines().map(Into::into).collect();
    golden::check(&repo.root.join("include/pugmark.h"), &lines, args.bless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_what_the_source_says() -> Result<()> {
        assert!(run(&Repo::find()?, &Args { bless: false })?);
        Ok(())
    }
}
