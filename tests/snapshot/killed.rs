//! A process that is killed at any moment. It is this test's own executable again.
//!
//! What a killed process has written stays in the kernel, so this says nothing of a loss of power;
//! that is the business of the model in `src/snapshot/tests/power.rs`.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use pugmark::snapshot::{Chain, SnapshotError};

use crate::guest::{Folder, Guest, Memory, PAGE};

const FOLDER: &str = "PUGMARK_TEST_FOLDER";
const PAGES: u64 = 200;
const KILLS: u64 = 40;

/// What the guest writes before checkpoint `step`, and at no other time.
fn run(guest: &mut Guest, step: u64) {
    for i in 0..30 {
        let page = (step * 31 + i * i) % PAGES;
        let value = (step * 7 + i) as u8;
        guest.write(page * PAGE + i, &[value; 50]);
    }
}

/// Memory at checkpoint `step`.
fn memory_at(step: u64) -> Memory {
    let mut guest = Guest::of_pages(PAGES);
    (0..=step).for_each(|step| run(&mut guest, step));
    guest.memory
}

/// Goes on from the last checkpoint until it is killed.
#[test]
#[ignore = "the process that the test below kills"]
fn child() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let mut guest = Guest::of_pages(PAGES);
    let (mut chain, mut step) = match Chain::open(folder) {
        Ok(chain) => {
            guest.memory = guest.restored(&chain).expect("a checkpoint");
            guest.tracker.arm().expect("nothing fails");
            let step = chain.files().last().expect("a base").sequence + 1;
            (chain, step)
        }
        Err(_) => (Chain::create(folder).expect("a folder"), 0),
    };
    loop {
        run(&mut guest, step);
        let written = guest.snapshot(&mut chain).expect("nothing fails");
        assert_eq!(written.sequence, step);
        step += 1;
        if step.is_multiple_of(5) {
            chain.merge().expect("nothing fails");
        }
    }
}

#[test]
fn a_process_that_is_killed_leaves_a_checkpoint_to_go_on_from() {
    let folder = Folder::new();
    let mut last = None;
    let mut unfinished = 0;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for kill in 0..KILLS {
        let mut child = Command::new(env::current_exe().expect("this test"))
            .args(["killed::child", "--exact", "--ignored"])
            .env(FOLDER, folder.as_ref())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        random = random.rotate_left(17).wrapping_mul(0x2545_f491_4f6c_dd1d) ^ kill;
        sleep(Duration::from_micros(10_000 + random % 60_000));
        child.kill().expect("SIGKILL");
        let status = child.wait().expect("its end");
        assert_eq!(status.code(), None, "it was killed, and did not end");

        let names = if folder.as_ref().exists() {
            folder.names()
        } else {
            Vec::new()
        };
        unfinished += usize::from(names.iter().any(|name| name.ends_with(".tmp")));
        match Chain::open(&folder) {
            Ok(chain) => {
                let step = chain.files().last().expect("a base").sequence;
                assert!(Some(step) >= last, "{step} after {last:?}");
                last = Some(step);
                chain.verify().expect("whole");
                let restored = Guest::of_pages(PAGES).restored(&chain).expect("whole");
                assert!(restored == memory_at(step), "checkpoint {step}");
            }
            Err(SnapshotError::NoBase { .. } | SnapshotError::Io { .. }) if last.is_none() => {}
            Err(error) => panic!("{error}, after checkpoint {last:?}"),
        }
    }
    println!("{KILLS} kills, {unfinished} in mid-file, {last:?} checkpoints");
    assert!(
        last.is_some(),
        "no process lived long enough to write anything"
    );
}
