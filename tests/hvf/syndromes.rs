//! Syndromes as they were recorded give the same from `handle_exit` as from the decoder.

use pugmark::arch::aarch64::{Abort, NotOurs, WriteCause, classify};
use pugmark::hvf::{Exit, Handled, HostPage, Unhandled};

use crate::vmm::Vm;

const RAM: u64 = 0x4000_0000;

const STORE: Abort = Abort::Write(WriteCause::Store);
const CACHE: Abort = Abort::Write(WriteCause::CacheMaintenance);
const WALK: Abort = Abort::Write(WriteCause::TableWalk);

/// What a guest at EL2 under QEMU 10.0 left with, by the instruction that it was at: two runs of
/// examples/el2, on `-cpu max` and on `cortex-a53`. 0x…e is a fault on a block, 0x…f on a page.
const EL2: &[(&str, Abort, &[u64])] = &[
    ("STR", STORE, &[0x93c3_804e, 0x93c3_804f]),
    ("STRB", STORE, &[0x9303_004e, 0x9303_004f]),
    ("STP", STORE, &[0x9200_004e, 0x9200_004f]),
    ("STR, writeback", STORE, &[0x9200_004e, 0x9200_004f]),
    ("LDXR and STXR", STORE, &[0x9200_004e, 0x9200_004f]),
    ("CAS, LDADD, SWP", STORE, &[0x9200_004e, 0x9200_004f]),
    ("SIMD ST1, STR and STP", STORE, &[0x9200_004e, 0x9200_004f]),
    ("SVE ST1D and ST1B", STORE, &[0x9200_004f]),
    ("DC ZVA", STORE, &[0x9200_004e, 0x9200_004f]),
    ("DC CIVAC and DC IVAC", STORE, &[0x93c3_804e, 0x93c3_804f]),
    (
        "across two pages",
        STORE,
        &[0x9200_004f, 0x93db_804e, 0x93db_804f],
    ),
    (
        "table walk, by the CPU",
        WALK,
        &[0x8200_008e, 0x8200_008f, 0x9200_00ce, 0x9200_00cf],
    ),
    (
        "table walk, by the guest",
        STORE,
        &[0x93c1_804e, 0x93c1_804f, 0x93c3_804e, 0x93c3_804f],
    ),
    ("sparse", STORE, &[0x93c3_804e, 0x93c3_804f]),
    ("hot", STORE, &[0x93d2_804e, 0x93d2_804f]),
    (
        "stacks",
        STORE,
        &[
            0x931f_004e,
            0x931f_004f,
            0x93c8_804e,
            0x93c8_804f,
            0x93c9_804f,
            0x93ca_804f,
            0x93de_804e,
            0x93de_804f,
            0x93df_804e,
            0x93df_804f,
        ],
    ),
];

/// What others recorded of Hypervisor.framework, and the forms that QEMU does not give.
const FRAMEWORK: &[(&str, Abort, &[u64])] = &[
    ("the first store", STORE, &[0x9381_0047]),
    ("later stores", STORE, &[0x9381_004f, 0x93c3_804f]),
    ("FAR not valid", STORE, &[0x9381_044f]),
    ("ISV = 0", STORE, &[0x9200_0047, 0x9200_004f]),
    ("DC IVAC", CACHE, &[0x9200_0147, 0x9200_014f]),
    (
        "table walks of loads, stores, fetches",
        WALK,
        &[
            0x9200_0087,
            0x9200_008f,
            0x9200_00c7,
            0x8200_0087,
            0x8200_008f,
        ],
    ),
    ("a load", Abort::Read, &[0x9381_0007, 0x9200_000f]),
    ("a fetch", Abort::Fetch, &[0x8200_0007, 0x8200_000f]),
    (
        "HVC",
        Abort::NotOurs(NotOurs::NotAnAbort { class: 0x16 }),
        &[0x5a00_0000],
    ),
    (
        "an external abort",
        Abort::NotOurs(NotOurs::OtherFault { status: 0x10 }),
        &[0x9200_0050],
    ),
];

fn exit(syndrome: u64, physical_address: u64) -> Exit {
    Exit {
        reason: 1,
        syndrome,
        // Of another page of the same region, and not to be looked at.
        virtual_address: RAM + (3 << 20),
        physical_address,
    }
}

#[test]
fn recorded_syndromes_are_classified_as_they_were() {
    let vm = Vm::new(HostPage::Kib16, &[(RAM, 4 << 20)]);
    for (name, access, syndromes) in EL2.iter().chain(FRAMEWORK) {
        for &syndrome in *syndromes {
            assert_eq!(classify(syndrome), *access, "{name}: {syndrome:#x}");
            let tracker = vm.tracker();
            tracker.arm().expect("the model protects");

            // Inside RAM, in the second block.
            let ipa = RAM + (2 << 20) + 0x1238;
            let handled = tracker.handle_exit(exit(syndrome, ipa));
            let handled = handled.expect("the model opens");
            let marked = tracker.tracker().regions()[0].dirty().count();
            match *access {
                Abort::Write(expected) => {
                    let Handled::Resume {
                        cause,
                        span,
                        spurious,
                        ..
                    } = handled
                    else {
                        panic!("{name}: {syndrome:#x} is {handled:?}");
                    };
                    assert_eq!((cause, spurious), (expected, false), "{syndrome:#x}");
                    assert_eq!(span, RAM + (2 << 20)..RAM + (4 << 20));
                    assert_eq!(marked, 128);
                }
                access => {
                    let unhandled = Unhandled::Exception { access, ipa };
                    assert_eq!(handled, Handled::NotOurs(unhandled), "{name}");
                    assert_eq!(marked, 0, "{name}");
                }
            }

            // Outside, it is the VMM's, whatever it is.
            let ipa = RAM + (4 << 20);
            let access = *access;
            let unhandled = Unhandled::Exception { access, ipa };
            assert_eq!(
                tracker.handle_exit(exit(syndrome, ipa)),
                Ok(Handled::NotOurs(unhandled)),
                "{name}"
            );
        }
    }
}
