//! New, armed, disarmed.

use pugmark::ArmError;

use crate::world::{BLOCK, Failure, HOST_ERROR, PAGE, Protect, Unprotect, World, region};

const BASE: u64 = 0x4000_0000;

#[test]
fn a_new_tracker_has_every_page_marked() {
    let world = World::new([region(BASE, 3 * BLOCK), region(BASE + 8 * BLOCK, BLOCK)]);
    assert!(world.pages().eq(world.marked()));
    assert_eq!(world.host().take_calls(), [], "it called the host");
    // The first harvest is a migration's first round: everything, protected.
    let pages = world.harvest_pages();
    assert!(world.pages().eq(pages));
    assert!(world.pages().all(|page| !world.host().is_writable(page)));
    world.check();
}

#[test]
fn arm_makes_all_clean_and_protected_with_one_call_a_region() {
    let world = World::new([region(BASE, 3 * BLOCK), region(BASE + 8 * BLOCK, BLOCK)]);
    world.tracker.arm().unwrap();
    assert_eq!(world.marked(), [0; 0]);
    assert!(world.pages().all(|page| !world.host().is_writable(page)));
    let calls = [
        (Protect, BASE..BASE + 3 * BLOCK),
        (Protect, BASE + 8 * BLOCK..BASE + 9 * BLOCK),
    ];
    assert_eq!(world.host().take_calls(), calls);
    assert_eq!(world.harvest(), []);
}

#[test]
fn arm_forgets_what_was_written_before_it() {
    let world = World::armed([region(BASE, 2 * BLOCK)]);
    world.write(BASE);
    world.arm();
    assert_eq!(world.harvest(), []);
    world.write(BASE + BLOCK);
    assert_eq!(world.harvest()[0].start, BASE + BLOCK);
    world.check_to_the_end();
}

#[test]
fn an_arm_that_fails_names_the_region_and_loses_nothing() {
    let second = BASE + 8 * BLOCK;
    for n in 0..3 {
        for &how in Failure::ALL {
            let world = World::armed([
                region(BASE, 2 * BLOCK),
                region(second, BLOCK),
                region(second + BLOCK, BLOCK),
            ]);
            let written = [BASE + PAGE, second, second + BLOCK];
            for page in written {
                world.write(page);
            }
            world.host().fail(Protect, n, how);
            let failed = world.tracker.regions()[n].page_range();
            let expected = ArmError::Host {
                start: failed.start,
                end: failed.end,
                error: HOST_ERROR,
            };
            assert_eq!(world.tracker.arm(), Err(expected));
            // There is no new baseline, so what the mirror misses is still owed to it.
            world.check();
            for page in written {
                assert!(world.is_marked(page), "{page:#x} is lost at {n}, {how:?}");
            }
            world.check_to_the_end();
        }
    }
}

#[test]
fn disarm_opens_and_marks_everything() {
    let world = World::armed([region(BASE, 2 * BLOCK), region(BASE + 4 * BLOCK, BLOCK)]);
    world.tracker.disarm().unwrap();
    assert!(world.pages().all(|page| world.host().is_writable(page)));
    assert!(world.pages().eq(world.marked()));
    let calls = [
        (Unprotect, BASE..BASE + 2 * BLOCK),
        (Unprotect, BASE + 4 * BLOCK..BASE + 5 * BLOCK),
    ];
    assert_eq!(world.host().take_calls(), calls);

    assert_eq!(world.write(BASE), None, "a fault after disarm");
    world.check_to_the_end();
    assert!(
        world.write(BASE).is_some(),
        "a harvest begins tracking again"
    );
}

#[test]
fn a_disarm_that_fails_names_the_region_and_loses_nothing() {
    let second = BASE + 8 * BLOCK;
    for n in 0..2 {
        for &how in Failure::ALL {
            let world = World::armed([region(BASE, 2 * BLOCK), region(second, BLOCK)]);
            world.write(BASE + PAGE);
            world.host().fail(Unprotect, n, how);
            let failed = world.tracker.regions()[n].page_range();
            let expected = ArmError::Host {
                start: failed.start,
                end: failed.end,
                error: HOST_ERROR,
            };
            assert_eq!(world.tracker.disarm(), Err(expected));
            world.check();
            let clean = world.pages().filter(|&page| !world.is_marked(page));
            let rest = if n == 0 { second..second + BLOCK } else { 0..0 };
            assert!(clean.eq(rest.step_by(PAGE as usize)));
            world.check_to_the_end();
        }
    }
}
