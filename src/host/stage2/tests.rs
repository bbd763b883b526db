//! The edits of the tables against a plain array, with the tables inactive and marked active.
//!
//! Marked active they take the break-before-make path and the crate below checks each edit. The
//! TLBI of either crate traps outside EL2, so on an Arm host only the inactive half runs.

extern crate std;

use core::ops::{Deref, DerefMut};
use std::{format, string::String, vec, vec::Vec};

use ::aarch64_paging::{
    Mapping,
    descriptor::{PhysicalAddress, Stage2Attributes},
    paging::{Constraints, MemoryRegion, Stage2, Translation},
};
use proptest::prelude::*;

use super::*;

const PAGE: u64 = PAGE_SIZE as u64;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const RAM: Stage2Attributes = Stage2Attributes::VALID
    .union(Stage2Attributes::MEMATTR_NORMAL_OUTER_WB)
    .union(Stage2Attributes::MEMATTR_NORMAL_INNER_WB)
    .union(Stage2Attributes::S2AP_ACCESS_RW)
    .union(Stage2Attributes::SH_INNER)
    .union(Stage2Attributes::ACCESS_FLAG);

/// What is mapped at the start: by 2 MiB blocks; by blocks with pages at both ends; by one 1 GiB
/// block. The attributes differ, to see that they stay.
const AREAS: [Area; 3] = [
    Area {
        ipa: GIB,
        len: 8 * MIB,
        output: 0x9_0000_0000,
        flags: RAM.union(Stage2Attributes::XN),
    },
    Area {
        ipa: GIB + 10 * MIB - 3 * PAGE,
        len: 5 * MIB,
        output: 0x7_0000_0000 + 2 * MIB - 3 * PAGE,
        flags: RAM.union(Stage2Attributes::SWFLAG_1),
    },
    Area {
        ipa: 4 * GIB,
        len: GIB,
        output: 0x5_4000_0000,
        flags: RAM,
    },
];

/// The root; one for the GiB that the first two areas lie in; one for each end of the second.
const TABLES_AT_START: usize = 4;

struct Area {
    ipa: u64,
    len: u64,
    output: u64,
    flags: Stage2Attributes,
}

impl Area {
    const fn end(&self) -> u64 {
        self.ipa + self.len
    }
}

struct Guest(Stage2Protection<PooledTables>);

impl Guest {
    fn new<const TABLES: usize>(pool: &'static TablePool<TABLES>, active: bool) -> Self {
        let mut mapping = Mapping::new(pool.take().expect("nobody has it"), 1, Stage2);
        for area in &AREAS {
            mapping
                .map_range(
                    &MemoryRegion::new(area.ipa as usize, area.end() as usize),
                    PhysicalAddress(area.output as usize),
                    area.flags,
                    Constraints::empty(),
                )
                .expect("it can be mapped");
        }
        if active {
            mapping.mark_active();
        }
        Self(Stage2Protection::new(mapping))
    }

    fn used(&self) -> usize {
        self.mapping().translation().used()
    }

    /// All descriptors, as text: for "nothing was changed".
    fn snapshot(&self) -> String {
        format!("{:?} {}", self.mapping(), self.used())
    }
}

impl Deref for Guest {
    type Target = Stage2Protection<PooledTables>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A drop of active tables panics.
        if self.mapping().active() {
            self.mapping().mark_inactive();
        }
    }
}

fn modes() -> &'static [bool] {
    if cfg!(target_arch = "aarch64") {
        &[false]
    } else {
        &[false, true]
    }
}

/// Whether each page may be written: the whole truth, kept the plain way.
struct Oracle([Vec<bool>; 3]);

impl Oracle {
    fn new() -> Self {
        Self(
            AREAS
                .each_ref()
                .map(|area| vec![true; (area.len / PAGE) as usize]),
        )
    }

