//! A snapshot of memory that two threads write to, 1 % of its pages in 100 ms: for how long they
//! stood still at most, and how long it took.
//!
//! Each contender gives memory as it was at one moment, into other memory: no disk, which would take
//! the most of the time of those who copy everything, and vary. Each is checked: what it gave is what
//! the threads had written by that moment, page by page. pugmark and `mprotect` know what was written
//! since the last snapshot, and pay for it with faults in the 100 ms before, which count as stalls.

mod faults;
mod known;
mod qemu;
mod world;
mod writers;

use std::time::Duration;

use super::Row;
use crate::harness::{Bench, Measured, Turn, peer, us};
use world::{Live, World};

pub const STALL: Row = Row {
    name: "snapshot-live-stall",
    work: "live snapshot of 1 GiB, 1 % dirty: the longest stall of a writer",
    unit: "snapshot",
    measure: |bench| measure(bench, |live| live.stall),
    note: None,
};

pub const TOTAL: Row = Row {
    name: "snapshot-live-total",
    work: "live snapshot of 1 GiB, 1 % dirty: from its begin to its end",
    unit: "snapshot",
    measure: |bench| measure(bench, |live| live.total),
    note: None,
};

const MIB: u64 = 1 << 20;

fn measure(bench: &Bench, which: fn(Live) -> Duration) -> Measured {
    let size = match available_memory() {
        // The memory, its copy, and as much again for everything else.
        Some(bytes) if bytes < 3072 * MIB => bytes / 3,
        _ => 1024 * MIB,
    };
    if size < 64 * MIB {
        return Measured::skipped("less than 192 MiB of memory are free");
    }
    let world = &World::new(size as usize / rustix::param::page_size());
    if let Err(error) = known::can_track(world) {
        return Measured::skipped(error);
    }
    let turn = |live| Turn::fixed(which(live));
    bench.rounds([
        us(|| turn(known::by_log(world))),
        peer("pugmark with a handler", || turn(known::by_handler(world))),
        peer("a copy, writers stopped", || turn(world.stopped())).at_least(1.0),
        peer("mprotect and SIGSEGV", || turn(faults::mprotect(world))).at_least(1.0),
        peer("QEMU's way", || turn(qemu::background(world))).at_least(1.0),
    ])
}

/// What can be had without swapping, in bytes.
fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}
