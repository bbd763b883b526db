//! What KVM cannot track, and what goes wrong later: an error that says what to do.

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use pugmark::host::kvm::{DirtyLog, DirtyRing, KvmError, Offers, SetUpError, Slot, Unfit};
use pugmark::{ArmError, HarvestError, WriteProtect, WriteTracker};

use crate::guest::{Guest, RAM, Tracker, addresses, harvested, pages_of, regions, vm};
use crate::limits::{Refused, in_a_child, without};
use crate::memory::PAGE;
use crate::ring::ringed;
use crate::say;

#[test]
fn slots_that_are_none() {
    let Some(vm) = vm() else { return };
    let page = PAGE as u64;
    let good = Slot {
        slot: 1,
        ipa: 0,
        size: 4 * page,
    };
    let page_size = page;
    let last = u64::MAX - page + 1;
    let cases = [
        (Slot { size: 0, ..good }, Unfit::Empty),
        (
            Slot {
                size: page + 8,
                slot: 2,
                ipa: last,
            },
            Unfit::Unaligned { page_size },
        ),
        (Slot { ipa: 8, ..good }, Unfit::Unaligned { page_size }),
        (
            Slot {
                ipa: last,
                slot: 2,
                size: page,
            },
            Unfit::Overflow,
        ),
        (
            Slot {
                ipa: 64 * page,
                ..good
            },
            Unfit::Twice,
        ),
        (
            Slot {
                slot: 2,
                ipa: 3 * page,
                ..good
            },
            Unfit::Twice,
        ),
    ];
    for (slot, why) in cases {
        let refused = DirtyLog::automatic(Arc::clone(&vm), [good, slot]);
        let slot = slot.slot;
        assert_eq!(refused.err(), Some(SetUpError::Slot { slot, why }));
    }
    // Another address space shows other memory at the same address.
    let other = Slot {
        slot: 1 << 16,
        ..good
    };
    DirtyLog::automatic(vm, [good, other]).expect("two spaces");
}

