//! The truth, found without the tracker: the guest's memory, compared with a copy from the
//! checkpoint before.

use super::{
    guest::Class,
    harvester,
    layout::{GUEST_PAGES, PAGE_SIZE},
    memory,
};

/// What a checkpoint found, in pages.
#[derive(Clone, Copy)]
pub struct Findings {
    /// That differ from the checkpoint before: they were written.
    pub written: usize,
    /// That were in a harvest.
    pub reported: usize,
    /// That were written and in no harvest, or whose copy at the destination is not what the guest
    /// has.
    pub lost: usize,
}

impl Findings {
    /// Nothing.
    pub const NONE: Self = Self {
        written: 0,
        reported: 0,
        lost: 0,
    };
}

impl core::ops::AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.reported += other.reported;
        self.lost += other.lost;
    }
}

/// Which pages were ever written.
pub struct Truth {
    ever_written: [bool; GUEST_PAGES],
}

impl Truth {
    /// Nothing was written yet.
    pub const fn new() -> Self {
        Self {
            ever_written: [false; GUEST_PAGES],
        }
    }

    /// Takes the guest's memory as it is for the truth, after the first final harvest.
    pub fn begin(&mut self) {
        for (index, ipa) in memory::pages() {
            memory::copy(ipa, memory::truth(index), PAGE_SIZE);
            harvester::was_reported(index);
        }
    }

    /// Compares, with every vCPU parked and after the final harvest: the pages that are the class's
    /// own, and all others.
    pub fn check(&mut self, class: &Class) -> (Findings, Findings) {
        let (mut own, mut other) = (Findings::NONE, Findings::NONE);
        for (index, ipa) in memory::pages() {
            // The destination was right at the checkpoint before, so where nothing was written and
            // nothing reported it is right still. `check_destination` makes sure in the end.
            let reported = harvester::was_reported(index);
            let written = !memory::same(ipa, memory::truth(index));
            if !reported && !written {
                continue;
            }
            let lost = (written && !reported) || !memory::same(ipa, memory::destination(index));
            let findings = if class.owns(ipa) {
                &mut own
            } else {
                &mut other
            };
            *findings += Findings {
                written: written.into(),
                reported: reported.into(),
                lost: lost.into(),
            };
            if written {
                self.ever_written[index] = true;
                memory::copy(ipa, memory::truth(index), PAGE_SIZE);
            }
            if lost {
                // Once is enough: else the next checkpoint finds it again.
                memory::copy(ipa, memory::destination(index), PAGE_SIZE);
            }
        }
        (own, other)
    }

    /// Compares the whole destination, also where nobody claims a change. Pages that differ.
    pub fn check_destination(&self) -> usize {
        memory::pages()
            .filter(|&(index, ipa)| !memory::same(ipa, memory::destination(index)))
            .count()
    }

    /// How many of `pages` were ever written.
    pub fn ever_written(&self, pages: core::ops::Range<usize>) -> usize {
        self.ever_written[pages]
            .iter()
            .filter(|&&written| written)
            .count()
    }
}
