//! Without the feature that it needs: an example cannot turn one on, so cargo is asked once more.

use std::env;
use std::process::{Command, ExitCode};

const EXAMPLE: &str = "pugmark-snap";

pub fn main() -> ExitCode {
    if cfg!(not(target_os = "linux")) {
        eprintln!("{EXAMPLE}: it needs userfaultfd, which Linux has");
        return ExitCode::FAILURE;
    }
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let features = if cfg!(feature = "kvm") {
        "uffd,kvm"
    } else {
        "uffd"
    };
    let words = [
        "run",
        "--profile",
        profile,
        "--example",
        EXAMPLE,
        "--features",
        features,
    ];
    let command = format!("cargo {}", words.join(" "));
    // Cargo tells where it is, and where the package is, if it started this.
    let (Some(cargo), Some(manifest)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_PATH"))
    else {
        eprintln!("{EXAMPLE}: it was built without its feature; {command}");
        return ExitCode::FAILURE;
    };
    eprintln!("{EXAMPLE}: once more with its feature: {command}");
    let status = Command::new(cargo)
        .args(words)
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--")
        .args(env::args_os().skip(1))
        .status();
    match status {
        Ok(status) => status
            .code()
            .map_or(ExitCode::FAILURE, |code| (code as u8).into()),
        Err(error) => {
            eprintln!("{EXAMPLE}: {command}: {error}");
            ExitCode::FAILURE
        }
    }
}
