//! What every `WriteProtect` must do: one suite, run by a software MMU on the host and by real
//! stage-2 translation under QEMU. It needs neither std nor an allocator.

use core::{fmt::Debug, ops::Range};

use pugmark::{PageGeometry, WriteProtect};

/// A guest whose accesses can be tried.
///
/// A try is a real access where the machine has a TLB: it leaves a translation behind, which the
/// next edit has to deal with.
pub trait Machine {
    type Protect: WriteProtect<Error: Debug>;

    fn protection(&self) -> &Self::Protect;
    fn geometry(&self) -> PageGeometry;

    /// Memory that is mapped, readable and executable: whole pages, [`MAX_PAGES`] at the most, and
    /// at least two whole blocks.
    fn ram(&self) -> Range<u64>;

    /// Where nothing is mapped, if there is such a place right after [`Machine::ram`].
    fn hole(&self) -> Option<u64>;

    fn try_write(&self, ipa: u64) -> bool;
    fn try_read(&self, ipa: u64) -> bool;
    fn try_fetch(&self, ipa: u64) -> bool;
}

/// What the oracle has room for.
pub const MAX_PAGES: usize = 4096;

/// Calls another macro with the names of all cases.
#[macro_export]
macro_rules! for_each_case {
    ($then:ident) => {
        $then! {
            a_protected_page_can_be_read_and_run_but_not_written
            one_page_of_a_block
            one_open_page_in_protected_ram
            both_calls_are_idempotent
            an_empty_range_is_nothing
            nested_ranges
            overlapping_ranges
            ranges_across_a_block_boundary
            whole_blocks
            all_of_ram
            the_first_and_the_last_page
            a_translation_in_use_is_refused_at_once
            a_refused_translation_is_open_at_once
            every_other_page
            several_ranges_at_once
            in_use_they_are_all_refused_at_once
            opening_what_is_not_mapped_is_an_error
            random_edits_match_an_array
        }
    };
}

macro_rules! list_of_cases {
    ($($case:ident)+) => {
        /// All cases with their names.
        pub fn cases<M: Machine>() -> impl Iterator<Item = (&'static str, fn(&M))> {
            [$((stringify!($case), $case as fn(&M))),+].into_iter()
        }
    };
}
for_each_case!(list_of_cases);

/// A machine with all of its RAM open, whatever an earlier case left.
struct Guest<'a, M> {
    machine: &'a M,
    page: u64,
    block: u64,
    ram: Range<u64>,
}

impl<'a, M: Machine> Guest<'a, M> {
    fn new(machine: &'a M) -> Self {
        let geometry = machine.geometry();
        let guest = Self {
            machine,
            page: geometry.page_size(),
            block: geometry.block_size(),
            ram: machine.ram(),
        };
        assert!(guest.pages() <= MAX_PAGES);
        assert!(guest.first_block() + 2 * guest.block <= guest.ram.end);
        guest.unprotect(guest.ram.clone());
        guest
    }

    fn pages(&self) -> usize {
        ((self.ram.end - self.ram.start) / self.page) as usize
    }

    fn address(&self, page: usize) -> u64 {
        self.ram.start + page as u64 * self.page
    }

    /// The first block boundary in RAM.
    fn first_block(&self) -> u64 {
        self.ram.start.next_multiple_of(self.block)
    }

    fn protect(&self, range: Range<u64>) {
        let done = self.machine.protection().protect(range.clone());
        done.unwrap_or_else(|error| panic!("protect {range:#x?}: {error:?}"));
    }

    fn protect_all(&self, ranges: &[Range<u64>]) {
        let done = self.machine.protection().protect_all(ranges);
        done.unwrap_or_else(|error| panic!("protect {ranges:#x?}: {error:?}"));
    }

    fn unprotect(&self, range: Range<u64>) {
        let done = self.machine.protection().unprotect(range.clone());
        done.unwrap_or_else(|error| panic!("unprotect {range:#x?}: {error:?}"));
    }

    /// Tries all three accesses at one page.
    #[track_caller]
    fn check_page(&self, ipa: u64, writable: bool) {
        let machine = self.machine;
        assert!(machine.try_read(ipa), "{ipa:#x} cannot be read");
        assert!(machine.try_fetch(ipa), "{ipa:#x} cannot be run");
        let written = machine.try_write(ipa);
        assert_eq!(written, writable, "{ipa:#x}: does a write go through?");
    }

