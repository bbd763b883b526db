//! A re-arm of stage-2 tables: what a range costs, and a page of one. The tables are not live, so there
//! is no TLB invalidation in it: that is one for all ranges that are given at once.

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use pugmark::WriteProtect;
use pugmark::host::stage2::aarch64_paging::{
    Mapping,
    descriptor::{PhysicalAddress, Stage2Attributes},
    paging::{Constraints, MemoryRegion, PAGE_SIZE, Stage2},
};
use pugmark::host::stage2::{PooledTables, Stage2Protection, TablePool};

use super::Row;
use crate::harness::{Bench, Measured, Turn, time, us};

pub const RANGE: Row = Row {
    name: "rearm-stage2-range",
    work: "protect one open page of 256 MiB in stage-2 tables, without the TLBI",
    unit: "range",
    measure: |bench| figures(bench, |range, _| range),
    note: None,
};

pub const PAGE: Row = Row {
    name: "rearm-stage2-page",
    work: "protect a page more of a range, protected already, in stage-2 tables",
    unit: "page",
    measure: |bench| {
        figures(bench, |range, longer| {
            longer.saturating_sub(range) / MORE as u32
        })
    },
    note: None,
};

const PAGES: usize = 1 << 16;
/// Pages between two ranges.
const APART: usize = 64;
/// Pages more of the longer ones.
const MORE: usize = 16;

type Tables = Mutex<Stage2Protection<PooledTables>>;

/// `figure` is told what a range of one open page takes, and one with [`MORE`] protected pages.
fn figures(bench: &Bench, figure: fn(Duration, Duration) -> Duration) -> Measured {
    let tables = &tables();
    bench.rounds([us(|| {
        Turn::fixed(figure(of_each(tables, 1), of_each(tables, 1 + MORE)))
    })])
}

/// All pages protected, each with a descriptor of its own.
fn tables() -> Tables {
    static POOL: TablePool<{ PAGES / 512 + 2 }> = TablePool::new();
    let mut mapping = Mapping::new(POOL.take().expect("one row at a time"), 1, Stage2);
    let read_only = Stage2Attributes::VALID
        | Stage2Attributes::MEMATTR_NORMAL_OUTER_WB
        | Stage2Attributes::MEMATTR_NORMAL_INNER_WB
        | Stage2Attributes::S2AP_ACCESS_RO
        | Stage2Attributes::SH_INNER
        | Stage2Attributes::ACCESS_FLAG;
    mapping
        .map_range(
            &MemoryRegion::new(0, PAGES * PAGE_SIZE),
            PhysicalAddress(0),
            read_only,
            Constraints::NO_BLOCK_MAPPINGS,
        )
        .expect("the pool has room");
    Mutex::new(Stage2Protection::new(mapping))
}

/// What it takes for a range of `pages`, the first of them open.
fn of_each(tables: &Tables, pages: usize) -> Duration {
    let range = |first: usize, pages: usize| {
        (first * PAGE_SIZE) as u64..((first + pages) * PAGE_SIZE) as u64
    };
    let firsts = || (0..PAGES).step_by(APART);
    for first in firsts() {
        tables.unprotect(range(first, 1)).expect("it is mapped");
    }
    let ranges: Vec<Range<u64>> = firsts().map(|first| range(first, pages)).collect();
    // As many at once as a harvest gives.
    let work = || {
        let mut batches = ranges.chunks(32);
        batches.try_for_each(|batch| tables.protect_all(batch))
    };
    let (turn, protected) = time(1, work);
    protected.expect("it is mapped");
    turn.elapsed() / ranges.len() as u32
}
