//! A clean checkpoint, or the end of tracking, beside a vCPU that runs on.

use std::sync::Arc;

use crate::by_hand::{ArmOrder, ByHand};
use crate::check::{holds, loses};
use crate::library::Library;
use crate::scenario::{Copy, Tracking, armed, vcpu};

/// The first arming: the page is open. What is written meanwhile is in the baseline, or marked.
fn arm_beside_writes(tracking: impl Tracking, writes: &'static [usize]) {
    let tracking = Arc::new(tracking);
    let vcpu = vcpu(&tracking, writes);
    let mut copy = None;
    tracking.arm(&mut || copy = Some(Copy::baseline(tracking.mmu())));
    vcpu.join().unwrap();
    let mut copy = copy.expect("arming copied it");
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

#[test]
fn arm_beside_a_write() {
    holds(|| arm_beside_writes(Library::new(1, 1), &[0, 0]));
}

#[test]
fn by_hand_in_the_right_order() {
    holds(|| arm_beside_writes(ByHand::new(1), &[0, 0]));
}

/// The page faults and is marked in between, and stays open when its mark is cleared.
#[test]
fn protect_then_clear() {
    loses(|| {
        let arm = ArmOrder::ProtectClearCopy;
        arm_beside_writes(
            ByHand {
                arm,
                ..ByHand::new(1)
            },
            &[0, 0],
        );
    });
}

/// A store goes to the page while it is still open, after it was copied.
#[test]
fn baseline_before_arm() {
    loses(|| {
        let arm = ArmOrder::ClearCopyProtect;
        arm_beside_writes(
            ByHand {
                arm,
                ..ByHand::new(1)
            },
            &[0, 0],
        );
    });
}

/// Ends tracking beside a vCPU's writes, and harvests once more.
fn disarm_beside_a_write(disarm: fn(&Library)) {
    let (tracking, mut copy) = armed(Library::new(2, 2));
    let vcpu = vcpu(&tracking, &[0, 1]);
    disarm(&tracking);
    vcpu.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

#[test]
fn disarm() {
    holds(|| disarm_beside_a_write(|library| library.tracker.disarm().unwrap()));
}

/// The host opens everything by itself: the writes that follow do not fault.
#[test]
fn opened_behind_the_tracker() {
    loses(|| {
        disarm_beside_a_write(|library| {
            library.mmu().open_page(0).unwrap();
            library.mmu().open_page(1).unwrap();
        });
    });
}
