//! The conformance suite on the host: a software MMU behind each lock, and the same MMU with one
//! flaw at a time, which the suite must find.
#![cfg(all(feature = "std", feature = "spin", feature = "critical-section"))]

mod conformance;

use std::{
    cell::RefCell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use conformance::Machine;
use pugmark::{PageGeometry, WriteProtect, WriteProtectMut};

const GEOMETRY: PageGeometry = match PageGeometry::new(0x1000, 0x4_0000) {
    Ok(geometry) => geometry,
    Err(_) => panic!("64 pages a block"),
};
const PAGE: u64 = GEOMETRY.page_size();
/// Neither end is on a block boundary.
const RAM: Range<u64> = 0x8000_3000..0x8010_5000;
const HOLE: u64 = RAM.end;

/// What an implementation could get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    KeepsStaleTranslations,
    KeepsStaleRefusals,
    OpensTheWholeBlock,
    ProtectsTheWholeBlock,
    LeavesTheFirstPageOpen,
    LeavesTheLastPageOpen,
    OpensOnePageLess,
    OpensOnePageMore,
    TakesReadAway,
    TakesExecuteAway,
    RefusesWhatIsDone,
    FlipsWhatIsDone,
    TakesAnEmptyRangeForAPage,
    OpensWhatIsNotMapped,
    LeavesTheLastOfSeveralOpen,
    KeepsStaleTranslationsOfSeveral,
}

