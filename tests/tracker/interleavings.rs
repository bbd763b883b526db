//! Two threads at the worst moments, on one thread: the host calls back in the middle of a step.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::world::{
    BLOCK, Call, Moment, PAGE, Protect, Tracker, Unprotect, World, fine_region, granted,
    guest_store, region,
};

const BASE: u64 = 0x4000_0000;

/// Runs `meanwhile` on the tracker just before or after the host's next `call` changes permissions.
fn at(
    world: &World,
    call: Call,
    moment: Moment,
    meanwhile: impl FnOnce(&Tracker) + Send + 'static,
) {
    let tracker = world.weak();
    let hook = move || meanwhile(&tracker.upgrade().expect("the world outlives its calls"));
    world.host().at(call, moment, hook);
}

/// A whole harvest, to nowhere; what it delivered is in the mirror's debt to whoever looks.
fn harvest(tracker: &Tracker) -> Vec<u64> {
    let mut pages = Vec::new();
    let accept = |run| {
        pages.extend(crate::world::pages_of(run));
        Ok::<_, ()>(())
    };
    tracker.harvest(accept).expect("nothing fails");
    pages
}

/// No page that can be written is clean.
fn check_permissions(world: &World) {
    for page in world.pages() {
        let writable = world.host().is_writable(page);
        assert!(
            !writable || world.is_marked(page),
            "{page:#x} is writable and clean"
        );
    }
}

const MOMENTS: [Moment; 2] = [Moment::Before, Moment::After];

#[test]
fn a_harvest_in_the_middle_of_a_fault_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        for marked_before in [false, true] {
            let world = World::armed([region(BASE, 2 * BLOCK)]);
            if marked_before {
                world.tracker.mark_written(BASE..BASE + BLOCK).unwrap();
            }
            at(&world, Unprotect, moment, |tracker| {
                harvest(tracker);
            });
            world.fault(BASE);
            check_permissions(&world);
            // The store comes at last. It is found.
            world.write(BASE);
            assert!(harvest(&world.tracker).contains(&BASE));
        }
    }
}

#[test]
fn a_fault_in_the_middle_of_a_harvest_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, 2 * BLOCK)]);
        world.write(BASE);
        at(&world, Protect, moment, |tracker| {
            // A vCPU on the very page that was drained, or one that trapped a moment ago.
            guest_store(tracker, BASE + PAGE, 77);
            granted(tracker.on_write_fault(BASE));
        });
        world.harvest();
        check_permissions(&world);
        world.check_to_the_end();
    }
}

#[test]
fn a_store_before_the_protect_is_in_the_copy() {
    let world = World::armed([region(BASE, BLOCK)]);
    world.write(BASE);
    at(&world, Protect, Moment::Before, |tracker| {
        // Open, and drained already: no fault.
        assert_eq!(guest_store(tracker, BASE + PAGE, 77), None);
    });
    world.harvest();
    world.check();
}

#[test]
fn a_harvest_in_the_middle_of_two_faults_on_one_page() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, BLOCK)]);
        at(&world, Unprotect, moment, |tracker| {
            // Another vCPU is faster, stores, and is harvested.
            guest_store(tracker, BASE, 77);
            harvest(tracker);
        });
        world.fault(BASE);
        check_permissions(&world);
    }
}

#[test]
fn a_step_down_in_the_middle_of_a_fault_grants_and_marks_one_span() {
    for moment in MOMENTS {
        let world = World::armed([fine_region(BASE, 2 * BLOCK)]);
        world.tracker.tick(Duration::from_millis(1));
        world.fault(BASE);
        world.harvest();
        at(&world, Unprotect, moment, |tracker| {
            tracker.tick(Duration::from_millis(2));
        });
        let granted = world.fault(BASE);
        assert_eq!(
            granted.span,
            BASE..BASE + BLOCK,
            "as it was when it faulted"
        );
        assert_eq!(world.tracker.counters().step_downs, 1);
        check_permissions(&world);
        // What the coarse grant opened needs no fault, and is found.
        assert_eq!(world.write(BASE + 3 * PAGE), None);
        world.check_to_the_end();
    }
}

#[test]
fn a_checkpoint_in_the_middle_of_a_fault_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        for fine in [false, true] {
            let world = match fine {
                false => World::armed([region(BASE, 2 * BLOCK)]),
                true => World::armed_fine(&[(BASE, 2 * BLOCK)]),
            };
            at(&world, Unprotect, moment, |tracker| {
                tracker.arm().expect("armed")
            });
            world.fault(BASE);
            world.copy_baseline();
            check_permissions(&world);
            world.write(BASE);
            world.check_to_the_end();
        }
    }
}

