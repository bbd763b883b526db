//! What the guests do, and what they know to have done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use super::{Run, VCPUS};
use crate::model::{Access, Form, Program};
use crate::vmm::{HVC, Rng};

/// A device's register: a store to it makes the VMM write to RAM.
pub const MMIO: u64 = 0x9000_0000;

/// Bytes that a vCPU has of each page: what DC ZVA zeroes. Devices have as much, above all of them.
const LINE: u64 = 64;

/// Offsets in each page at which anyone ever writes.
pub fn slots() -> impl Iterator<Item = u64> {
    (0..2 * VCPUS as u64).map(|line| line * LINE)
}

/// What one guest knows to have done.
#[derive(Clone)]
pub struct Seen(Arc<Inner>);

struct Inner {
    /// By page, the value that it is to have stored last.
    last: Box<[AtomicU64]>,
    /// Accesses that came to pass.
    done: BTreeMap<Form, AtomicU64>,
}

impl Form {
    /// Those that need permission to write.
    pub const WRITES: [Self; 7] = [
        Self::Store,
        Self::StoreWithoutSyndrome,
        Self::ZeroLine,
        Self::CacheMaintenance,
        Self::WalkForLoad,
        Self::WalkForStore,
        Self::WalkForFetch,
    ];
}

impl Seen {
    pub fn new(pages: usize) -> Self {
        let forms = Form::WRITES.into_iter().chain([Form::Load, Form::Fetch]);
        Self(Arc::new(Inner {
            last: (0..pages).map(|_| AtomicU64::new(0)).collect(),
            done: forms.map(|form| (form, AtomicU64::new(0))).collect(),
        }))
    }

    pub fn done(&self, form: Form) -> u64 {
        self.0.done[&form].load(Relaxed)
    }

    /// Stores of any kind that came to pass.
    pub fn stores(&self) -> u64 {
        let stores = Form::WRITES.iter();
        let stores = stores.filter(|form| **form != Form::CacheMaintenance);
        stores.map(|form| self.done(*form)).sum()
    }

    /// Pages that do not hold what it stored there last.
    pub fn dropped(&self, vcpu: usize, run: &Run) -> usize {
        let word = |page: &u64| run.vm.load(page + vcpu as u64 * LINE);
        let pages = run.pages.iter().zip(&self.0.last);
        let dropped = pages.filter(|(page, last)| word(page) != last.load(Relaxed));
        dropped.count()
    }
}

/// A guest that makes so many accesses, as chance decides.
pub struct Guest {
    vcpu: usize,
    chance: Rng,
    left: u64,
    pages: Vec<u64>,
    /// The page of the access at PC, by its index.
    page: usize,
    seen: Seen,
}

impl Guest {
    pub fn new(vcpu: usize, seed: u64, accesses: u64, pages: &[u64], seen: Seen) -> Self {
        Self {
            vcpu,
            chance: Rng(seed << 8 | vcpu as u64),
            left: accesses,
            pages: pages.into(),
            page: 0,
            seen,
        }
    }

    /// Where a device writes in the name of this vCPU.
    pub fn device_slot(&self) -> u64 {
        (VCPUS + self.vcpu) as u64 * LINE
    }

    fn choose_page(&mut self) {
        let pages = self.pages.len() as u64;
        self.page = match self.chance.below(8) {
            // One after the other, a few that are hot, any.
            0..=3 => (self.page + 1) % self.pages.len(),
            4..=6 => self.chance.below(12) as usize * 7 % self.pages.len(),
            _ => self.chance.below(pages) as usize,
        };
    }
}

impl Guest {
    /// What it will have stored, if nobody drops the access.
    fn note(&self, access: Access) {
        let value = match access.form {
            Form::Load | Form::Fetch | Form::CacheMaintenance | Form::Trap => return,
            Form::ZeroLine => 0,
            _ => access.value,
        };
        self.seen.0.last[self.page].store(value, Relaxed);
    }
}

impl Program for Guest {
    fn next(&mut self) -> Access {
        let Some(left) = self.left.checked_sub(1) else {
            return Access {
                form: Form::Trap,
                ipa: HVC,
                value: 0,
            };
        };
        self.left = left;
        // There are more threads than cores.
        if self.chance.below(256) == 0 {
            thread::yield_now();
        }
        self.choose_page();
        let ipa = self.pages[self.page] + self.vcpu as u64 * LINE;
        let (form, ipa) = match self.chance.below(128) {
            0 => (Form::Store, MMIO),
            1 => (Form::CacheMaintenance, ipa),
            2 => (Form::WalkForLoad, ipa),
            3 => (Form::WalkForStore, ipa),
            4 => (Form::WalkForFetch, ipa),
            5 | 6 => (Form::ZeroLine, ipa),
            7 => (Form::Load, ipa),
            8 => (Form::Fetch, ipa),
            9..60 => (Form::StoreWithoutSyndrome, ipa),
            _ => (Form::Store, ipa),
        };
        let access = Access {
            form,
            ipa,
            value: left + 1,
        };
        if ipa != MMIO {
            self.note(access);
        }
        access
    }

    fn done(&mut self, access: Access) {
        self.seen.0.done[&access.form].fetch_add(1, Relaxed);
    }
}
