//! Law 8: what may have become writable is marked, though the host failed.

use std::sync::Arc;

use pugmark::ArmError;

use crate::by_hand::{ByHand, FaultOrder, Rest};
use crate::check::{holds, loses};
use crate::library::Library;
use crate::scenario::{Copy, Tracking, armed, vcpu, write};

/// The grant of a vCPU's first write fails, having opened the page.
fn failing_grant(tracking: impl Tracking) {
    let (tracking, mut copy) = armed(tracking);
    tracking.mmu().fail_next_unprotect();
    let vcpu = vcpu(&tracking, &[0]);
    copy.harvest(&*tracking);
    vcpu.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

/// A harvest can protect only the first of two dirty pages that a vCPU writes again.
fn failing_protect(tracking: impl Tracking) {
    let (tracking, mut copy) = armed(tracking);
    write(&*tracking, 0);
    write(&*tracking, 1);
    tracking.mmu().fail_next_protect();
    let vcpu = vcpu(&tracking, &[0, 1]);
    let whole = tracking.harvest(&mut |_| unreachable!("nothing is delivered"));
    assert!(!whole, "the host failed");
    vcpu.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

#[test]
fn grant_fails() {
    holds(|| failing_grant(Library::new(2, 2)));
}

#[test]
fn protect_fails() {
    holds(|| failing_protect(Library::new(2, 1)));
}

#[test]
fn arm_fails() {
    holds(|| {
        let tracking = Arc::new(Library::new(2, 1));
        let mut copy = Copy::baseline(tracking.mmu());
        tracking.mmu().fail_next_protect();
        let vcpu = vcpu(&tracking, &[0, 1]);
        let armed = tracking.tracker.arm();
        assert!(matches!(armed, Err(ArmError::Host { .. })), "{armed:?}");
        vcpu.join().unwrap();
        copy.harvest(&*tracking);
        copy.check(tracking.mmu());
    });
}

#[test]
fn failed_grant_is_not_marked() {
    loses(|| {
        failing_grant(ByHand {
            fault: FaultOrder::GrantMarkIfGranted,
            ..ByHand::new(1)
        });
    });
}

#[test]
fn failed_protect_is_forgotten() {
    loses(|| {
        failing_protect(ByHand {
            rest: Rest::Forgotten,
            ..ByHand::new(2)
        });
    });
}
