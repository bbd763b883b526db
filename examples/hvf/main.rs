//! A VM on Apple silicon: two vCPUs write, and every page that they wrote is found.
//!
//! On a Mac:
//!
//! ```text
//! cargo build --example hvf --features hvf
//! codesign --sign - --force --entitlements examples/hvf/hvf.entitlements target/debug/examples/hvf
//! target/debug/examples/hvf
//! ```
//!
//! The guest is a few loops of stores, without translation of its own. It never waits for the VMM:
//! snapshots are taken while it runs, each with both vCPUs stopped for as long as it takes. A mirror
//! that only they bring up to date must be equal to memory in the end.

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
mod guest;
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
mod report;
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
mod vm;

use std::process::ExitCode;

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
fn main() -> ExitCode {
    match vm::run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_lost) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hvf: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
fn main() -> ExitCode {
    eprintln!(
        "hvf: Hypervisor.framework is macOS's, on Apple silicon; `el2` is for other machines"
    );
    ExitCode::FAILURE
}
