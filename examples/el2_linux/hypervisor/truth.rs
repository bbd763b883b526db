//! The truth, found without the tracker: the guest's memory, compared with a copy from the
//! checkpoint before. All of it, each time.

use core::ops::{AddAssign, Range};

use super::{
    harvester,
    layout::{DESTINATION, GUEST_PAGES, PAGE_SIZE, page_ipa},
    memory,
};

/// What a checkpoint found, in pages.
#[derive(Clone, Copy)]
pub struct Findings {
    /// That differ from the checkpoint before: they were written.
    pub written: usize,
    /// That were in a harvest.
    pub reported: usize,
    /// That were written and in no harvest.
    pub lost: usize,
    /// That were in a harvest and do not differ: a block was opened for a neighbour's sake, or what
    /// was written is what was there.
    pub over: usize,
}

impl Findings {
    /// Nothing.
    pub const NONE: Self = Self {
        written: 0,
        reported: 0,
        lost: 0,
        over: 0,
    };
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.reported += other.reported;
        self.lost += other.lost;
        self.over += other.over;
    }
}

/// The judge's half of the pages, and the harvester's.
pub const FIRST_HALF: Range<usize> = 0..GUEST_PAGES / 2;
/// See [`FIRST_HALF`].
pub const SECOND_HALF: Range<usize> = GUEST_PAGES / 2..GUEST_PAGES;

/// Compares `pages` with their copies, with the world stopped and after the final harvest; then
/// their copies are right again.
pub fn check(pages: Range<usize>) -> Findings {
    let mut findings = Findings::NONE;
    for index in pages {
        let ipa = page_ipa(index);
        let reported = harvester::was_reported(index);
        let written = !memory::same(ipa, memory::truth(index));
        if written {
            memory::copy(ipa, memory::truth(index), PAGE_SIZE);
        }
        findings += Findings {
            written: written.into(),
            reported: reported.into(),
            lost: (written && !reported).into(),
            over: (reported && !written).into(),
        };
    }
    findings
}

/// Pages that differ between the guest's memory and where it was migrated to.
pub fn differing() -> usize {
    (0..GUEST_PAGES)
        .filter(|&index| {
            let destination = DESTINATION + index as u64 * PAGE_SIZE;
            !memory::same(page_ipa(index), destination)
        })
        .count()
}
