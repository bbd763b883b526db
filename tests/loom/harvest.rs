//! Laws 1 to 3: a harvest beside vCPUs that run on.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

use crate::by_hand::{ByHand, FaultOrder, HarvestOrder};
use crate::check::{holds, loses};
use crate::library::Library;
use crate::mmu::ipa;
use crate::scenario::{Tracking, armed, vcpu, write};

/// A harvest beside the first write to a page. One more when all is quiet must find the rest.
fn write_to_a_clean_page(tracking: impl Tracking) {
    let (tracking, mut copy) = armed(tracking);
    let vcpu = vcpu(&tracking, &[0]);
    copy.harvest(&*tracking);
    vcpu.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

/// A harvest beside a write to a page that it is about to take: it is dirty, and open.
fn write_to_a_dirty_page(tracking: impl Tracking) {
    let (tracking, mut copy) = armed(tracking);
    write(&*tracking, 0);
    let vcpu = vcpu(&tracking, &[0]);
    copy.harvest(&*tracking);
    vcpu.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

#[test]
fn first_write() {
    holds(|| write_to_a_clean_page(Library::new(1, 1)));
}

#[test]
fn second_write() {
    holds(|| write_to_a_dirty_page(Library::new(1, 1)));
}

/// That the wrong orders fail for their order alone: by hand too, the right one holds.
#[test]
fn by_hand_in_the_right_order() {
    holds(|| write_to_a_clean_page(ByHand::new(1)));
    holds(|| write_to_a_dirty_page(ByHand::new(1)));
}

#[test]
fn mark_then_grant() {
    loses(|| {
        write_to_a_clean_page(ByHand {
            fault: FaultOrder::MarkGrant,
            ..ByHand::new(1)
        });
    });
}

#[test]
fn protect_then_drain() {
    loses(|| {
        write_to_a_dirty_page(ByHand {
            harvest: HarvestOrder::ProtectDrainCopy,
            ..ByHand::new(1)
        });
    });
}

#[test]
fn copy_before_protect() {
    loses(|| {
        write_to_a_dirty_page(ByHand {
            harvest: HarvestOrder::DrainCopyProtect,
            ..ByHand::new(1)
        });
    });
}

/// One fault opens both pages; the other vCPU's store may slip in before they are marked.
#[test]
fn two_vcpus_of_a_block() {
    holds(|| {
        let (tracking, mut copy) = armed(Library::new(2, 2));
        let one = vcpu(&tracking, &[0]);
        let two = vcpu(&tracking, &[1]);
        copy.harvest(&*tracking);
        one.join().unwrap();
        two.join().unwrap();
        copy.harvest(&*tracking);
        copy.check(tracking.mmu());
    });
}

/// The re-arm of pages 0 and 2 protects page 1 along, whose fault is being handled.
#[test]
fn bridged_gap() {
    holds(|| {
        let (tracking, mut copy) = armed(Library::with_bridge(3, 1));
        write(&*tracking, 0);
        write(&*tracking, 2);
        let vcpu = vcpu(&tracking, &[1]);
        copy.harvest(&*tracking);
        vcpu.join().unwrap();
        copy.harvest(&*tracking);
        copy.check(tracking.mmu());
    });
}

/// Two harvesters of one page, with one copy between them, beside a vCPU that writes it again.
fn harvesters(tracking: impl Tracking) {
    let (tracking, _) = armed(tracking);
    write(&*tracking, 0);
    let copy = Arc::new(AtomicUsize::new(0));
    let harvest = {
        let (tracking, copy) = (Arc::clone(&tracking), Arc::clone(&copy));
        move || {
            // Refused while the other is at it, or delivered.
            tracking.harvest(&mut |page| {
                copy.store(tracking.mmu().copy(page).guest, Relaxed);
                true
            })
        }
    };
    let vcpu = vcpu(&tracking, &[0]);
    let other = thread::spawn({
        let harvest = harvest.clone();
        move || {
            harvest();
        }
    });
    harvest();
    vcpu.join().unwrap();
    other.join().unwrap();
    assert!(harvest(), "nobody else is at it");
    let (copy, memory) = (copy.load(Relaxed), tracking.mmu().copy(0).guest);
    assert!(
        copy == memory,
        "lost page 0: memory has {memory}, the copy {copy}"
    );
}

#[test]
fn two_harvesters() {
    holds(|| harvesters(Library::new(1, 1)));
}

/// Nothing refuses the second: the first one's copy is older, and arrives later.
#[test]
fn two_harvesters_at_once() {
    loses(|| harvesters(ByHand::new(1)));
}

/// What the VMM does to write a page: the two steps, in one order or the other.
type Tell = fn(&Library);

fn device_write(tell: Tell) {
    let (tracking, mut copy) = armed(Library::new(1, 1));
    write(&*tracking, 0);
    let vmm = {
        let tracking = Arc::clone(&tracking);
        thread::spawn(move || tell(&tracking))
    };
    copy.harvest(&*tracking);
    vmm.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

fn mark_written(library: &Library) {
    let byte = ipa(0)..ipa(0) + 1;
    library.tracker.mark_written(byte).unwrap();
}

#[test]
fn told_after_the_write() {
    holds(|| {
        device_write(|library| {
            library.mmu().device_store(0);
            mark_written(library);
        });
    });
}

#[test]
fn told_before_the_write() {
    loses(|| {
        device_write(|library| {
            mark_written(library);
            library.mmu().device_store(0);
        });
    });
}
