//! The dirty log.

use std::sync::Arc;

use pugmark::WriteTracker;
use pugmark::host::kvm::{DirtyLog, Offers};

use crate::guest::{Guest, RAM, addresses, check, harvested, pages_of, regions, vm};
use crate::say;

#[test]
fn automatic_protection() {
    let Some(vm) = vm() else { return };
    let mut guest = Guest::new(vm.clone(), true);
    let log = DirtyLog::automatic(vm, RAM).expect("two slots");
    assert!(!log.is_manual());
    let tracker = WriteTracker::new(log, regions()).expect("in order");
    check("dirty log, automatic", &mut guest, &tracker);
}

#[test]
fn manual_protection() {
    let Some(vm) = vm() else { return };
    if !Offers::of(&vm).manual_protect {
        say!("skipped: this KVM has no manual protection");
        return;
    }
    let mut guest = Guest::new(vm.clone(), true);
    let log = DirtyLog::new(vm, RAM).expect("two slots");
    assert!(log.is_manual());
    let tracker = WriteTracker::new(log, regions()).expect("in order");
    check("dirty log, manual", &mut guest, &tracker);
}

#[test]
fn what_a_failed_harvest_had_is_in_the_next() {
    let Some(vm) = vm() else { return };
    let mut guest = Guest::new(vm.clone(), true);
    let log = DirtyLog::new(Arc::clone(&vm), RAM).expect("two slots");
    let tracker = WriteTracker::new(log, regions()).expect("in order");
    tracker.arm().expect("KVM tells");
    let addresses = addresses(7);
    let (first, second) = addresses.split_at(addresses.len() / 2);
    guest.write(first, 1, || {});
    drop(tracker.begin_harvest().expect("KVM tells"));
    guest.write(second, 2, || {});
    tracker.harvest(|_| Err(())).expect_err("it is refused");
    let reported = harvested(&tracker);
    assert!(reported.is_superset(&pages_of(&addresses)));
}
