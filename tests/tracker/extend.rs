//! A harvest that is held, and takes in what was written since.

use std::convert::Infallible;

use pugmark::{DirtyRun, HarvestError};

use crate::world::{BLOCK, Failure, HOST_ERROR, Moment, Protect, Unprotect, World, region};

const BASE: u64 = 0x4000_0000;

fn world() -> World {
    World::armed([region(BASE, 8 * BLOCK)])
}

fn block(block: u64) -> DirtyRun {
    DirtyRun {
        start: BASE + block * BLOCK,
        len: BLOCK,
    }
}

#[test]
fn it_delivers_and_holds_what_was_written_since() {
    let world = world();
    world.write(BASE);
    world.write(BASE + BLOCK);
    let mut harvest = world.tracker.begin_harvest().unwrap();
    harvest.runs().for_each(|run| world.copy(run));
    // One that is held and copied already, and one that is not.
    world.write(BASE + BLOCK);
    world.write(BASE + 3 * BLOCK);

    let mut runs = Vec::new();
    let more = harvest.extend(|run| {
        world.copy(run);
        runs.push(run);
        Ok::<(), Infallible>(())
    });
    let more = more.unwrap();
    assert_eq!(runs, [block(1), block(3)]);
    let pages = block(0).len / crate::world::PAGE;
    assert_eq!((more.runs, more.pages as u64), (2, 2 * pages));
    let held = DirtyRun {
        start: BASE,
        len: 2 * BLOCK,
    };
    assert!(harvest.runs().eq([held, block(3)]));
    assert_eq!(harvest.harvested().pages as u64, 4 * pages);
    assert_eq!(world.marked(), [0; 0]);
    world.check_beside(&[held, block(3)]);

    harvest.commit();
    assert_eq!(world.tracker.counters().pages_harvested as u64, 4 * pages);
    world.check_to_the_end();
}

#[test]
fn a_drop_puts_back_what_both_took() {
    let world = world();
    world.write(BASE);
    let mut harvest = world.tracker.begin_harvest().unwrap();
    world.write(BASE + 3 * BLOCK);
    let extended = harvest.extend_final(|_| Ok::<(), Infallible>(()));
    assert_eq!(extended.map(|more| more.runs), Ok(1));
    drop(harvest);
    world.check();
    assert_eq!(world.harvest(), [block(0), block(3)]);
    world.check_to_the_end();
}

#[test]
fn what_the_consumer_refuses_is_for_the_next_harvest() {
    let world = world();
    world.write(BASE);
    let mut harvest = world.tracker.begin_harvest().unwrap();
    harvest.runs().for_each(|run| world.copy(run));
    for n in [0, 2, 4] {
        world.write(BASE + n * BLOCK);
    }
    let refused = harvest.extend(|run| match run == block(2) {
        true => Err("full"),
        false => {
            world.copy(run);
            Ok(())
        }
    });
    let run = block(2);
    let error = "full";
    assert_eq!(refused, Err(HarvestError::Consumer { run, error }));
    assert!(harvest.runs().eq([block(0)]), "what was accepted");
    world.check_beside(&[block(0)]);
    harvest.commit();
    assert_eq!(world.harvest(), [block(2), block(4)]);
    world.check_to_the_end();
}

#[test]
fn a_protect_that_fails_keeps_what_is_held_and_marks_the_rest() {
    for &how in Failure::ALL {
        let world = world();
        world.write(BASE);
        let mut harvest = world.tracker.begin_harvest().unwrap();
        world.write(BASE + 2 * BLOCK);
        world.host().fail(Protect, 0, how);
        let failed = harvest.extend(|_| Ok::<(), Infallible>(()));
        let expected = HarvestError::Host {
            start: block(2).start,
            end: block(2).range().end,
            error: HOST_ERROR,
        };
        assert_eq!(failed, Err(expected));
        assert!(harvest.runs().eq([block(0)]));
        world.check_beside(&[block(0)]);
        drop(harvest);
        world.check();
        assert_eq!(world.harvest(), [block(0), block(2)]);
        world.check_to_the_end();
    }
}

#[test]
fn the_final_form_refuses_while_a_handler_is_under_way() {
    let world = world();
    let weak = world.weak();
    // The fault that has opened its span and not marked it yet.
    world.host().at(Unprotect, Moment::After, move || {
        let tracker = weak.upgrade().expect("it is in a call");
        let mut harvest = tracker.begin_harvest().unwrap();
        let refused = harvest.extend_final(|_| Ok::<(), Infallible>(()));
        let handlers = 1;
        assert_eq!(refused, Err(HarvestError::HandlersInFlight { handlers }));
        assert!(harvest.extend(|_| Ok::<(), Infallible>(())).is_ok());
    });
    world.write(BASE);
    assert!(world.is_marked(BASE));
    world.check_to_the_end();
}
