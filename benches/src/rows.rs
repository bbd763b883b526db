//! The rows, a file for each kind of work. A new row is a new file, and a line here.

mod adaptive;
mod descend;
pub mod drain;
pub mod mark;
mod mark_live;
mod mark_range;
mod rearm;
mod rearm_stage2;
#[cfg(target_os = "linux")]
mod rearm_uffd;
mod slot_hint;
mod slot_read;
mod slot_read_fast;
mod slot_write;
#[cfg(target_os = "linux")]
mod snapshot_diff;
#[cfg(target_os = "linux")]
mod snapshot_live;
#[cfg(target_os = "linux")]
mod uffd_async;
#[cfg(target_os = "linux")]
mod uffd_fault;
#[cfg(target_os = "linux")]
mod vm_memory_mark;

#[path = "../../tests/traces/mod.rs"]
#[allow(dead_code, reason = "who records traces uses the rest")]
mod traces;

use crate::harness::{Bench, Measured};

/// One thing that pugmark does.
pub struct Row {
    pub name: &'static str,
    pub work: &'static str,
    /// What the times are for one of.
    pub unit: &'static str,
    pub measure: fn(&Bench) -> Measured,
    /// Why a goal is not met, and what was tried.
    pub note: Option<&'static str>,
}

/// In the order of the table.
pub const ROWS: &[Row] = &[
    mark::PAGE,
    mark::FIRST_PAGE,
    mark_range::PAGES_512,
    mark_live::HZ_60,
    mark_live::HZ_1000,
    mark_live::ALWAYS,
    drain::NOTHING,
    drain::SCATTERED,
    drain::RUNS,
    drain::ALL,
    rearm::TRACE_UFFD,
    rearm::TRACE_STAGE2,
    rearm::TRACE_STAGE2_HELD,
    rearm::TRACE_HVF,
    rearm::TRACE_HVF_HELD,
    rearm::RANDOM_1,
    rearm::RANDOM_10,
    rearm::RANDOM_50,
    rearm_stage2::RANGE,
    rearm_stage2::PAGE,
    #[cfg(target_os = "linux")]
    rearm_uffd::RANGE,
    #[cfg(target_os = "linux")]
    rearm_uffd::PAGE,
    #[cfg(target_os = "linux")]
    rearm_uffd::HARVEST_2,
    #[cfg(target_os = "linux")]
    rearm_uffd::HARVEST_20,
    slot_read::BYTES_64,
    slot_write::BYTES_64,
    slot_read_fast::KIB_4,
    slot_hint::ONE,
    slot_hint::MANY,
    descend::RUNS_1,
    descend::RUNS_10,
    descend::SCATTERED_10,
    descend::SCATTERED_1,
    descend::SCATTERED_01,
    #[cfg(target_os = "linux")]
    uffd_fault::SYNC,
    #[cfg(target_os = "linux")]
    uffd_async::ALL,
    #[cfg(target_os = "linux")]
    uffd_async::EVERY_8TH,
    #[cfg(target_os = "linux")]
    uffd_async::ONE_IN_100,
    #[cfg(target_os = "linux")]
    vm_memory_mark::PAGE,
    #[cfg(target_os = "linux")]
    vm_memory_mark::PAGES_64,
    #[cfg(target_os = "linux")]
    vm_memory_mark::FIRST_64,
    #[cfg(target_os = "linux")]
    vm_memory_mark::PAGES_512,
    #[cfg(target_os = "linux")]
    snapshot_live::STALL,
    #[cfg(target_os = "linux")]
    snapshot_live::TOTAL,
    #[cfg(target_os = "linux")]
    snapshot_diff::WRITE,
    adaptive::RECORDED_HVF_MEMORY,
    adaptive::RECORDED_HVF_PACKED,
    adaptive::RECORDED_UFFD_MEMORY,
    adaptive::RECORDED_UFFD_PACKED,
    adaptive::WORST_HVF_MEMORY,
    adaptive::WORST_HVF_PACKED,
    adaptive::WORST_UFFD_MEMORY,
    adaptive::WORST_UFFD_PACKED,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_differ() {
        let names: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }

    /// No times are looked at: each row checks that everybody did the work.
    #[test]
    #[cfg_attr(debug_assertions, ignore = "minutes without optimisation")]
    fn everybody_does_the_work() {
        for row in ROWS {
            let outcome = Bench::check().measure(row);
            assert_eq!(outcome.row, row.name);
        }
    }
}
