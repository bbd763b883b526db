//! What cannot be tracked, and what goes wrong later: an error that says what to do.

use std::os::fd::AsRawFd;

use pugmark::host::uffd::{
    Access, KernelFeature, Mapping, OpenError, ProtectError, UffdLog, UffdProtection, Unfit,
};
use pugmark::{HarvestError, StepDown, WriteProtect};

use crate::limits::{Refused, as_ordinary_user, become_an_ordinary_user, in_a_child, without};
use crate::memory::{Kind, Memory, PAGE};
use crate::say;
use crate::sync::{harvested, track};

const BLOCK: usize = 2 << 20;

fn unfit(mappings: &[Mapping]) -> Unfit {
    let errors = [
        UffdProtection::new(mappings.iter().copied()).err(),
        UffdLog::new(mappings.iter().copied()).err(),
    ];
    let [Some(OpenError::Mapping { why, .. }), log] = errors else {
        panic!("{errors:?}");
    };
    assert_eq!(errors[0], log, "both forms say the same");
    why
}

#[test]
fn mappings_that_are_none() {
    let memory = Memory::new(Kind::Anonymous, 4 * PAGE);
    let at = |page: usize| memory.page(page).cast_const();
    let inside = at(0).wrapping_add(8);
    let page_size = PAGE as u64;
    let one = Mapping::new(0, at(0), 2 * PAGE);

    assert_eq!(UffdProtection::new([]).err(), Some(OpenError::NoMapping));
    assert_eq!(unfit(&[Mapping::new(0, at(0), 0)]), Unfit::Empty);
    for unaligned in [
        Mapping::new(0, inside, PAGE),
        Mapping::new(8, at(0), PAGE),
        Mapping::new(0, at(0), PAGE + 8),
    ] {
        assert_eq!(unfit(&[unaligned]), Unfit::Unaligned { page_size });
    }
    let last = u64::MAX - PAGE as u64 + 1;
    assert_eq!(unfit(&[Mapping::new(last, at(0), PAGE)]), Unfit::Overflow);
    // The same memory twice, and the same guest addresses twice.
    let same_host = Mapping::new(page_size << 8, at(1), PAGE);
    assert_eq!(unfit(&[one, same_host]), Unfit::Overlap);
    let same_ipa = Mapping::new(page_size, at(2), PAGE);
    assert_eq!(unfit(&[one, same_ipa]), Unfit::Overlap);
}

#[test]
fn memory_that_cannot_be_protected() {
    let file = std::fs::File::open(std::env::current_exe().expect("Linux")).expect("ours");
    let file = Memory::map(PAGE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd());
    let refused = UffdProtection::new([Mapping::identity(file.start(), PAGE)]);
    let why = Unfit::NotMemory;
    assert!(matches!(refused, Err(OpenError::Mapping { why: said, .. }) if said == why));
    // The asynchronous form takes every mapping.
    UffdLog::new([Mapping::identity(file.start(), PAGE)]).expect("a file, too");

    // Below `vm.mmap_min_addr`.
    let bad = Mapping::identity(std::ptr::without_provenance(PAGE), PAGE);
    assert_eq!(unfit(&[bad]), Unfit::NotMemory);

    // The second of two is unfit: the first one is free again.
    let memory = Memory::new(Kind::Anonymous, PAGE);
    let good = Mapping::identity(memory.start(), PAGE);
    assert_eq!(unfit(&[good, bad]), Unfit::NotMemory);
    let first = UffdProtection::new([good]).expect("nobody has it");
    assert_eq!(unfit(&[good]), Unfit::Taken);
    drop(first);
    UffdLog::new([good]).expect("nobody has it");
}

