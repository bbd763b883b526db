//! Set-up: finds what is missing, says what it will do about it, and does it.

mod apt;

use std::fmt;
use std::process::Command;

use anyhow::Result;

use crate::process::ask;

/// The oldest QEMU that the programs are known to run on.
const OLDEST_QEMU: (u32, u32) = (7, 2);

/// Debian 12's.
const OLDEST_NODE: u32 = 18;

/// Something that is missing and that this program cannot install. One sentence says what to do.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// What a command needs on this machine.
#[derive(Default)]
pub struct Needs {
    pub toolchains: Vec<Toolchain>,
    pub qemu: bool,
}

/// A Rust toolchain with its components and targets.
#[derive(Default)]
pub struct Toolchain {
    /// As rustup names it; `None` is the one in use.
    pub name: Option<&'static str>,
    pub components: Vec<&'static str>,
    pub targets: Vec<String>,
}

/// Installs whatever of `needs` is missing.
pub fn ensure(needs: &Needs) -> Result<()> {
    for toolchain in &needs.toolchains {
        ensure_toolchain(toolchain)?;
    }
    if needs.qemu {
        ensure_qemu()?;
    }
    Ok(())
}

/// A target that only the toolchain in use needs.
pub fn targets(targets: impl IntoIterator<Item = String>) -> Toolchain {
    Toolchain {
        targets: targets.into_iter().collect(),
        ..Toolchain::default()
    }
}

/// Nightly, with these components.
pub fn nightly(components: Vec<&'static str>) -> Toolchain {
    Toolchain {
        name: Some("nightly"),
        components,
        ..Toolchain::default()
    }
}

fn ensure_toolchain(wanted: &Toolchain) -> Result<()> {
    let rustup = |args: &[&str]| {
        let missing = "rustup, which installs Rust targets and toolchains, is not here";
        ask("rustup", args).ok_or_else(|| Missing(missing.into()))
    };
    let mut selected = Vec::new();
    if let Some(name) = wanted.name {
        selected = vec!["--toolchain", name];
        let installed = rustup(&["toolchain", "list"])?;
        if !lists(&installed, name) {
            run(
                "rustup",
                &["toolchain", "install", name, "--profile=minimal"],
            )?;
        }
    }
    let targets: Vec<&str> = wanted.targets.iter().map(String::as_str).collect();
    for (what, wanted) in [("component", &wanted.components), ("target", &targets)] {
        let installed = rustup(&[&[what, "list", "--installed"], &*selected].concat())?;
        let mut missing = wanted.clone();
        missing.retain(|name| !lists(&installed, name));
        if !missing.is_empty() {
            run("rustup", &[&[what, "add"], &*selected, &missing].concat())?;
        }
    }
    Ok(())
}

/// Whether one of rustup's lines names this; toolchains and some components carry the host's
/// triple after their name.
fn lists(lines: &str, name: &str) -> bool {
    const ARCHITECTURES: [&str; 2] = ["-x86_64", "-aarch64"];
    let mut rests = lines.lines().filter_map(|line| line.strip_prefix(name));
    rests.any(|rest| {
        let with_host = ARCHITECTURES.iter().any(|arch| rest.starts_with(arch));
        rest.is_empty() || rest.starts_with(' ') || with_host
    })
}

fn ensure_qemu() -> Result<()> {
    const PROGRAMS: [&str; 2] = ["qemu-system-aarch64", "qemu-system-arm"];
    let present = || {
        PROGRAMS.iter().all(|program| {
            let version = ask(program, &["--version"]);
            version.and_then(|text| qemu_version(&text)) >= Some(OLDEST_QEMU)
        })
    };
    if present() {
        return Ok(());
    }
    let (major, minor) = OLDEST_QEMU;
    println!("set-up: QEMU {major}.{minor} or later for Arm is not here");
    if apt::install("qemu-system-arm", "qemu*")? && present() {
        return Ok(());
    }
    let sentence = format!(
        "QEMU {major}.{minor} or later for Arm is needed: \
         `apt-get install qemu-system-arm` on Debian, \
         `dnf install qemu-system-aarch64 qemu-system-arm` on Fedora, \
         `brew install qemu` with Homebrew"
    );
    Err(Missing(sentence).into())
}

/// Installs Node where it is missing or too old.
pub fn ensure_node() -> Result<()> {
    let present = || {
        let version = ask("node", &["--version"]);
        version.and_then(|text| node_version(&text)) >= Some(OLDEST_NODE)
    };
    if present() {
        return Ok(());
    }
    println!("set-up: Node {OLDEST_NODE} or later is not here");
    if apt::install("nodejs", "nodejs*")? && present() {
        return Ok(());
    }
    let sentence = format!(
        "Node {OLDEST_NODE} or later is needed: `apt-get install nodejs` on Debian, \
         `dnf install nodejs` on Fedora, `brew install node` with Homebrew"
    );
    Err(Missing(sentence).into())
}

/// Installs valgrind where it is missing.
pub fn ensure_valgrind() -> Result<()> {
    let present = || ask("valgrind", &["--version"]).is_some();
    if present() {
        return Ok(());
    }
    println!("set-up: valgrind is not here");
    if apt::install("valgrind", "valgrind*")? && present() {
        return Ok(());
    }
    let sentence = "valgrind is needed: `apt-get install valgrind` on Debian, \
        `dnf install valgrind` on Fedora";
    Err(Missing(sentence.into()).into())
}

/// `v20.20.2` is 20.
fn node_version(text: &str) -> Option<u32> {
    text.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// `QEMU emulator version 10.0.2 (…)` is (10, 0).
fn qemu_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split("version ").nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Says what it does, then does it.
fn run(program: &str, args: &[&str]) -> Result<()> {
    println!("set-up: {program} {}", args.join(" "));
    if !Command::new(program).args(args).status()?.success() {
        let command = format!("{program} {}", args.join(" "));
        return Err(Missing(format!(
            "set-up failed at `{command}`; run it by hand to see why"
        ))
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustup_names_what_it_has() {
        let lines = "aarch64-unknown-none-softfloat\nclippy-x86_64-unknown-linux-gnu\n\
            rust-src\nnightly-aarch64-apple-darwin (active)\n";
        assert!(
            ["clippy", "rust-src", "nightly"]
                .iter()
                .all(|name| lists(lines, name))
        );
        assert!(!lists(lines, "aarch64-unknown-none"));
    }

    #[test]
    fn versions_of_qemu_compare() {
        let version = |text| qemu_version(text);
        let bookworm = version("QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u16)");
        assert_eq!(bookworm, Some((7, 2)));
        assert!(version("QEMU emulator version 10.0.2\n") >= Some(OLDEST_QEMU));
        assert!(version("QEMU emulator version 6.9.0") < Some(OLDEST_QEMU));
        // Not there at all.
        assert!(None < Some(OLDEST_QEMU));
    }

    #[test]
    fn versions_of_node_are_read() {
        assert_eq!(node_version("v20.20.2\n"), Some(20));
        assert_eq!(node_version("bash: node: not found"), None);
    }
}
