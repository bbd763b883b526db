//! What needs an older kernel than the one at hand.

use std::thread;

use super::*;
use crate::WriteProtect;

#[path = "../../../tests/linux/limits.rs"]
mod limits;

const PAGE: u64 = 4096;

/// Before Linux 6.4 a page that is not there cannot be protected, so it is made present first.
#[test]
fn untouched_pages_are_made_present_where_the_kernel_cannot_protect_them() {
    let len = 16 * PAGE as usize;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let memory = unsafe { libc::mmap(core::ptr::null_mut(), len, rights, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    let memory = memory.cast::<u8>();
    let mapping = Mapping::new(0, memory, len);
    let protection = UffdProtection::open([mapping], None, &[]).expect("anonymous");
    assert!(!protection.memory().has(KernelFeature::Unpopulated));

    let faults = protection.faults().expect("nobody else");
    protection.protect(0..16 * PAGE).expect("served");
    let page = memory.expose_provenance();
    thread::scope(|scope| {
        scope.spawn(move || {
            let byte = core::ptr::with_exposed_provenance_mut::<u8>(page + 5 * PAGE as usize);
            // SAFETY: a byte of the mapping, which nobody borrows.
            unsafe { byte.write_volatile(1) }
        });
        let mut seen = None;
        // Without the page present the write would go through, and nobody wait.
        for _ in 0..5_000 {
            faults.read(|ipa| seen = Some(ipa)).expect("it can be read");
            if seen.is_some() {
                break;
            }
            thread::sleep(core::time::Duration::from_millis(1));
        }
        protection.unprotect(0..16 * PAGE).expect("ours");
        assert_eq!(seen, Some(5 * PAGE));
    });
    // SAFETY: our own mapping, which nobody uses any more.
    unsafe { libc::munmap(memory.cast(), len) };
}

/// Before Linux 5.14 there is no way to do that.
#[test]
fn a_kernel_that_can_do_neither_is_refused() {
    // The question, an empty range.
    let populate = limits::Refused {
        call: libc::SYS_madvise,
        second: Some(0),
        errno: libc::EINVAL,
    };
    let mapping = Mapping::identity(core::ptr::without_provenance(1 << 20), 1 << 20);
    let opened = limits::without(populate, || {
        UffdProtection::open([mapping], None, &[]).err()
    });
    let feature = KernelFeature::Populate;
    assert_eq!(opened, Some(OpenError::MissingFeature { feature }));
}