/// Before Linux 6.17 the kernel does not ask whose memory it unregisters.
#[test]
fn a_tracker_that_is_refused_leaves_the_other_ones_memory_protected() {
    let memory = Memory::new(Kind::Anonymous, 4 * BLOCK);
    let block = |n: usize| {
        let page = memory.page(n * BLOCK / PAGE);
        Mapping::identity(page, BLOCK)
    };
    let (tracker, handler) = track(&[block(1), block(3)], StepDown::DEFAULT);
    tracker.arm().expect("the host protects");
    assert_eq!(
        unfit(&[block(0), block(1), block(2), block(3)]),
        Unfit::Taken
    );
    for n in [1, 3] {
        memory.store(n * BLOCK / PAGE, 1);
        assert_eq!(harvested(&tracker).len(), 1, "block {n}");
    }
    assert_eq!(handler.stop().faults, 2);
    // And what it had registered before is free.
    track(&[block(0), block(2)], StepDown::DEFAULT);
}

#[test]
fn an_ordinary_user_gets_what_there_is_and_is_told() {
    let memory = Memory::new(Kind::Anonymous, BLOCK);
    let mapping = Mapping::identity(memory.start(), memory.len);
    as_ordinary_user(|| {
        let limited = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
        if limited.is_ok_and(|text| text.trim() == "1") {
            say!("skipped: this system lets everyone have everything");
            return;
        }
        let full = UffdProtection::with_access([mapping], Access::Full);
        let access = Access::Full;
        assert_eq!(full.err(), Some(OpenError::NoPermission { access }));

        let (tracker, _handler) = track(&[mapping], StepDown::DEFAULT);
        assert_eq!(tracker.protection().access(), Access::UserModeOnly);
        tracker.arm().expect("the host protects");
        memory.store(3, 1);
        assert_eq!(harvested(&tracker).len(), 1);
    });
    // Who may open /proc/self/pagemap is up to the process, not to the thread.
    let refused = as_ordinary_user(|| UffdLog::new([mapping]).err());
    let errno = libc::EACCES;
    assert!(refused.is_none_or(|error| error == OpenError::NoPagemap { errno }));
    let found = in_a_child(|| {
        become_an_ordinary_user();
        let log = UffdLog::new([mapping]).expect("an ordinary user may");
        log.take_log(&mut |_| {}).expect("it scans");
        // SAFETY: room for a byte. It is a system call that writes.
        unsafe { assert_eq!(libc::getrandom(memory.page(9).cast(), 1, 0), 1) };
        let mut found = 0;
        log.take_log(&mut |ranges| found += ranges.len())
            .expect("it scans");
        found == 1
    });
    assert!(found);
}

#[test]
fn a_kernel_without_it() {
    let memory = Memory::new(Kind::Anonymous, BLOCK);
    let mapping = Mapping::identity(memory.start(), memory.len);
    let refuse = |errno| Refused {
        call: libc::SYS_userfaultfd,
        second: None,
        errno,
    };
    let opened = without(refuse(libc::ENOSYS), || {
        UffdProtection::new([mapping]).err()
    });
    assert_eq!(opened, Some(OpenError::NotInKernel));
    // A container's filter answers EPERM, whoever asks; the device is a way around it.
    let opened = without(refuse(libc::EPERM), || {
        as_ordinary_user(|| UffdProtection::new([mapping]).err())
    });
    let access = Access::UserModeOnly;
    assert_eq!(opened, Some(OpenError::NoPermission { access }));

    let scan = Refused {
        call: libc::SYS_ioctl,
        second: Some(0xc060_6610),
        errno: libc::ENOTTY,
    };
    let opened = without(scan, || UffdLog::new([mapping]).err());
    let feature = KernelFeature::PagemapScan;
    assert_eq!(opened, Some(OpenError::MissingFeature { feature }));
    // The synchronous form needs no scan.
    drop(UffdProtection::new([mapping]).expect("anonymous"));
}

