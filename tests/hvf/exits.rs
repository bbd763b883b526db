//! Each kind of exit, as the model's vCPU leaves the guest with it.

use pugmark::arch::aarch64::{Abort, NotOurs, WriteCause};
use pugmark::hvf::{Exit, Handled, HostPage, HvError, Unhandled};
use pugmark::{FaultError, Granule};

use crate::model::{self, Access, Call, Failure, Form, NO_DEVICE};
use crate::vmm::{HVC, Script, Vcpu, Vm};

const RAM: u64 = 0x4000_0000;
const BLOCK: u64 = 2 << 20;
/// Above RAM, with nothing there.
const HOLE: u64 = 0x8000_0000;

fn vm(page: HostPage) -> Vm {
    Vm::new(page, &[(RAM, 2 * BLOCK)])
}

const WRITES: [(Form, WriteCause); 7] = [
    (Form::Store, WriteCause::Store),
    (Form::StoreWithoutSyndrome, WriteCause::Store),
    (Form::ZeroLine, WriteCause::Store),
    (Form::CacheMaintenance, WriteCause::CacheMaintenance),
    (Form::WalkForLoad, WriteCause::TableWalk),
    (Form::WalkForStore, WriteCause::TableWalk),
    (Form::WalkForFetch, WriteCause::TableWalk),
];

#[test]
fn a_write_of_any_form_is_granted_marked_and_made_again() {
    for page in [HostPage::Kib16, HostPage::Kib4] {
        for (form, expected) in WRITES {
            let vm = vm(page);
            let tracker = vm.tracker();
            tracker.arm().expect("the model protects");
            let ipa = RAM + BLOCK + 0x4_5000;
            vm.store(ipa, 1);
            let vcpu = Vcpu::new(Script::one(form, ipa, 2));

            // The first one is a translation fault, after the next checkpoint a permission fault.
            for status in [0x07, 0x0f] {
                let exit = vcpu.run();
                assert_eq!((exit.reason, exit.syndrome & 0x3f), (1, status), "{form:?}");
                assert_eq!(exit.physical_address, ipa);
                let Ok(Handled::Resume {
                    cause,
                    granule,
                    span,
                    spurious,
                }) = tracker.handle_exit(exit)
                else {
                    panic!("{form:?} is not resumed");
                };
                assert_eq!(
                    (cause, granule, spurious),
                    (expected, Granule::Block, false)
                );
                assert_eq!(span, RAM + BLOCK..RAM + 2 * BLOCK);
                assert_eq!(vm.load(ipa), 1, "{form:?} has not come to pass yet");
                let marked = tracker.tracker().regions()[0].dirty().count();
                assert_eq!(marked as u64, BLOCK / page.size());
                if status == 0x07 {
                    tracker.arm().expect("the model protects");
                }
            }

            assert_eq!(vcpu.run().syndrome, HVC, "{form:?} is made again");
            let written = match form {
                Form::ZeroLine => 0,
                Form::CacheMaintenance => 1,
                _ => 2,
            };
            assert_eq!(vm.load(ipa), written, "{form:?}");
        }
    }
}

#[test]
fn the_first_store_has_the_syndrome_that_was_recorded() {
    let vm = vm(HostPage::Kib16);
    let tracker = vm.tracker();
    tracker.arm().expect("the model protects");
    let vcpu = Vcpu::new(Script::one(Form::Store, RAM, 2));
    assert_eq!(vcpu.run().syndrome, 0x9381_0047);
    assert_eq!(vcpu.run().syndrome, 0x9381_004f, "nobody opened it");
}

#[test]
fn the_page_is_that_of_the_ipa_and_not_of_the_virtual_address() {
    let vm = vm(HostPage::Kib16);
    let tracker = vm.tracker();
    tracker.arm().expect("the model protects");
    let exit = Exit {
        reason: 1,
        syndrome: 0x9381_004f,
        virtual_address: RAM,
        physical_address: RAM + BLOCK,
    };
    let Ok(Handled::Resume { span, .. }) = tracker.handle_exit(exit) else {
        panic!("not resumed");
    };
    assert_eq!(span.start, RAM + BLOCK);
}

/// What the vCPU leaves with, given to the tracker.
fn handled(page: HostPage, form: Form, ipa: u64) -> Handled {
    let vm = vm(page);
    let tracker = vm.tracker();
    tracker.arm().expect("the model protects");
    let exit = Vcpu::new(Script::one(form, ipa, 2)).run();
    let handled = tracker.handle_exit(exit).expect("nothing fails");
    let marked = tracker.tracker().regions()[0].dirty().count();
    assert_eq!(marked, 0, "{form:?} at {ipa:#x}");
    handled
}

