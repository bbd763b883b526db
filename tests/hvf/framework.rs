//! What the layer asks the framework for, and what becomes of its answers.

use pugmark::WriteProtect;
use pugmark::hvf::{HostPage, HvError, HvfProtection, HvfTracker};

use crate::model::{self, BAD_ARGUMENT, EXEC, NO_DEVICE, READ, WRITE};
use crate::vmm::Vm;

const RAM: u64 = 0x4000_0000;

#[test]
fn write_permission_goes_and_comes_and_execute_stays() {
    let _vm = Vm::new(HostPage::Kib16, &[(RAM, 1 << 20)]);
    let page = RAM + 0x8000..RAM + 0xc000;
    for (protection, execute) in [
        (HvfProtection::new(HostPage::Kib16), EXEC),
        (HvfProtection::from(HostPage::Kib16).without_execute(), 0),
    ] {
        assert_eq!(protection.page(), HostPage::Kib16);
        assert_eq!(protection.protect(page.clone()), Ok(()));
        assert_eq!(model::flags_at(page.start), Some(READ | execute));
        assert_eq!(protection.unprotect(page.clone()), Ok(()));
        assert_eq!(model::flags_at(page.start), Some(READ | WRITE | execute));
    }
    assert_eq!(
        model::flags_at(RAM),
        Some(READ | WRITE | EXEC),
        "a neighbour"
    );
}

#[test]
fn each_region_is_armed_by_one_call() {
    let vm = Vm::new(
        HostPage::Kib16,
        &[(RAM, 1 << 20), (0x8000_0000, 0x0100_0000)],
    );
    let tracker = vm.tracker();
    model::planned(|plan| plan.take_calls());
    tracker.arm().expect("the model protects");
    assert_eq!(
        model::planned(|plan| plan.take_calls()),
        [
            (RAM, 1 << 20, READ | EXEC),
            (0x8000_0000, 0x0100_0000, READ | EXEC)
        ]
    );
}

#[test]
fn a_call_that_is_not_aligned_to_the_granule_says_bad_argument() {
    let error = Err(HvError { code: BAD_ARGUMENT });
    for (page, fits) in [(HostPage::Kib16, false), (HostPage::Kib4, true)] {
        let vm = Vm::new(page, &[(RAM, 1 << 20)]);
        let protection = HvfProtection::new(page);
        let part = protection.protect(RAM + 0x1000..RAM + 0x2000);
        assert_eq!(part == Ok(()), fits);
        assert_eq!(part != error, fits);
        assert_eq!(protection.protect(RAM + 1..RAM + (1 << 20)), error);
        assert_eq!(protection.protect(RAM..RAM), error, "nothing at all");
        let backwards = std::ops::Range {
            start: RAM + 0x4000,
            end: RAM,
        };
        assert_eq!(protection.unprotect(backwards), error);
        assert_eq!(protection.unprotect(0..0x4000), error, "not mapped");
        vm.destroy();
        assert_eq!(
            protection.protect(RAM..RAM + 0x4000).map_err(|e| e.code),
            Err(NO_DEVICE),
            "there is no VM"
        );
    }
}

#[test]
fn an_error_has_the_frameworks_name() {
    for (code, name) in [
        (0xfae9_4001, "HV_ERROR"),
        (0xfae9_4002, "HV_BUSY"),
        (0xfae9_4003, "HV_BAD_ARGUMENT"),
        (0xfae9_4004, "HV_ILLEGAL_GUEST_STATE"),
        (0xfae9_4005, "HV_NO_RESOURCES"),
        (0xfae9_4006, "HV_NO_DEVICE"),
        (0xfae9_4007, "HV_DENIED"),
        (0xfae9_4008, "HV_FAULT"),
        (0xfae9_400f, "HV_UNSUPPORTED"),
    ] {
        let error = HvError { code };
        assert_eq!(error.name(), Some(name));
        assert_eq!(error.to_string(), format!("{name} ({code:#x})"));
    }
    let other = HvError { code: 5 };
    assert_eq!(other.name(), None);
    assert_eq!(other.to_string(), "Hypervisor.framework's error (0x5)");
}

#[test]
fn the_granule_is_16_kib_unless_the_vm_has_another() {
    assert_eq!(HostPage::default(), HostPage::Kib16);
    assert_eq!(HostPage::Kib16.size(), 16 << 10);
    assert_eq!(HostPage::Kib4.size(), 4 << 10);
    for page in [HostPage::Kib16, HostPage::Kib4] {
        let tracker = HvfTracker::new(page, [(RAM, 0x4000)]).expect("whole pages");
        assert_eq!(
            tracker.tracker().regions()[0].pages() as u64,
            0x4000 / page.size()
        );
    }
}
