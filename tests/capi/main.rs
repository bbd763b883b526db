//! The C functions: called from C and from C++, by a program that has them from a static library
//! and knows them by the header.
#![cfg(not(any(target_os = "none", loom)))]

mod from_rust;
#[cfg(all(target_os = "linux", not(miri)))]
mod program;
#[cfg(all(target_os = "linux", not(miri)))]
#[path = "../shared_memory/mod.rs"]
mod shared_memory;
#[cfg(all(target_os = "linux", not(miri)))]
mod writes;