    /// Tries every page of RAM.
    #[track_caller]
    fn check(&self, writable: impl Fn(u64) -> bool) {
        for page in 0..self.pages() {
            let ipa = self.address(page);
            self.check_page(ipa, writable(ipa));
        }
    }
}

fn a_protected_page_can_be_read_and_run_but_not_written<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let page = guest.ram.start;
    guest.check_page(page, true);
    guest.protect(page..page + guest.page);
    guest.check_page(page, false);
    guest.unprotect(page..page + guest.page);
    guest.check_page(page, true);
}

fn one_page_of_a_block<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let page = guest.first_block() + 5 * guest.page;
    let range = page..page + guest.page;
    guest.protect(range.clone());
    guest.check(|ipa| !range.contains(&ipa));
    guest.unprotect(range);
    guest.check(|_| true);
}

fn one_open_page_in_protected_ram<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    guest.protect(guest.ram.clone());
    let page = guest.first_block() + 9 * guest.page;
    let range = page..page + guest.page;
    guest.unprotect(range.clone());
    guest.check(|ipa| range.contains(&ipa));
    guest.protect(range);
    guest.check(|_| false);
}

fn both_calls_are_idempotent<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let range = guest.ram.start + guest.page..guest.first_block() + 3 * guest.page;
    for _ in 0..3 {
        guest.protect(range.clone());
        guest.check(|ipa| !range.contains(&ipa));
    }
    for _ in 0..3 {
        guest.unprotect(range.clone());
        guest.check(|_| true);
    }
}

fn an_empty_range_is_nothing<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let page = guest.first_block() + guest.page;
    guest.protect(page..page);
    guest.check_page(page, true);
    guest.protect(guest.ram.clone());
    guest.unprotect(page..page);
    guest.check_page(page, false);
}

fn nested_ranges<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let block = guest.first_block();
    let outer = block..block + guest.block;
    let inner = block + 7 * guest.page..block + 21 * guest.page;
    guest.protect(inner.clone());
    guest.protect(outer.clone());
    guest.check(|ipa| !outer.contains(&ipa));
    guest.unprotect(inner.clone());
    guest.check(|ipa| !outer.contains(&ipa) || inner.contains(&ipa));
    guest.unprotect(outer.clone());
    guest.protect(inner.clone());
    guest.check(|ipa| !inner.contains(&ipa));
}

fn overlapping_ranges<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let page = |number: u64| guest.first_block() + number * guest.page;
    guest.protect(page(2)..page(12));
    guest.protect(page(8)..page(20));
    guest.unprotect(page(10)..page(14));
    guest.protect(page(13)..page(15));
    guest.check(|ipa| {
        let number = ipa.wrapping_sub(guest.first_block()) / guest.page;
        !matches!(number, 2..10 | 13..20)
    });
}

fn ranges_across_a_block_boundary<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let boundary = guest.first_block() + guest.block;
    let range = boundary - 3 * guest.page..boundary + 2 * guest.page;
    guest.protect(range.clone());
    guest.check(|ipa| !range.contains(&ipa));
    guest.protect(guest.ram.clone());
    guest.unprotect(range.clone());
    guest.check(|ipa| range.contains(&ipa));
}

fn whole_blocks<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let block = guest.first_block()..guest.first_block() + guest.block;
    guest.protect(block.clone());
    guest.check(|ipa| !block.contains(&ipa));
    guest.protect(guest.ram.clone());
    guest.unprotect(block.clone());
    guest.check(|ipa| block.contains(&ipa));
}

fn all_of_ram<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    guest.check(|_| true);
    guest.protect(guest.ram.clone());
    guest.check(|_| false);
    guest.unprotect(guest.ram.clone());
    guest.check(|_| true);
}

fn the_first_and_the_last_page<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let first = guest.ram.start;
    let last = guest.ram.end - guest.page;
    guest.protect(first..first + guest.page);
    guest.protect(last..guest.ram.end);
    guest.check(|ipa| ipa != first && ipa != last);
    guest.protect(guest.ram.clone());
    guest.unprotect(first..first + guest.page);
    guest.unprotect(last..guest.ram.end);
    guest.check(|ipa| ipa == first || ipa == last);
}