    /// The pages of `range` in each area.
    fn pages(range: &Range<u64>) -> [Range<usize>; 3] {
        AREAS.each_ref().map(|area| {
            let inside = |ipa: u64| ((ipa.clamp(area.ipa, area.end()) - area.ipa) / PAGE) as usize;
            inside(range.start)..inside(range.end)
        })
    }

    fn set(&mut self, range: &Range<u64>, writable: bool) {
        for (area, pages) in self.0.iter_mut().zip(Self::pages(range)) {
            area[pages].fill(writable);
        }
    }

    fn all_are(&self, range: &Range<u64>, writable: bool) -> bool {
        (self.0.iter().zip(Self::pages(range)))
            .all(|(area, pages)| area[pages].iter().all(|page| *page == writable))
    }

    /// Walks all that the root can translate and compares leaf by leaf.
    fn check(&self, guest: &Guest) {
        let mut seen = [0; 3];
        let all = MemoryRegion::new(0, guest.mapping().size());
        guest
            .mapping()
            .walk_range(&all, &mut |chunk, leaf, level| {
                let (start, end) = (chunk.start().0 as u64, chunk.end().0 as u64);
                let area = AREAS.iter().position(|a| a.ipa <= start && end <= a.end());
                let Some(area) = area else {
                    assert!(!leaf.is_valid(), "{chunk} came to be mapped");
                    return Ok(());
                };
                let Area {
                    ipa, output, flags, ..
                } = AREAS[area];
                assert!(leaf.is_valid(), "{chunk} is not mapped any more");
                assert_eq!(chunk.len(), leaf_size(level));
                assert_eq!(
                    leaf.output_address().0 as u64,
                    output + (start - ipa),
                    "{chunk}"
                );
                let page_bit = match level {
                    LEAF_LEVEL => Stage2Attributes::TABLE_OR_PAGE,
                    _ => Stage2Attributes::empty(),
                };
                assert_eq!(
                    leaf.flags() & !WRITE,
                    (flags & !WRITE) | page_bit,
                    "{chunk}"
                );
                let pages = (start - ipa) / PAGE..(end - ipa) / PAGE;
                let pages = &self.0[area][pages.start as usize..pages.end as usize];
                let writable = leaf.flags().contains(WRITE);
                assert!(!pages.contains(&!writable), "{chunk}: {writable}");
                seen[area] += end - start;
                Ok(())
            })
            .expect("no address is out of range");
        assert_eq!(seen, AREAS.each_ref().map(|area| area.len));
    }
}

#[derive(Debug, Clone)]
struct Edit {
    range: Range<u64>,
    access: bool,
}

/// Ranges that start and end on, beside and between the boundaries of every leaf size.
fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let address = prop_oneof![
        (0..=5 * MIB / PAGE, 0_usize..3).prop_map(|(page, area)| AREAS[area].ipa + page * PAGE),
        (0..=512_u64, 0..3_u64, 0_usize..3)
            .prop_map(|(block, page, area)| AREAS[area].ipa + block * 2 * MIB + page * PAGE),
        (0..8 * GIB / PAGE).prop_map(|page| page * PAGE),
    ];
    let len = prop_oneof![
        1..4_u64,
        Just(512),
        500..530_u64,
        1..3000_u64,
        1..300_000_u64
    ];
    let edit = (address, len, any::<bool>()).prop_map(|(start, pages, access)| Edit {
        range: start..start + pages * PAGE,
        access,
    });
    proptest::collection::vec(edit, 1..16)
}

/// The first address of the range at which nothing is mapped.
fn hole(range: &Range<u64>) -> Option<u64> {
    let mut ipa = range.start;
    while ipa < range.end {
        match AREAS.iter().find(|a| (a.ipa..a.end()).contains(&ipa)) {
            Some(area) => ipa = area.end(),
            None => return Some(ipa),
        }
    }
    None
}

