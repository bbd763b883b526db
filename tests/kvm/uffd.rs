//! userfaultfd on the memory of a KVM guest, both forms.

use std::sync::Arc;

use pugmark::WriteTracker;
use pugmark::host::uffd::{Access, Mapping, UffdHandler, UffdLog, UffdProtection};

use crate::guest::{Guest, RAM, check, regions, vm};
use crate::say;

pub fn mappings(guest: &Guest) -> [Mapping; 2] {
    [0, 1].map(|n| Mapping::new(RAM[n].ipa, guest.ram[n].start(), guest.ram[n].len))
}

#[test]
fn a_handler_serves_the_vcpu() {
    let Some(vm) = vm() else { return };
    let mut guest = Guest::new(vm, false);
    let protection = match UffdProtection::with_access(mappings(&guest), Access::Full) {
        Ok(protection) => protection,
        Err(error) => return say!("skipped: {error}"),
    };
    let tracker = Arc::new(WriteTracker::new(protection, regions()).expect("in order"));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    check("userfaultfd, handler", &mut guest, &tracker);
    let end = handler.stop();
    assert!(end.faults > 0 && end.errors == 0, "{end:?}");
}

#[test]
fn the_kernel_logs_what_the_vcpu_writes() {
    let Some(vm) = vm() else { return };
    let mut guest = Guest::new(vm, false);
    let log = UffdLog::new(mappings(&guest)).expect("Linux 6.7");
    let tracker = WriteTracker::new(log, regions()).expect("in order");
    check("userfaultfd, asynchronous", &mut guest, &tracker);
}
