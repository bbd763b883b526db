//! A host that keeps the log itself, such as KVM, whose log is taken by a vCPU's thread beside a
//! harvest: because it is full.

use std::ops::Range;
use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use pugmark::{WriteProtect, WriteTracker};

use crate::check::{holds, loses};
use crate::library::{Library, Refused, Regions};
use crate::mmu::{Failed, ipa};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    ReadRenewTell,
    ReadTellRenew,
}

const WRITABLE: usize = 1;
const LOGGED: usize = 2;
const STORE: usize = 4;

/// One page, and KVM's manual log of it: a word in which a store opens the page, logs it and stores, in
/// one step, as nobody sees the kernel between.
struct Kernel {
    page: AtomicUsize,
    order: Order,
}

impl Kernel {
    fn store(&self) {
        let mut seen = WRITABLE;
        loop {
            let logged = if seen & WRITABLE == 0 { LOGGED } else { 0 };
            let next = (seen | WRITABLE | logged) + STORE;
            match self.page.compare_exchange(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn stores(&self) -> usize {
        self.page.load(Relaxed) / STORE
    }
}

impl WriteProtect for Kernel {
    type Error = Failed;

    fn protect(&self, _: Range<u64>) -> Result<(), Failed> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Failed> {
        Ok(())
    }

    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), Failed> {
        if self.page.load(Relaxed) & LOGGED != 0 {
            let renew = || self.page.fetch_and(!(WRITABLE | LOGGED), Relaxed);
            if self.order == Order::ReadTellRenew {
                written(std::slice::from_ref(&(ipa(0)..ipa(1))));
                renew();
            } else {
                renew();
                written(std::slice::from_ref(&(ipa(0)..ipa(1))));
            }
        }
        Ok(())
    }
}

fn harvest(tracker: &WriteTracker<Kernel, Regions>, copy: &mut usize) {
    let outcome = tracker.harvest(|_| {
        *copy = tracker.protection().stores();
        Ok::<_, Refused>(())
    });
    outcome.expect("nothing else is open");
}

fn full_log(order: Order) {
    let kernel = Kernel {
        page: AtomicUsize::new(WRITABLE | LOGGED),
        order,
    };
    let tracker = Arc::new(Library::over(kernel, 1, 1));
    tracker.arm().expect("nothing else is open");
    let mut copy = tracker.protection().stores();
    tracker.protection().store();

    let collector = {
        let tracker = Arc::clone(&tracker);
        thread::spawn(move || tracker.collect_log().expect("it does not fail"))
    };
    let vcpu = {
        let tracker = Arc::clone(&tracker);
        thread::spawn(move || tracker.protection().store())
    };
    harvest(&tracker, &mut copy);
    collector.join().unwrap();
    vcpu.join().unwrap();
    harvest(&tracker, &mut copy);
    let memory = tracker.protection().stores();
    assert!(
        copy == memory,
        "lost page 0: memory has {memory} stores, the copy {copy}"
    );
}

#[test]
fn full_log_beside_a_harvest() {
    holds(|| full_log(Order::ReadRenewTell));
}

#[test]
fn told_before_it_is_renewed() {
    loses(|| full_log(Order::ReadTellRenew));
}
