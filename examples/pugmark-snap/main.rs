//! Live snapshots of a process's memory, and the files that they make.
//!
//! `cargo run --release --example pugmark-snap`
//!
//! Threads write to a mapping as fast as they are allowed to; once a second a snapshot is taken
//! while they go on; at the end the base and the diffs are restored and compared with the memory,
//! byte for byte. The exit code is 1 where they differ.
//!
//! With `--features uffd,kvm` and `-- --guest kvm` the vCPUs of a KVM guest write, in place of threads;
//! userfaultfd tracks them, or KVM's own dirty log or ring (`--source`).
//!
//! `… -- --help` has the options, and what can be done with the files: `info`, `verify`, `restore`,
//! `merge`.

// A file with a `path` has its modules beside it.
#[cfg(feature = "uffd")]
#[path = "snap.rs"]
mod snap;
#[cfg(feature = "uffd")]
use snap::main;

#[cfg(not(feature = "uffd"))]
mod again;
#[cfg(not(feature = "uffd"))]
use again::main;
