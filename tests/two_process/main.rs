//! Two processes share an arena. The one owns and reads it; the other writes through a
//! [`SlotBinding`](pugmark::SlotBinding), and is killed, again and again, wherever it is.
#![cfg(all(target_os = "linux", not(any(miri, loom))))]

mod owner;
#[path = "../shared_memory/mod.rs"]
mod shared_memory;
mod stamp;
mod writer;

use std::time::{Duration, UNIX_EPOCH};

use owner::World;
use writer::Task;

/// Kills at random moments: so many, and so many of them in mid-write, at least.
const KILLS: usize = 250;
const TORN: usize = 20;

#[test]
fn a_writer_killed_at_any_moment_leaves_no_torn_value() {
    let mut world = World::new();
    let mut random = UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
    let (mut kills, mut torn) = (0, 0);
    while kills < KILLS || torn < TORN {
        assert!(kills < 20 * KILLS, "{torn} of {kills} kills in mid-write");
        let writer = world.start(Task::Write);
        // Its values arrive, also in the slot that the last writer tore.
        world.read_until_all_are_from(&writer);
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d) + 1;
        world.read_for(Duration::from_micros((random >> 33) % 3000));
        torn += world.kill(writer);
        kills += 1;
    }
    world.write_all();
    println!("{kills} kills, {torn} in mid-write; {}", world.counts());
}

#[test]
fn a_writer_killed_in_mid_write_leaves_the_last_value() {
    let mut world = World::new();
    let writer = world.start(Task::HalfAValue);
    world.read_until_all_are_from(&writer);
    world.read_until_hanging(&writer);
    let before = world.values().clone();
    assert_eq!(world.kill(writer), 1, "half a value is left");
    assert_eq!(*world.values(), before);
    world.write_all();
}

#[test]
fn a_writer_killed_before_its_hint_leaves_a_value_for_the_rescan() {
    let mut world = World::new();
    let writer = world.start(Task::ValueWithoutHint);
    world.read_until_all_are_from(&writer);
    world.read_until_hanging(&writer);
    let before = world.values().clone();
    assert_eq!(world.read().updated, 0, "nothing tells of the value");
    assert_eq!(world.kill(writer), 0, "the value is whole");
    assert_ne!(*world.values(), before, "the rescan found it");
    world.write_all();
}

#[test]
#[ignore = "the other process; the tests above start it"]
fn writer_process() {
    writer::run();
}
