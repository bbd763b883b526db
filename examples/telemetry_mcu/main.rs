//! Telemetry on a microcontroller: a timer interrupt writes, the main loop sends what changed.
//!
//! - The interrupt writes samples of sensors into **slots**, each at its own pace. The main loop
//!   descends, and finds those that changed, each of them whole.
//! - The interrupt writes a flight recorder in RAM, and marks the **lines** that it wrote. The main
//!   loop drains the marks and copies those lines.
//! - The other way round, the main loop writes set-points into a **slot**, and the interrupt reads
//!   them without ever waiting.
//!
//! All memory is in statics. One source serves both boards: `cargo xtask qemu telemetry_mcu` boots
//! it on a Cortex-M0 (QEMU's `microbit`) and on a Cortex-M4 (`mps2-an386`), decodes the defmt log,
//! and tells how much flash and RAM the program takes.
//!
//! # What needs a critical section
//!
//! No write and no read of a slot, on either board: the interrupt is never held off for them. What
//! does is
//!
//! - to hand the writers over to the interrupt, once: `critical_section::Mutex`;
//! - on the Cortex-M0, which has no compare-and-swap, each mark of a line and each line that the
//!   main loop takes: portable-atomic does that by itself, for a few instructions;
//! - the log.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "arm"))]
mod firmware;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This firmware boots in QEMU. Run it with: cargo xtask qemu telemetry_mcu");
}
