//! What a test wants to go wrong, or to take its time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::{ERROR, lock};
use crate::vmm::Rng;

/// The two things that the layer asks `hv_vm_protect` for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Protect,
    Open,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It did nothing.
    AtOnce,
    /// It did the first half.
    HalfWay,
    /// It did everything, and says that it failed.
    AtTheEnd,
}

impl Failure {
    pub const ALL: [Self; 3] = [Self::AtOnce, Self::HalfWay, Self::AtTheEnd];
}

/// Arguments of `hv_vm_protect`: IPA, size, flags.
pub type Arguments = (u64, usize, u64);

#[derive(Default)]
pub struct Plan {
    /// The calls of this kind to go until one fails, how, and with which code.
    failure: Mutex<Option<(Call, usize, Failure, u32)>>,
    /// Of 65,536 calls, how many fail on their own, and how many did.
    failing: AtomicU32,
    failed: AtomicUsize,
    /// Calls change nothing, and say that they did.
    deaf: AtomicBool,
    /// Calls that open pages do not return.
    held: AtomicBool,
    /// Calls of `hv_vcpus_exit` to lose.
    lost_exits: AtomicUsize,
    /// Calls take their time.
    slow: AtomicBool,
    /// What chance has decided so far.
    seed: AtomicU64,
    calls: Mutex<Option<Vec<Arguments>>>,
}

impl Plan {
    /// The `n`th call of this kind from now on, counted from 0, fails.
    pub fn fail(&self, call: Call, n: usize, how: Failure, code: u32) {
        *lock(&self.failure) = Some((call, n, how, code));
    }

    /// Of 65,536 calls so many fail, in a way that chance decides.
    pub fn fail_often(&self, of_65536: u32) {
        self.failing.store(of_65536, Relaxed);
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.failed.load(Relaxed)
    }

    pub fn set_deaf(&self, deaf: bool) {
        self.deaf.store(deaf, Relaxed);
    }

    pub fn hold_open(&self, held: bool) {
        self.held.store(held, Relaxed);
    }

    pub fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Relaxed);
    }

    pub fn lose_exits(&self, calls: usize) {
        self.lost_exits.store(calls, Relaxed);
    }

    /// The calls of `hv_vm_protect` since this was last asked; none before the first time.
    pub fn take_calls(&self) -> Vec<Arguments> {
        lock(&self.calls).replace(Vec::new()).unwrap_or_default()
    }

    pub(super) fn note(&self, arguments: Arguments) {
        if let Some(calls) = &mut *lock(&self.calls) {
            calls.push(arguments);
        }
    }

    pub(super) fn ignores_exit(&self) -> bool {
        let one_less = |calls: usize| calls.checked_sub(1);
        self.lost_exits
            .fetch_update(Relaxed, Relaxed, one_less)
            .is_ok()
    }

    fn failure_due(&self, call: Call, chance: &mut Rng) -> Option<(Failure, u32)> {
        let mut failure = lock(&self.failure);
        if let Some((kind, left, how, code)) = *failure
            && kind == call
        {
            *failure = left.checked_sub(1).map(|left| (kind, left, how, code));
            return failure.is_none().then_some((how, code));
        }
        let fails = chance.below(1 << 16) < u64::from(self.failing.load(Relaxed));
        fails.then(|| (Failure::ALL[chance.below(3) as usize], ERROR))
    }

    /// Changes so many pages by `change`, as planned.
    pub(super) fn carry_out(
        &self,
        call: Call,
        pages: usize,
        change: impl Fn(usize),
    ) -> Result<(), u32> {
        let mut chance = Rng(self.seed.fetch_add(1, Relaxed));
        let slow = self.slow.load(Relaxed);
        let pause = |chance: &mut Rng| {
            if slow {
                match chance.below(8) {
                    0 => thread::yield_now(),
                    1 => (0..chance.below(400)).for_each(|_| std::hint::spin_loop()),
                    _ => {}
                }
            }
        };
        while call == Call::Open && self.held.load(Relaxed) {
            thread::yield_now();
        }
        let failure = self.failure_due(call, &mut chance);
        let done = match failure {
            _ if self.deaf.load(Relaxed) => 0,
            Some((Failure::AtOnce, _)) => 0,
            Some((Failure::HalfWay, _)) => pages / 2,
            Some((Failure::AtTheEnd, _)) | None => pages,
        };
        pause(&mut chance);
        let pause_at = chance.below(pages as u64) as usize;
        for page in 0..done {
            change(page);
            if page == pause_at {
                pause(&mut chance);
            }
        }
        pause(&mut chance);
        failure.map_or(Ok(()), |(_, code)| {
            self.failed.fetch_add(1, Relaxed);
            Err(code)
        })
    }
}
