//! The AArch64 syndrome: every combination of the fields that matter, against a table.

use pugmark::arch::aarch64::{
    Abort, NotOurs, WriteCause, classify, hpfar_is_valid, ipa_from_hpfar, ipa_from_par,
    is_translation_fault,
};

/// A syndrome out of its fields; `noise` fills all other bits.
fn esr(class: u8, status: u8, wnr: bool, cm: bool, s1ptw: bool, noise: u64) -> u64 {
    let fields = 0x3f << 26 | 0x3f | 1 << 6 | 1 << 8 | 1 << 7;
    noise & !fields
        | u64::from(class) << 26
        | u64::from(status)
        | u64::from(wnr) << 6
        | u64::from(cm) << 8
        | u64::from(s1ptw) << 7
}

/// splitmix64.
fn noise(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The kinds of fault status, as the manual lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Translation,
    AccessFlag,
    Permission,
    Other,
}

/// One entry a status, not a range, so that it is not the same code twice.
const KINDS: [Kind; 64] = {
    let mut kinds = [Kind::Other; 64];
    kinds[0b00_0100] = Kind::Translation; // level 0
    kinds[0b00_0101] = Kind::Translation; // level 1
    kinds[0b00_0110] = Kind::Translation; // level 2
    kinds[0b00_0111] = Kind::Translation; // level 3
    kinds[0b10_1011] = Kind::Translation; // level -1
    kinds[0b00_1000] = Kind::AccessFlag; // level 0
    kinds[0b00_1001] = Kind::AccessFlag; // level 1
    kinds[0b00_1010] = Kind::AccessFlag; // level 2
    kinds[0b00_1011] = Kind::AccessFlag; // level 3
    kinds[0b00_1100] = Kind::Permission; // level 0
    kinds[0b00_1101] = Kind::Permission; // level 1
    kinds[0b00_1110] = Kind::Permission; // level 2
    kinds[0b00_1111] = Kind::Permission; // level 3
    kinds
};

fn expected(class: u8, status: u8, wnr: bool, cm: bool, s1ptw: bool) -> Abort {
    let stage_2 = matches!(
        KINDS[usize::from(status)],
        Kind::Translation | Kind::Permission
    );
    match (class, stage_2, s1ptw, cm, wnr) {
        (0x20 | 0x24, false, ..) => Abort::NotOurs(NotOurs::OtherFault { status }),
        // The guest's walk updates its tables, whatever for.
        (0x20 | 0x24, true, true, ..) => Abort::Write(WriteCause::TableWalk),
        // CM and WnR mean nothing on a fetch.
        (0x20, true, false, ..) => Abort::Fetch,
        (0x24, true, false, true, _) => Abort::Write(WriteCause::CacheMaintenance),
        (0x24, true, false, false, true) => Abort::Write(WriteCause::Store),
        (0x24, true, false, false, false) => Abort::Read,
        _ => Abort::NotOurs(NotOurs::NotAnAbort { class }),
    }
}

/// Each combination of EC, fault status, WnR, CM and S1PTW.
fn combinations() -> impl Iterator<Item = (u8, u8, [bool; 3])> {
    let classes = (0..64).flat_map(|class| (0..64).map(move |status| (class, status)));
    classes.flat_map(|(class, status)| {
        (0..8).map(move |bits| (class, status, [0, 1, 2].map(|bit| bits >> bit & 1 == 1)))
    })
}

#[test]
fn every_combination_of_fields_is_classified_as_the_table_says() {
    let draws = if cfg!(miri) { 1 } else { 32 };
    let mut seed = 1;
    let mut seen = 0;
    for (class, status, [wnr, cm, s1ptw]) in combinations() {
        let expected = expected(class, status, wnr, cm, s1ptw);
        let others = (0..draws).map(|_| noise(&mut seed)).chain([0, u64::MAX]);
        for other in others {
            let esr = esr(class, status, wnr, cm, s1ptw, other);
            assert_eq!(classify(esr), expected, "{esr:#x}");
        }
        seen += 1;
    }
    assert_eq!(seen, 64 * 64 * 8);
}

#[test]
fn every_combination_of_fields_says_what_is_valid_and_what_is_missing() {
    let mut seed = 2;
    for (class, status, [wnr, cm, s1ptw]) in combinations() {
        let kind = KINDS[usize::from(status)];
        let expected = s1ptw || matches!(kind, Kind::Translation | Kind::AccessFlag);
        for other in [0, u64::MAX, noise(&mut seed)] {
            let esr = esr(class, status, wnr, cm, s1ptw, other);
            assert_eq!(hpfar_is_valid(esr), expected, "{esr:#x}");
            assert_eq!(
                is_translation_fault(esr),
                kind == Kind::Translation,
                "{esr:#x}"
            );
        }
    }
}

// ---- syndromes as they came