fn run(guest: &mut Guest, edits: &[Edit]) {
    let mut oracle = Oracle::new();
    for Edit { range, access } in edits {
        let before = guest.used();
        let room = guest.mapping().translation().available();
        let text = (room < 4).then(|| guest.snapshot());
        let done = match access {
            true => guest.unprotect(range.clone()),
            false => guest.protect(range.clone()),
        };
        match done {
            Ok(()) => {
                assert!(!access || hole(range).is_none());
                if oracle.all_are(range, *access) {
                    assert_eq!(guest.used(), before, "a table for nothing: {range:x?}");
                }
                oracle.set(range, *access);
            }
            Err(Stage2Error::Unmapped { ipa }) => {
                assert!(access);
                assert_eq!(hole(range), Some(ipa));
                assert_eq!(guest.used(), before);
            }
            Err(Stage2Error::OutOfTables { ipa }) => {
                assert!(room < 4, "an edit splits at most four descriptors");
                assert!(oracle_has(ipa));
                assert_eq!(text, Some(guest.snapshot()));
            }
            Err(other) => panic!("{other}"),
        }
        assert!(guest.used() <= before + 4);
        oracle.check(guest);
    }
}

fn oracle_has(ipa: u64) -> bool {
    AREAS
        .iter()
        .any(|area| (area.ipa..area.end()).contains(&ipa))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    #[cfg_attr(miri, ignore = "a GiB of pages takes too long; the other tests use the same code")]
    fn edits_match_the_oracle(edits in edits()) {
        static POOL: TablePool<80> = TablePool::new();
        for active in modes() {
            let mut guest = Guest::new(&POOL, *active);
            run(&mut guest, &edits);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a GiB of pages takes too long; the other tests use the same code")]
    fn edits_match_the_oracle_while_tables_run_out(edits in edits()) {
        for active in modes() {
            static POOL: TablePool<{ TABLES_AT_START + 3 }> = TablePool::new();
let mut guest = Guest::new(&POOL, *active);
            run(&mut guest, &edits);
        }
    }
}

#[test]
fn a_page_of_a_gib_takes_two_tables_and_its_neighbour_none() {
    for active in modes() {
        static POOL: TablePool<16> = TablePool::new();
        let mut guest = Guest::new(&POOL, *active);
        assert_eq!(guest.used(), TABLES_AT_START);
        let page = 4 * GIB + 77 * MIB;
        guest.protect(page..page + PAGE).expect("there is room");
        assert_eq!(guest.used(), TABLES_AT_START + 2);
        guest
            .protect(page + PAGE..page + 3 * PAGE)
            .expect("there is room");
        assert_eq!(guest.used(), TABLES_AT_START + 2);
        assert_eq!(guest.writable(page), Some(false));
        assert_eq!(guest.writable(page + 3 * PAGE - 1), Some(false));
        assert_eq!(guest.writable(page + 3 * PAGE), Some(true));
        assert_eq!(guest.writable(page - 1), Some(true));
        assert_eq!(guest.writable(0), None);
        assert_eq!(guest.writable(u64::MAX), None);
    }
}

#[test]
fn whole_blocks_are_never_split() {
    for active in modes() {
        static POOL: TablePool<TABLES_AT_START> = TablePool::new();
        let mut guest = Guest::new(&POOL, *active);
        guest
            .protect(0..u64::MAX - (PAGE - 1))
            .expect("no table is needed");
        guest
            .unprotect(4 * GIB..5 * GIB)
            .expect("no table is needed");
        guest
            .unprotect(GIB + 2 * MIB..GIB + 8 * MIB)
            .expect("no table is needed");
        // Already so: not split either.
        guest
            .unprotect(4 * GIB + PAGE..5 * GIB - PAGE)
            .expect("no table is needed");
        guest
            .protect(GIB + PAGE..GIB + 2 * PAGE)
            .expect("no table is needed");
        assert_eq!(guest.used(), TABLES_AT_START);
    }
}

#[test]
fn both_ends_are_paid_for_before_the_first_split() {
    for active in modes() {
        // Two tables for either end; the second end finds one missing.
        static POOL: TablePool<{ TABLES_AT_START + 2 }> = TablePool::new();
        let mut guest = Guest::new(&POOL, *active);
        let before = guest.snapshot();
        let range = GIB + 6 * MIB + PAGE..4 * GIB + 2 * MIB - PAGE;
        assert_eq!(
            guest.protect(range),
            Err(Stage2Error::OutOfTables { ipa: 4 * GIB })
        );
        assert_eq!(before, guest.snapshot());
    }
}

#[test]
fn what_is_not_mapped_stays_so() {
    for active in modes() {
        static POOL: TablePool<TABLES_AT_START> = TablePool::new();
        let mut guest = Guest::new(&POOL, *active);
        let before = guest.snapshot();
        let limit = guest.mapping().size() as u64;
        for (range, ipa) in [
            (0..PAGE, 0),
            (GIB - PAGE..GIB + PAGE, GIB - PAGE),
            (GIB + 6 * MIB..GIB + 9 * MIB, GIB + 8 * MIB),
            (limit - PAGE..limit + PAGE, limit - PAGE),
            (limit + PAGE..limit + 2 * PAGE, limit + PAGE),
            (5 * GIB - PAGE..6 * GIB, 5 * GIB),
        ] {
            assert_eq!(guest.unprotect(range), Err(Stage2Error::Unmapped { ipa }));
        }
        guest.protect(0..PAGE).expect("nothing to do");
        guest
            .protect(limit - PAGE..limit + PAGE)
            .expect("nothing to do");
        guest.protect(limit..limit + PAGE).expect("nothing to do");
        assert_eq!(before, guest.snapshot());
    }
}

#[test]
fn a_descriptor_that_is_not_valid_keeps_its_bits() {
    static POOL: TablePool<{ TABLES_AT_START + 1 }> = TablePool::new();
    // Between the first two areas, so that an edit of both runs over it.
    let paged_out = GIB + 8 * MIB;
    let region = MemoryRegion::new(paged_out as usize, (paged_out + PAGE) as usize);
    for active in modes() {
        let mut guest = Guest::new(&POOL, *active);
        // A host may keep notes in them: where it paged the guest's memory out to, say.
        let flags = (RAM | Stage2Attributes::SWFLAG_2) & !Stage2Attributes::VALID;
        guest
            .mapping_mut()
            .map_range(&region, PhysicalAddress(0), flags, Constraints::empty())
            .expect("there is room");
        guest.protect(0..5 * GIB).expect("whole blocks");
        assert_eq!(guest.writable(paged_out), None);
        let mut found = Stage2Attributes::empty();
        guest
            .mapping()
            .walk_range(&region, &mut |_, leaf, _| {
                found = leaf.flags();
                Ok(())
            })
            .expect("in range");
        assert_eq!(found, flags);
    }
}

#[test]
fn ends_inside_a_page_are_refused_and_empty_ranges_are_not() {
    static POOL: TablePool<TABLES_AT_START> = TablePool::new();
    let mut guest = Guest::new(&POOL, false);
    let before = guest.snapshot();
    for (range, ipa) in [
        (GIB + 1..GIB + PAGE, GIB + 1),
        (GIB..GIB + 1024, GIB + 1024),
        (0..u64::MAX, u64::MAX),
    ] {
        let error = Err(Stage2Error::Unaligned { ipa });
        assert_eq!(guest.protect(range.clone()), error);
        assert_eq!(guest.unprotect(range), error);
    }
    guest.protect(GIB + 1..GIB + 1).expect("empty");
    guest.unprotect(GIB..GIB).expect("empty");
    assert_eq!(before, guest.snapshot());
}

/// QEMU's TLB does without the second and the third of these, so no guest there can show them.
#[test]
#[cfg(not(target_arch = "aarch64"))]
fn every_edit_of_live_tables_invalidates() {
    use Scope::{AllCores, Fault, ThisCore};

    static POOL: TablePool<16> = TablePool::new();
    let mut guest = Guest::new(&POOL, true);
    let block = GIB..GIB + 2 * MIB;
    let page = GIB + PAGE..GIB + 2 * PAGE;
    let done = tlb::tests::take;
    done();
    for _ in 0..2 {
        guest.protect(block.clone()).expect("whole");
        assert_eq!(done(), [AllCores]);
    }
    for _ in 0..2 {
        // Another core may have opened it just before.
        guest.unprotect(block.clone()).expect("whole");
        assert_eq!(done(), [ThisCore]);
    }
    guest.protect(page.clone()).expect("there is room");
    assert_eq!(
        done(),
        [AllCores, AllCores],
        "after the break; after the edit"
    );
    let fault = Fault { ipa: page.start };
    for _ in 0..2 {
        guest.unprotect(page.clone()).expect("split already");
        assert_eq!(done(), [fault]);
    }
    let blocks = GIB + 4 * MIB..GIB + 8 * MIB;
    guest.protect_all(&[page, blocks]).expect("no split");
    assert_eq!(done(), [AllCores], "one for both");
    guest.unprotect(0..PAGE).expect_err("nothing is mapped");
    assert_eq!(done(), [Fault { ipa: 0 }]);

    guest.mapping().mark_inactive();
    guest.protect(0..8 * GIB).expect("whole");
    guest.unprotect(block).expect("whole");
    assert_eq!(done(), []);
}

#[test]
fn a_pool_has_one_owner_at_a_time() {
    static POOL: TablePool<2> = TablePool::new();
    let mut tables = POOL.take().expect("nobody has it");
    assert!(POOL.take().is_none());
    let (first, _) = tables.allocate_table();
    let (second, physical) = tables.allocate_table();
    assert_ne!(first, second);
    assert_eq!(tables.available(), 0);
    assert_eq!(tables.physical_to_virtual(physical), second);
    // SAFETY: both came from `allocate_table`, and nothing uses them.
    unsafe {
        tables.deallocate_table(first);
        tables.deallocate_table(second);
    }
    assert_eq!(tables.available(), 2);
    // A table that comes back is zero again, whatever link it held.
    for _ in 0..2 {
        let (table, _) = tables.allocate_table();
        // SAFETY: the table is ours and initialised.
        let empty = unsafe { table.cast::<[u64; 512]>().read() };
        assert_eq!(empty, [0; 512]);
    }
    drop(tables);
    assert!(POOL.take().is_some());
}

#[test]
fn a_pool_elsewhere_in_physical_memory() {
    static POOL: TablePool<3> = TablePool::new();
    let mut tables = POOL
        .take_at(PhysicalAddress(0x8000_0000))
        .expect("nobody has it");
    let (root, at_root) = tables.allocate_table();
    let (next, at_next) = tables.allocate_table();
    assert_eq!((at_root.0, at_next.0), (0x8000_0000, 0x8000_1000));
    assert_eq!(tables.physical_to_virtual(at_root), root);
    assert_eq!(tables.physical_to_virtual(at_next), next);
}

#[test]
#[should_panic(expected = "all 1 page tables are in use")]
fn mapping_with_too_small_a_pool_says_so() {
    static POOL: TablePool<1> = TablePool::new();
    let mut tables = POOL.take().expect("nobody has it");
    tables.allocate_table();
    tables.allocate_table();
}

#[test]
fn vttbr_holds_root_and_vmid() {
    static POOL: TablePool<1> = TablePool::new();
    let mapping = Mapping::new(POOL.take().expect("nobody has it"), 1, Stage2);
    let root = mapping.root_address().0 as u64;
    let protection = Stage2Protection::new(mapping);
    assert_eq!(protection.vttbr(), root);
    assert_eq!(protection.with_vmid(0x1234).vttbr(), root | 0x1234 << 48);
}