const FLAWS: [Flaw; 16] = [
    Flaw::KeepsStaleTranslations,
    Flaw::KeepsStaleRefusals,
    Flaw::OpensTheWholeBlock,
    Flaw::ProtectsTheWholeBlock,
    Flaw::LeavesTheFirstPageOpen,
    Flaw::LeavesTheLastPageOpen,
    Flaw::OpensOnePageLess,
    Flaw::OpensOnePageMore,
    Flaw::TakesReadAway,
    Flaw::TakesExecuteAway,
    Flaw::RefusesWhatIsDone,
    Flaw::FlipsWhatIsDone,
    Flaw::TakesAnEmptyRangeForAPage,
    Flaw::OpensWhatIsNotMapped,
    Flaw::LeavesTheLastOfSeveralOpen,
    Flaw::KeepsStaleTranslationsOfSeveral,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Permissions {
    read: bool,
    write: bool,
    execute: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Unmapped(u64),
    Already,
}

/// A table with one entry a page, and a TLB that keeps what it saw until it is told otherwise.
struct SoftMmu {
    pages: Vec<Permissions>,
    tlb: Vec<Option<Permissions>>,
    flaw: Option<Flaw>,
}

impl SoftMmu {
    fn new(flaw: Option<Flaw>) -> Self {
        let pages = ((RAM.end - RAM.start) / PAGE) as usize;
        let all = Permissions {
            read: true,
            write: true,
            execute: true,
        };
        Self {
            pages: vec![all; pages],
            tlb: vec![None; pages],
            flaw,
        }
    }

    fn access(&mut self, ipa: u64, allowed: impl Fn(Permissions) -> bool) -> bool {
        let Some(page) = page_of(ipa) else {
            return false;
        };
        allowed(*self.tlb[page].get_or_insert(self.pages[page]))
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn set(&mut self, range: Range<u64>, write: bool) -> Result<(), Refused> {
        if write && !self.has(Flaw::OpensWhatIsNotMapped) {
            let hole = addresses(range.clone()).find(|ipa| page_of(*ipa).is_none());
            hole.map_or(Ok(()), |ipa| Err(Refused::Unmapped(ipa)))?;
        }
        let range = self.misjudge(range, write);
        addresses(range)
            .filter_map(page_of)
            .try_for_each(|page| self.set_page(page, write))
    }

    fn misjudge(&self, range: Range<u64>, write: bool) -> Range<u64> {
        let Range { start, end } = range;
        let block = GEOMETRY.block_size();
        match (self.flaw, write) {
            (Some(Flaw::OpensTheWholeBlock), true) | (Some(Flaw::ProtectsTheWholeBlock), false) => {
                start / block * block..end.next_multiple_of(block)
            }
            (Some(Flaw::LeavesTheFirstPageOpen), false) => start + PAGE..end,
            (Some(Flaw::LeavesTheLastPageOpen), false) => start..end - PAGE,
            (Some(Flaw::OpensOnePageLess), true) => start..end - PAGE,
            (Some(Flaw::OpensOnePageMore), true) => start..end + PAGE,
            (Some(Flaw::TakesAnEmptyRangeForAPage), _) if start == end => start..end + PAGE,
            _ => range,
        }
    }

    fn set_page(&mut self, page: usize, write: bool) -> Result<(), Refused> {
        let already = self.pages[page].write == write;
        if already && self.has(Flaw::RefusesWhatIsDone) {
            return Err(Refused::Already);
        }
        self.pages[page] = Permissions {
            read: write || !self.has(Flaw::TakesReadAway),
            write: write ^ (already && self.has(Flaw::FlipsWhatIsDone)),
            execute: write || !self.has(Flaw::TakesExecuteAway),
        };
        let keeps = match write {
            true => Flaw::KeepsStaleRefusals,
            false => Flaw::KeepsStaleTranslations,
        };
        if !self.has(keeps) {
            self.tlb[page] = None;
        }
        Ok(())
    }
}

fn addresses(range: Range<u64>) -> impl Iterator<Item = u64> {
    range.step_by(PAGE as usize)
}

fn page_of(ipa: u64) -> Option<usize> {
    RAM.contains(&ipa)
        .then(|| ((ipa - RAM.start) / PAGE) as usize)
}

impl WriteProtectMut for SoftMmu {
    type Error = Refused;

    fn protect(&mut self, range: Range<u64>) -> Result<(), Refused> {
        self.set(range, false)
    }

    fn protect_all(&mut self, ranges: &[Range<u64>]) -> Result<(), Refused> {
        let stale = self.tlb.clone();
        let left = usize::from(self.has(Flaw::LeavesTheLastOfSeveralOpen));
        for range in &ranges[..ranges.len().saturating_sub(left)] {
            self.protect(range.clone())?;
        }
        if self.has(Flaw::KeepsStaleTranslationsOfSeveral) {
            self.tlb = stale;
        }
        Ok(())
    }

    fn unprotect(&mut self, range: Range<u64>) -> Result<(), Refused> {
        self.set(range, true)
    }
}

/// One of the locks of which the library makes a `WriteProtect`.
trait Lock: WriteProtect<Error: std::fmt::Debug> {
    fn around(mmu: SoftMmu) -> Self;
    fn inside<R>(&self, act: impl FnOnce(&mut SoftMmu) -> R) -> R;
}

impl Lock for Mutex<SoftMmu> {
    fn around(mmu: SoftMmu) -> Self {
        Mutex::new(mmu)
    }

    fn inside<R>(&self, act: impl FnOnce(&mut SoftMmu) -> R) -> R {
        act(&mut self.lock().expect("no thread died with it"))
    }
}

impl Lock for spin::Mutex<SoftMmu> {
    fn around(mmu: SoftMmu) -> Self {
        spin::Mutex::new(mmu)
    }

    fn inside<R>(&self, act: impl FnOnce(&mut SoftMmu) -> R) -> R {
        act(&mut self.lock())
    }
}

impl Lock for critical_section::Mutex<RefCell<SoftMmu>> {
    fn around(mmu: SoftMmu) -> Self {
        critical_section::Mutex::new(RefCell::new(mmu))
    }

    fn inside<R>(&self, act: impl FnOnce(&mut SoftMmu) -> R) -> R {
        critical_section::with(|section| act(&mut self.borrow_ref_mut(section)))
    }
}

struct SoftMachine<L>(L);

impl<L: Lock> SoftMachine<L> {
    fn new(flaw: Option<Flaw>) -> Self {
        Self(L::around(SoftMmu::new(flaw)))
    }
}

impl<L: Lock> Machine for SoftMachine<L> {
    type Protect = L;

    fn protection(&self) -> &L {
        &self.0
    }

    fn geometry(&self) -> PageGeometry {
        GEOMETRY
    }

    fn ram(&self) -> Range<u64> {
        RAM
    }

    fn hole(&self) -> Option<u64> {
        Some(HOLE)
    }

    fn try_write(&self, ipa: u64) -> bool {
        self.0.inside(|mmu| mmu.access(ipa, |page| page.write))
    }

    fn try_read(&self, ipa: u64) -> bool {
        self.0.inside(|mmu| mmu.access(ipa, |page| page.read))
    }

    fn try_fetch(&self, ipa: u64) -> bool {
        self.0.inside(|mmu| mmu.access(ipa, |page| page.execute))
    }
}

/// A test for each case and lock.
macro_rules! tests {
    ($($case:ident)+) => {
        mod behind_a_std_mutex {
            $(#[test] fn $case() { super::run::<super::Mutex<super::SoftMmu>>(stringify!($case)) })+
        }
        mod behind_a_spin_mutex {
            $(#[test] fn $case() { super::run::<spin::Mutex<super::SoftMmu>>(stringify!($case)) })+
        }
        mod behind_a_critical_section {
            use super::*;
            type Lock = critical_section::Mutex<RefCell<SoftMmu>>;
            $(#[test] fn $case() { run::<Lock>(stringify!($case)) })+
        }
    };
}
for_each_case!(tests);

fn run<L: Lock>(name: &str) {
    let (_, case) = conformance::cases()
        .find(|(case, _)| *case == name)
        .expect("both lists come from one macro");
    case(&SoftMachine::<L>::new(None));
}

#[test]
fn every_flaw_is_found() {
    for flaw in FLAWS {
        let found = conformance::cases()
            .filter(|(_, case)| {
                let machine = SoftMachine::<spin::Mutex<SoftMmu>>::new(Some(flaw));
                catch_unwind(AssertUnwindSafe(|| case(&machine))).is_err()
            })
            .count();
        assert!(found > 0, "the suite does not notice {flaw:?}");
    }
}

#[test]
fn edits_of_several_threads_do_not_undo_each_other() {
    fn edit<L: Lock + Sync>() {
        let machine = SoftMachine::<L>::new(None);
        let pages = (RAM.end - RAM.start) / PAGE;
        thread::scope(|scope| {
            for first in 0..4 {
                let protection = machine.protection();
                scope.spawn(move || {
                    for page in (first..pages).step_by(4) {
                        let ipa = RAM.start + page * PAGE;
                        protection.protect(ipa..ipa + PAGE).expect("mapped");
                        if page % 3 == 0 {
                            protection.unprotect(ipa..ipa + PAGE).expect("mapped");
                        }
                    }
                });
            }
        });
        for page in 0..pages {
            assert_eq!(machine.try_write(RAM.start + page * PAGE), page % 3 == 0);
        }
    }
    edit::<Mutex<SoftMmu>>();
    edit::<spin::Mutex<SoftMmu>>();
    edit::<critical_section::Mutex<RefCell<SoftMmu>>>();
}
