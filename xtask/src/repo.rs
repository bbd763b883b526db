//! Where things are: the repository, its build directory, this program.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

pub struct Repo {
    pub root: PathBuf,
    /// Cargo's build directory, which also takes our logs.
    pub target_dir: PathBuf,
    /// This program. Asked for at the start, because a build may replace the file later.
    xtask: PathBuf,
}

impl Repo {
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent folder")?
            .to_path_buf();
        let target_dir = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => env::current_dir()?.join(dir),
            None => root.join("target"),
        };
        let xtask = env::current_exe()?;
        Ok(Self {
            root,
            target_dir,
            xtask,
        })
    }

    /// `cargo ARGS` at the root; arguments are separated by spaces.
    pub fn cargo(&self, args: &str) -> Command {
        let mut command = Command::new("cargo");
        command.args(args.split_whitespace());
        command.current_dir(&self.root);
        command.env("CARGO_TARGET_DIR", &self.target_dir);
        command
    }

    /// `cargo xtask ARGS`, without asking cargo whether xtask itself is up to date.
    pub fn xtask(&self, args: &str) -> Command {
        let mut command = Command::new(&self.xtask);
        command.args(args.split_whitespace());
        command.current_dir(&self.root);
        command
    }

    /// A path as short as a person at the root would write it.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// The bare-metal program of that name: an example or a test.
    pub fn program<'a>(&self, name: &'a str) -> Result<Program<'a>> {
        for (kind, folder) in [(Kind::Example, "examples"), (Kind::Test, "tests")] {
            let folder = self.root.join(folder);
            let own = folder.join(name);
            let beside = if own.join("main.rs").is_file() {
                own
            } else if folder.join(format!("{name}.rs")).is_file() {
                folder
            } else {
                continue;
            };
            let golden = beside.join(format!("{name}.out"));
            return Ok(Program { name, kind, golden });
        }
        anyhow::bail!("there is no program `{name}` in examples/ or tests/")
    }
}

pub struct Program<'a> {
    pub name: &'a str,
    pub kind: Kind,
    /// Its golden output, beside its main file: one for all CPU models.
    pub golden: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Example,
    Test,
}

impl Kind {
    /// How cargo's command line selects a target of this kind.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Example => "--example",
            Self::Test => "--test",
        }
    }
}