#[test]
fn a_fault_in_the_middle_of_a_checkpoint_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        let world = World::new([region(BASE, 2 * BLOCK)]);
        // Everything is marked and open: a vCPU that trapped a moment ago.
        at(&world, Protect, moment, |tracker| {
            granted(tracker.on_write_fault(BASE));
        });
        world.tracker.arm().unwrap();
        check_permissions(&world);
        world.copy_baseline();
        world.write(BASE);
        world.check_to_the_end();
    }
}

#[test]
fn a_fault_in_the_middle_of_a_disarm_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, 2 * BLOCK)]);
        at(&world, Unprotect, moment, |tracker| {
            granted(tracker.on_write_fault(BASE));
        });
        world.tracker.disarm().unwrap();
        check_permissions(&world);
        world.check_to_the_end();
    }
}

#[test]
fn a_vmm_write_in_the_middle_of_a_harvest_is_in_it_or_in_the_next() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, 2 * BLOCK)]);
        world.write(BASE);
        at(&world, Protect, moment, |tracker| {
            tracker.protection().store_as_vmm(BASE + PAGE, 88);
            tracker.mark_written(BASE + PAGE..BASE + PAGE + 1).unwrap();
        });
        world.harvest();
        world.check_to_the_end();
    }
}

#[test]
fn a_fault_while_a_two_phase_harvest_begins_is_held_or_marked() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, 2 * BLOCK)]);
        world.write(BASE);
        at(&world, Protect, moment, |tracker| {
            granted(tracker.on_write_fault(BASE));
            guest_store(tracker, BASE + PAGE, 99);
        });
        let harvest = world.tracker.begin_harvest().unwrap();
        let held: Vec<_> = harvest.runs().collect();
        check_permissions(&world);
        world.check_beside(&held);
        drop(harvest);
        world.check_to_the_end();
    }
}

#[test]
fn a_harvest_of_another_thread_in_the_middle_of_one_is_refused() {
    let world = World::armed([region(BASE, BLOCK)]);
    world.write(BASE);
    let refused = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&refused);
    at(&world, Protect, Moment::After, move |tracker| {
        let busy = tracker.harvest(|_| Ok::<_, ()>(()));
        *seen.lock().unwrap() = busy == Err(pugmark::HarvestError::Busy);
    });
    world.harvest();
    assert!(*refused.lock().unwrap());
}

// ---- a host that unwinds

fn unwinds(world: &World, call: Call, moment: Moment, act: impl FnOnce(&Tracker)) {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    world
        .host()
        .at(call, moment, || resume_unwind(Box::new(())));
    let outcome = catch_unwind(AssertUnwindSafe(|| act(&world.tracker)));
    assert!(outcome.is_err(), "the host was not called");
    world.check();
    world.check_to_the_end();
}

#[test]
fn a_host_that_unwinds_in_a_fault_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, 2 * BLOCK)]);
        unwinds(&world, Unprotect, moment, |tracker| {
            let _ = tracker.on_write_fault(BASE);
        });
    }
}

#[test]
fn a_host_that_unwinds_in_a_checkpoint_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, 2 * BLOCK), region(BASE + 4 * BLOCK, BLOCK)]);
        world.write(BASE);
        unwinds(&world, Protect, moment, |tracker| {
            let _ = tracker.arm();
        });
    }
}

#[test]
fn a_host_that_unwinds_in_a_disarm_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, 2 * BLOCK), region(BASE + 4 * BLOCK, BLOCK)]);
        unwinds(&world, Unprotect, moment, |tracker| {
            let _ = tracker.disarm();
        });
    }
}

#[test]
fn a_host_that_unwinds_in_a_harvest_leaves_no_clean_page_open() {
    for moment in MOMENTS {
        let world = World::armed([region(BASE, 2 * BLOCK), region(BASE + 4 * BLOCK, BLOCK)]);
        world.write(BASE);
        unwinds(&world, Protect, moment, |tracker| {
            let _ = tracker.harvest(|_| Ok::<_, ()>(()));
        });
        world.write(BASE + BLOCK);
        unwinds(&world, Protect, moment, |tracker| {
            let _ = tracker.begin_harvest();
        });
    }
}