#[test]
fn what_is_no_write_to_ram_is_the_vmms() {
    let ipa = HOLE + 0x10;
    let outside = [
        (Form::Store, Abort::Write(WriteCause::Store)),
        (Form::StoreWithoutSyndrome, Abort::Write(WriteCause::Store)),
        (Form::WalkForFetch, Abort::Write(WriteCause::TableWalk)),
        (Form::Load, Abort::Read),
        (Form::Fetch, Abort::Fetch),
    ];
    for (form, access) in outside {
        let expected = Handled::NotOurs(Unhandled::Exception { access, ipa });
        assert_eq!(handled(HostPage::Kib16, form, ipa), expected, "{form:?}");
    }
    let access = Abort::NotOurs(NotOurs::NotAnAbort { class: 0x16 });
    let expected = Handled::NotOurs(Unhandled::Exception { access, ipa: 0 });
    assert_eq!(handled(HostPage::Kib4, Form::Trap, HVC), expected);
}

#[test]
fn loads_and_fetches_do_not_leave_the_guest() {
    let vm = vm(HostPage::Kib16);
    let tracker = vm.tracker();
    tracker.arm().expect("the model protects");
    let accesses = [Form::Load, Form::Fetch].map(|form| Access {
        form,
        ipa: RAM,
        value: 0,
    });
    let vcpu = Vcpu::new(Script::new(accesses));
    assert_eq!(vcpu.run().syndrome, HVC);
}

#[test]
fn a_reason_that_is_no_exception_is_the_vmms_whatever_the_rest_says() {
    let vm = vm(HostPage::Kib16);
    let tracker = vm.tracker();
    tracker.arm().expect("the model protects");
    let unknown = |reason| Unhandled::Unknown { reason };
    for (reason, expected) in [
        (0, Unhandled::Canceled),
        (2, Unhandled::VirtualTimer),
        (3, unknown(3)),
        (4, unknown(4)),
        (u32::MAX, unknown(u32::MAX)),
    ] {
        let exit = Exit {
            reason,
            syndrome: 0x9381_004f,
            virtual_address: 0,
            physical_address: RAM,
        };
        assert_eq!(tracker.handle_exit(exit), Ok(Handled::NotOurs(expected)));
    }
    assert_eq!(tracker.tracker().regions()[0].dirty().count(), 0);
}

#[test]
fn a_page_that_is_open_already_is_tried_again_and_not_for_ever() {
    let vm = vm(HostPage::Kib16);
    let tracker = vm.tracker().with_storm_limit(10);
    tracker.arm().expect("the model protects");
    let vcpu = Vcpu::new(Script::one(Form::Store, RAM, 2));
    // From here on the framework says yes, and does nothing.
    model::planned(|plan| plan.set_deaf(true));

    let mut faults = 0;
    let error = loop {
        match tracker.handle_exit(vcpu.run()) {
            Ok(Handled::Resume { spurious, .. }) => assert_eq!(spurious, faults > 0),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        faults += 1;
    };
    // One for each page of the block, and the limit.
    let storm = FaultError::Storm {
        ipa: RAM,
        faults: 128 + 10 + 1,
    };
    assert_eq!((error, faults), (storm, 128 + 10 + 1));

    model::planned(|plan| plan.set_deaf(false));
    assert!(tracker.handle_exit(vcpu.run()).is_ok());
    assert_eq!(vcpu.run().syndrome, HVC, "the store is still to be made");
    assert_eq!(vm.load(RAM), 2);
}

#[test]
fn a_page_that_cannot_be_opened_is_an_error_and_marked() {
    for how in Failure::ALL {
        let vm = vm(HostPage::Kib16);
        let tracker = vm.tracker();
        tracker.arm().expect("the model protects");
        let vcpu = Vcpu::new(Script::one(Form::Store, RAM, 2));
        model::planned(|plan| plan.fail(Call::Open, 0, how, NO_DEVICE));
        let error = HvError { code: NO_DEVICE };
        assert_eq!(
            tracker.handle_exit(vcpu.run()),
            Err(FaultError::Host { ipa: RAM, error })
        );
        assert_eq!(tracker.tracker().regions()[0].dirty().count(), 128);
        // To resume is to try again.
        while vcpu.run().syndrome != HVC {
            let exit = Exit {
                reason: 1,
                syndrome: 0x9381_004f,
                virtual_address: 0,
                physical_address: RAM,
            };
            assert!(tracker.handle_exit(exit).is_ok());
        }
        assert_eq!(vm.load(RAM), 2);
    }
}
