//! The right wing: one slot, an arena with its owner, and a reader: what it weighs.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[path = "slots/values.rs"]
mod values;

// For its panic handler.
use pugmark_parts as _;

#[cfg(not(target_os = "none"))]
fn main() {}