#[test]
fn ranges_outside_the_mappings() {
    let memory = Memory::new(Kind::Anonymous, 4 * PAGE);
    let page = PAGE as u64;
    let two = [Mapping::new(0, memory.page(0), PAGE), {
        Mapping::new(2 * page, memory.page(2), PAGE)
    }];
    let protection = UffdProtection::new(two).expect("anonymous");
    let _faults = protection.faults().expect("nobody else");
    for (start, end) in [(0, 2), (1, 2), (1, 3), (0, 3), (2, 4), (3, 4), (0, 9)] {
        let (start, end) = (start * page, end * page);
        let refused = Err(ProtectError::NoMapping { start, end });
        assert_eq!(protection.protect(start..end), refused);
        assert_eq!(protection.unprotect(start..end), refused);
    }
    protection.protect(0..page).expect("a mapping");
    protection.protect(2 * page..3 * page).expect("the other");
    assert_eq!(protection.protect(9 * page..9 * page), Ok(()));
}

#[test]
fn memory_that_is_unmapped_under_the_tracker() {
    let memory = Memory::new(Kind::Anonymous, 4 * BLOCK);
    let [first, second] = [0, 2].map(|block| memory.page(block * BLOCK / PAGE).cast_const());
    let mappings = [
        Mapping::identity(first, 2 * BLOCK),
        Mapping::identity(second, 2 * BLOCK),
    ];
    let (tracker, handler) = track(&mappings, StepDown::DEFAULT);
    tracker.arm().expect("the host protects");
    memory.store(0, 1);
    memory.store(2 * BLOCK / PAGE, 1);
    while handler.so_far().faults < 2 {
        std::thread::yield_now();
    }
    memory.unmap(2 * BLOCK, 2 * BLOCK);

    let gone = memory.address() + 2 * BLOCK as u64;
    for _ in 0..2 {
        let mut delivered = Vec::new();
        let failed = tracker.harvest(|run| {
            delivered.push(run.start);
            Ok::<_, ()>(())
        });
        let Err(HarvestError::Host { error, .. }) = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(
            error,
            ProtectError::Gone {
                start: gone,
                end: gone + BLOCK as u64
            }
        );
        assert!(error.to_string().contains("make a new tracker"));
        // What is still there was delivered, once; what could not be protected stays marked.
        memory.store(0, 2);
        while handler.so_far().faults % 2 != 1 && delivered.is_empty() {
            std::thread::yield_now();
        }
    }
    let dirty = tracker.regions()[1].dirty();
    assert_eq!(dirty.count(), BLOCK / PAGE);
}

#[test]
fn a_child_of_fork_is_free_and_cannot_harm_the_parent() {
    let memory = Memory::new(Kind::Anonymous, BLOCK);
    let mapping = Mapping::identity(memory.start(), memory.len);
    let (tracker, handler) = track(&[mapping], StepDown::DEFAULT);
    tracker.arm().expect("the host protects");
    let whole = memory.address()..memory.address() + BLOCK as u64;

    let right = in_a_child(|| {
        // Its own copy can be written without a handler.
        memory.store(3, 9);
        let protection = tracker.protection();
        let forked = |done| matches!(done, Err(ProtectError::Forked { .. }));
        let right = memory.load(3) == 9
            && forked(protection.unprotect(whole.clone()))
            && forked(protection.protect(whole.clone()));
        // SAFETY: the child's copies; it does not touch them again, nor run destructors of them.
        drop(unsafe {
            (
                std::ptr::read(&raw const handler),
                std::ptr::read(&raw const tracker),
            )
        });
        right
    });
    assert!(right);

    // The parent is still protected and served.
    assert_eq!(harvested(&tracker), []);
    memory.store(5, 1);
    assert_eq!(harvested(&tracker).len(), 1);
    assert_eq!(memory.load(3), 0);
    assert_eq!(handler.stop().faults, 1);
}

#[test]
fn every_error_says_what_to_do() {
    let errors = [
        OpenError::NotInKernel.to_string(),
        OpenError::NoPermission {
            access: Access::Full,
        }
        .to_string(),
        ProtectError::NoHandler.to_string(),
        ProtectError::Forked { tracked: 7 }.to_string(),
    ];
    let remedies = [
        "CONFIG_USERFAULTFD",
        "CAP_SYS_PTRACE",
        "UffdHandler",
        "harvest there",
    ];
    for (error, remedy) in errors.iter().zip(remedies) {
        assert!(error.contains(remedy), "{error}");
    }
}
