//! Snapshots, from outside: whole chains against a naive model, wrong files, full disks, processes
//! that are killed.
#![cfg(not(any(target_os = "none", loom, miri)))]

mod chains;
mod files;
mod guest;
mod killed;
mod model;
#[cfg(target_os = "linux")]
mod no_space;
mod writers;