const STORE: Abort = Abort::Write(WriteCause::Store);

#[test]
fn the_stores_that_hypervisor_framework_reported_are_writes() {
    // A translation fault at level 3 on the first store to a protected page, a permission fault on
    // later ones. With FAR not valid (FnV), and with another register and size.
    for esr in [0x9381_0047, 0x9381_004f, 0x9381_044f, 0x93c3_804f] {
        assert_eq!(classify(esr), STORE, "{esr:#x}");
    }
}

#[test]
fn a_store_without_a_valid_syndrome_is_a_write() {
    // ISV = 0: a pair, an exclusive, SIMD; DC ZVA looks the same.
    assert_eq!(classify(0x9200_004f), STORE);
    assert_eq!(classify(0x9200_0047), STORE);
    assert_eq!(classify(0x9200_000f), Abort::Read);
}

#[test]
fn cache_maintenance_is_a_write_to_retry() {
    assert_eq!(
        classify(0x9200_014f),
        Abort::Write(WriteCause::CacheMaintenance)
    );
    assert_eq!(
        classify(0x9200_0147),
        Abort::Write(WriteCause::CacheMaintenance)
    );
}

#[test]
fn a_table_walk_is_a_write_for_a_load_a_store_and_a_fetch() {
    for esr in [0x9200_008f, 0x9200_00cf, 0x8200_008f, 0x8200_0087] {
        assert_eq!(
            classify(esr),
            Abort::Write(WriteCause::TableWalk),
            "{esr:#x}"
        );
        assert!(hpfar_is_valid(esr), "{esr:#x}");
    }
    assert_eq!(classify(0x8200_000f), Abort::Fetch);
}

#[test]
fn what_is_no_abort_of_a_guest_is_not_ours_and_says_its_class() {
    // WFI, HVC, SMC, an abort of the hypervisor itself.
    for (esr, class) in [
        (0x07e0_0000, 0x01),
        (0x5a00_0000, 0x16),
        (0x5e00_0000, 0x17),
        (0x9600_004f, 0x25),
    ] {
        assert_eq!(classify(esr), Abort::NotOurs(NotOurs::NotAnAbort { class }));
    }
}

#[test]
fn an_abort_for_another_reason_is_not_ours_and_says_its_status() {
    // Access flag, external, alignment, TLB conflict, unsupported atomic update, exclusive.
    for status in [0x0b, 0x10, 0x14, 0x17, 0x21, 0x30, 0x31, 0x35] {
        let esr = 0x9200_0040 | u64::from(status);
        let expected = Abort::NotOurs(NotOurs::OtherFault { status });
        assert_eq!(classify(esr), expected, "{esr:#x}");
    }
}

// ---- addresses

/// Bits 51:12, as both registers can hold them.
const IPA_BITS: u64 = 0x000f_ffff_ffff_f000;

#[test]
fn an_ipa_comes_back_out_of_hpfar() {
    let mut seed = 3;
    let single_bits = (12..52).map(|bit| 1 << bit);
    let random: Vec<_> = (0..1000).map(|_| noise(&mut seed) & IPA_BITS).collect();
    for ipa in single_bits.chain(random).chain([0, IPA_BITS]) {
        let far = noise(&mut seed);
        let expected = ipa | far & 0xfff;
        assert_eq!(ipa_from_hpfar(ipa >> 8, far), expected);
        // NS is bit 63; the bits between and below are reserved.
        let reserved = noise(&mut seed) & !(IPA_BITS >> 8);
        assert_eq!(ipa_from_hpfar(ipa >> 8 | reserved, far), expected);
    }
}

#[test]
fn an_ipa_comes_back_out_of_par() {
    let mut seed = 4;
    let single_bits = (12..52).map(|bit| 1 << bit);
    let random: Vec<_> = (0..1000).map(|_| noise(&mut seed) & IPA_BITS).collect();
    for ipa in single_bits.chain(random).chain([0, IPA_BITS]) {
        let far = noise(&mut seed);
        // Memory attributes above, shareability and reserved bits below; F clear.
        let others = noise(&mut seed) & !IPA_BITS & !1;
        let expected = Some(ipa | far & 0xfff);
        assert_eq!(ipa_from_par(ipa | others, far), expected);
        assert_eq!(
            ipa_from_par(ipa | others | 1, far),
            None,
            "the translation failed"
        );
    }
}

#[test]
fn a_known_ipa() {
    // A page at 0x4_0012_3000, written at offset 0xabc of a guest virtual address.
    let far = 0xffff_8000_1000_0abc;
    assert_eq!(ipa_from_hpfar(0x0400_1230, far), 0x4_0012_3abc);
    assert_eq!(
        ipa_from_par(0xff00_0004_0012_3b80, far),
        Some(0x4_0012_3abc)
    );
}