fn a_translation_in_use_is_refused_at_once<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    // Page by page, so that each was written just before it is protected.
    for page in (0..guest.pages()).step_by(61) {
        let ipa = guest.address(page);
        assert!(machine.try_write(ipa));
        guest.protect(ipa..ipa + guest.page);
        assert!(!machine.try_write(ipa), "{ipa:#x}: a write went through");
    }
    // And all that was written before the range was protected in one call.
    guest.unprotect(guest.ram.clone());
    guest.check(|_| true);
    guest.protect(guest.ram.clone());
    guest.check(|_| false);
}

fn a_refused_translation_is_open_at_once<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    guest.protect(guest.ram.clone());
    for page in (0..guest.pages()).step_by(61) {
        let ipa = guest.address(page);
        assert!(!machine.try_write(ipa));
        guest.unprotect(ipa..ipa + guest.page);
        assert!(machine.try_write(ipa), "{ipa:#x}: a write was refused");
    }
}

fn every_other_page<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let odd = |ipa: u64| !(ipa / guest.page).is_multiple_of(2);
    for page in 0..guest.pages() {
        let ipa = guest.address(page);
        if odd(ipa) {
            guest.protect(ipa..ipa + guest.page);
        }
    }
    guest.check(|ipa| !odd(ipa));
    // A bridge over the open ones, as a re-arm makes it.
    guest.protect(guest.ram.clone());
    guest.check(|_| false);
}

fn several_ranges_at_once<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let block = guest.first_block();
    let ranges = [
        block..block + guest.page,
        block + 2 * guest.page..block + 5 * guest.page,
        block + guest.block..block + 2 * guest.block,
    ];
    guest.protect_all(&[]);
    guest.check(|_| true);
    guest.protect_all(&ranges);
    guest.check(|ipa| !ranges.iter().any(|range| range.contains(&ipa)));
}

fn in_use_they_are_all_refused_at_once<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let block = guest.first_block();
    let pages = [block, block + 2 * guest.page, block + guest.block];
    for page in pages {
        assert!(machine.try_write(page));
    }
    guest.protect_all(&pages.map(|page| page..page + guest.page));
    for page in pages {
        assert!(
            !machine.try_write(page),
            "{page:#x}: written through a stale translation"
        );
    }
}

fn opening_what_is_not_mapped_is_an_error<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let Some(hole) = machine.hole() else { return };
    guest.protect(guest.ram.clone());
    let opened = machine.protection().unprotect(hole..hole + guest.page);
    assert!(opened.is_err(), "{hole:#x} was opened");
    let last = guest.ram.end - guest.page;
    if hole == guest.ram.end {
        let opened = machine.protection().unprotect(last..hole + guest.page);
        assert!(opened.is_err(), "{last:#x} and {hole:#x} were opened");
    }
    assert!(!machine.try_read(hole), "{hole:#x} came to be mapped");
    // What was in the refused range may be open or not; all else is as it was.
    guest.protect(last..guest.ram.end);
    guest.check(|_| false);
}

fn random_edits_match_an_array<M: Machine>(machine: &M) {
    let guest = Guest::new(machine);
    let mut writable = [true; MAX_PAGES];
    let mut random = Random(0x5_eed0_f9a6);
    let edits = if cfg!(miri) { 20 } else { 300 };
    for edit in 0..edits {
        let pages = guest.pages();
        let first = random.below(pages);
        let most = match random.below(4) {
            0 => 1,
            1 => 8,
            2 => 600,
            _ => pages,
        };
        let last = (first + 1 + random.below(most)).min(pages);
        let range = guest.address(first)..guest.address(last);
        let open = random.below(2) == 0;
        if open {
            guest.unprotect(range);
        } else {
            guest.protect(range);
        }
        writable[first..last].fill(open);
        // The ends and what lies beside them each time; a few others; now and then all.
        for page in [first.wrapping_sub(1), first, last - 1, last] {
            if page < pages {
                guest.check_page(guest.address(page), writable[page]);
            }
        }
        for _ in 0..8 {
            let page = random.below(pages);
            guest.check_page(guest.address(page), writable[page]);
        }
        if edit % 50 == 0 {
            guest.check(|ipa| writable[((ipa - guest.ram.start) / guest.page) as usize]);
        }
    }
}

/// Marsaglia's xorshift64*, the same sequence on each machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % limit
    }
}
