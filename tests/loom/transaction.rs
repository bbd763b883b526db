//! Law 6: what a harvest took and did not deliver is marked again.

use pugmark::Harvest;

use crate::by_hand::{ByHand, Rest};
use crate::check::{holds, loses};
use crate::library::{Library, Regions};
use crate::mmu::{Mmu, pages};
use crate::scenario::{Copy, Tracking, armed, vcpu, write};

/// Two dirty pages with a clean one between them; a vCPU writes `beside`, and the consumer takes
/// the first page and refuses the next.
fn refusal(tracking: impl Tracking, beside: &'static [usize]) {
    let (tracking, mut copy) = armed(tracking);
    write(&*tracking, 0);
    write(&*tracking, 2);
    let vcpu = vcpu(&tracking, beside);
    let whole = tracking.harvest(&mut |page| {
        if page == 0 {
            copy.take(tracking.mmu(), page);
        }
        page == 0
    });
    assert!(!whole, "page 2 was refused");
    vcpu.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

#[test]
fn consumer_refuses() {
    holds(|| refusal(Library::new(3, 1), &[0]));
    holds(|| refusal(Library::new(3, 1), &[1]));
    holds(|| refusal(Library::new(3, 1), &[2]));
}

#[test]
fn refusal_forgets_the_rest() {
    loses(|| {
        let rest = Rest::Forgotten;
        refusal(
            ByHand {
                rest,
                ..ByHand::new(3)
            },
            &[1],
        );
    });
}

/// How an open harvest ends.
type End = fn(Harvest<'_, Mmu, Regions>, &mut Copy, &Mmu);

/// A two-phase harvest of a dirty page, beside a vCPU that writes it again, and another.
fn two_phase(end: End) {
    let (tracking, mut copy) = armed(Library::new(2, 1));
    write(&*tracking, 0);
    let vcpu = vcpu(&tracking, &[0, 1]);
    let harvest = tracking.tracker.begin_harvest().unwrap();
    end(harvest, &mut copy, tracking.mmu());
    vcpu.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

#[test]
fn dropped() {
    holds(|| two_phase(|harvest, _, _| drop(harvest)));
}

#[test]
fn committed() {
    holds(|| {
        two_phase(|harvest, copy, mmu| {
            for run in harvest.runs() {
                pages(run.range()).for_each(|page| copy.take(mmu, page));
            }
            harvest.commit();
        });
    });
}

/// A drop that only forgets, which is what a commit does, of pages that nobody has copied.
#[test]
fn dropped_without_restore() {
    loses(|| {
        two_phase(|harvest, _, _| {
            harvest.commit();
        });
    });
}