/// The kernel writes a bit a page, however little room it was given.
#[test]
fn a_slot_that_is_larger_than_was_said_is_an_error_and_no_overrun() {
    let Some(vm) = vm() else { return };
    let mut guest = Guest::new(Arc::clone(&vm), true);
    let said = Slot {
        size: 64 * PAGE as u64,
        ..RAM[0]
    };
    let log = DirtyLog::automatic(vm, [said, RAM[1]]).expect("it cannot know");
    let tracker = WriteTracker::new(log, regions()).expect("in order");
    let addresses = addresses(1);
    guest.write(&addresses, 1, || {});
    let all = |tracker: &WriteTracker<_, Vec<_>>| -> usize {
        let regions = tracker.regions().iter();
        regions
            .map(|region: &pugmark::BoxedRegion| region.dirty().count())
            .sum()
    };
    let before = all(&tracker);
    let failed = tracker.harvest(|_| Ok::<_, ()>(()));
    let Err(HarvestError::Host { error, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(error, KvmError::SlotSize { slot: 1 });
    assert_eq!(all(&tracker), before, "every page was marked, and is");
}

#[test]
fn a_slot_that_is_not_logged_or_gone() {
    let Some(vm) = vm() else { return };
    let _guest = Guest::new(Arc::clone(&vm), false);
    let log = DirtyLog::automatic(Arc::clone(&vm), RAM).expect("it cannot know");
    let mut marked = Vec::new();
    let failed = log.take_log(&mut |ranges| marked.extend_from_slice(ranges));
    assert_eq!(failed, Err(KvmError::NotLogged { slot: 1 }));
    assert_eq!(marked, RAM.map(|slot| slot.ipas()));

    let absent = Slot {
        slot: 9,
        ipa: 0x3000_0000,
        size: 4096,
    };
    let log = DirtyLog::automatic(vm, [absent]).expect("it cannot know");
    let failed = log.take_log(&mut |_| {});
    assert_eq!(failed, Err(KvmError::NotLogged { slot: 9 }));
}

#[test]
fn one_slot_fails_and_the_other_loses_nothing() {
    let Some(vm) = vm() else { return };
    let mut guest = Guest::new(Arc::clone(&vm), true);
    let log = DirtyLog::new(Arc::clone(&vm), RAM).expect("two slots");
    let tracker = WriteTracker::new(log, regions()).expect("in order");
    tracker.arm().expect("KVM tells");
    let addresses = addresses(3);
    guest.write(&addresses, 1, || {});
    // The first slot is gone.
    let gone = kvm_userspace_memory_region {
        slot: RAM[0].slot,
        guest_phys_addr: RAM[0].ipa,
        memory_size: 0,
        userspace_addr: guest.ram[0].address(),
        flags: KVM_MEM_LOG_DIRTY_PAGES,
    };
    // SAFETY: it takes memory away from the guest.
    unsafe { vm.set_user_memory_region(gone) }.expect("it is deleted");
    tracker
        .harvest(|_| Ok::<_, ()>(()))
        .expect_err("a slot is gone");
    let counts: Vec<_> = tracker
        .regions()
        .iter()
        .map(|r| r.dirty().count())
        .collect();
    let in_second = addresses.iter().filter(|address| **address >= RAM[1].ipa);
    let in_second: Vec<_> = in_second.copied().collect();
    let whole = tracker.regions()[0].pages();
    assert_eq!(counts, [whole, pages_of(&in_second).len()]);
}

/// A VM whose KVM has rings.
fn vm_with_rings() -> Option<Arc<VmFd>> {
    let vm = vm()?;
    if Offers::of(&vm).ring_entries == 0 {
        say!("skipped: this KVM has no dirty ring");
        return None;
    }
    Some(vm)
}

#[test]
fn rings_that_cannot_be() {
    let Some(vm) = vm_with_rings() else { return };
    for entries in [0, 3, 128, 300, 1 << 31] {
        let refused = DirtyRing::new(Arc::clone(&vm), entries).err();
        let Some(SetUpError::RingEntries { entries: said, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(said, entries);
    }
    let ring = DirtyRing::new(Arc::clone(&vm), 256).expect("before the first vCPU");
    let again = DirtyRing::new(Arc::clone(&vm), 256);
    assert_eq!(again.err(), Some(SetUpError::TooLate));
    // The log is not to be had beside it.
    let guest = Guest::new(Arc::clone(&vm), true);
    let log = DirtyLog::automatic(vm, RAM).expect("it cannot know");
    let failed = log.take_log(&mut |_| {});
    assert_eq!(failed, Err(KvmError::RingInUse));

    ring.add_vcpu(&guest.vcpu).expect("its vCPU");
    let Some(other) = self::vm() else { return };
    let other = Guest::new(other, true);
    let refused = ring.add_vcpu(&other.vcpu).err();
    assert!(
        matches!(refused, Some(SetUpError::Vcpu { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_ring_that_comes_too_late() {
    let Some(vm) = vm_with_rings() else { return };
    let _guest = Guest::new(Arc::clone(&vm), true);
    let late = DirtyRing::new(vm, 256);
    assert_eq!(late.err(), Some(SetUpError::TooLate));
}

#[test]
fn a_slot_that_the_ring_was_not_told_of() {
    let Some(vm) = vm_with_rings() else { return };
    let ring = DirtyRing::new(Arc::clone(&vm), 4096).expect("before the first vCPU");
    let mut guest = Guest::new(vm, true);
    ring.add_vcpu(&guest.vcpu).expect("its vCPU");
    ring.add_slot(RAM[0]).expect("another slot");
    let tracker = WriteTracker::new(ring, regions()).expect("in order");
    tracker.regions().iter().for_each(|r| r.dirty().clear());
    let addresses = addresses(2);
    guest.write(&addresses, 1, || {});
    let failed = tracker.harvest(|_| Ok::<_, ()>(()));
    let Err(HarvestError::Host { error, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(error, KvmError::UnknownSlot { slot: RAM[1].slot });
    // Its pages left the ring, and are not lost.
    tracker.protection().add_slot(RAM[1]).expect("another slot");
    let reported = harvested(&tracker);
    assert!(reported.is_superset(&pages_of(&addresses)));
    guest.write(&addresses, 2, || {});
    assert_eq!(harvested(&tracker), pages_of(&addresses));
}

/// What was taken out of the ring and not protected again can be written unseen, until it is.
#[test]
fn a_ring_that_is_not_reset_is_told_of_again() {
    let Some((mut guest, tracker)) = ringed(4096) else {
        return;
    };
    tracker.arm().expect("KVM tells");
    let addresses = addresses(5);
    guest.write(&addresses, 1, || {});
    let reset = Refused {
        call: libc::SYS_ioctl,
        second: Some(0xaec7),
        errno: libc::ENOTTY,
    };
    without(reset, || {
        let failed = tracker.collect_log();
        assert!(matches!(failed, Err(KvmError::Call { .. })), "{failed:?}");
    });
    // All that is marked by now is delivered, as if nothing were left.
    let before: usize = tracker.regions().iter().map(|r| r.dirty().count()).sum();
    assert_eq!(before, pages_of(&addresses).len());
    tracker
        .regions()
        .iter()
        .for_each(|region| region.dirty().clear());
    guest.write(&addresses, 2, || {});
    assert_eq!(harvested(&tracker), pages_of(&addresses));
    assert!(harvested(&tracker).is_empty());
}

/// What no slot covers is in no log: it must not look tracked.
#[test]
fn a_region_that_is_larger_than_its_slots() {
    fn refused<P: WriteProtect<Error = KvmError>>(tracker: &Tracker<P>) {
        let second = RAM[1].ipas();
        let (start, end) = (second.start, second.end);
        let error = KvmError::NoSlot { start, end };
        let armed = tracker.arm();
        assert_eq!(armed, Err(ArmError::Host { start, end, error }));
        let failed = tracker.harvest(|_| Ok::<_, ()>(()));
        let Err(HarvestError::Host { error, .. }) = failed else {
            panic!("{failed:?}");
        };
        assert!(matches!(error, KvmError::NoSlot { .. }), "{error:?}");
        assert_eq!(tracker.regions()[1].dirty().count(), 700);
    }
    let Some(vm) = vm_with_rings() else { return };
    let _guest = Guest::new(Arc::clone(&vm), true);
    let log = DirtyLog::automatic(vm, [RAM[0]]).expect("a slot");
    refused(&WriteTracker::new(log, regions()).expect("in order"));

    let page = PAGE as u64;
    // A hole of a page between the two slots of the second region.
    let first = Slot {
        size: 300 * page,
        ..RAM[1]
    };
    let second = Slot {
        slot: 3,
        ipa: first.ipas().end + page,
        size: RAM[1].size - 301 * page,
    };
    let Some(vm) = vm_with_rings() else { return };
    let ring = DirtyRing::new(Arc::clone(&vm), 4096).expect("before the first vCPU");
    let guest = Guest::new(vm, true);
    ring.add_vcpu(&guest.vcpu).expect("its vCPU");
    for slot in [RAM[0], second, first] {
        ring.add_slot(slot).expect("apart");
    }
    let tracker = WriteTracker::new(ring, regions()).expect("in order");
    refused(&tracker);
    // Two slots side by side are as good as one.
    let between = Slot {
        slot: 4,
        ipa: first.ipas().end,
        size: page,
    };
    tracker.protection().add_slot(between).expect("apart");
    tracker.arm().expect("every page is in a slot");
}

/// A reset that a signal cut short: the kernel says how many it did, here none at all.
#[test]
fn a_reset_that_comes_short_leaves_its_pages_reported() {
    let Some((mut guest, tracker)) = ringed(4096) else {
        return;
    };
    tracker.arm().expect("KVM tells");
    let addresses = addresses(4);
    guest.write(&addresses, 1, || {});
    let short = Refused {
        call: libc::SYS_ioctl,
        second: Some(0xaec7),
        errno: 0,
    };
    without(short, || {
        let failed = tracker.collect_log();
        let errno = libc::EINTR;
        assert!(matches!(failed, Err(KvmError::Call { errno: said, .. }) if said == errno));
    });
    tracker.regions().iter().for_each(|r| r.dirty().clear());
    // Nobody knows which of them are open.
    for _ in 0..2 {
        assert_eq!(harvested(&tracker), pages_of(&addresses));
    }
}

#[test]
fn a_child_of_fork_cannot_take_the_parents_ring() {
    let Some((mut guest, tracker)) = ringed(4096) else {
        return;
    };
    tracker.arm().expect("KVM tells");
    let addresses = addresses(6);
    guest.write(&addresses, 1, || {});
    assert!(in_a_child(|| {
        let refused = tracker.collect_log() == Err(KvmError::Forked);
        // SAFETY: the child's copy; it does not touch it again, nor run a destructor of it.
        drop(unsafe { std::ptr::read(&raw const tracker) });
        refused
    }));
    assert_eq!(harvested(&tracker), pages_of(&addresses));
    guest.write(&addresses, 2, || {});
    assert_eq!(harvested(&tracker), pages_of(&addresses));
}

#[test]
fn a_child_of_fork_has_no_vm() {
    let Some(vm) = vm() else { return };
    let _guest = Guest::new(Arc::clone(&vm), true);
    let log = DirtyLog::new(vm, RAM).expect("two slots");
    assert!(in_a_child(
        || log.take_log(&mut |_| {}) == Err(KvmError::Forked)
    ));
    log.take_log(&mut |_| {}).expect("the parent has it");
}
