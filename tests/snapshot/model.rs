//! Random histories, against copies of memory.

use proptest::prelude::*;

use pugmark::snapshot::{Chain, SnapshotError};

use crate::guest::{Folder, Guest, Memory, PAGE, Shape};

/// Regions with partial last pages, large pages, and one more than a frame.
const SHAPES: &[Shape] = &[
    (0, 5 * PAGE as usize + 17, PAGE),
    (0x10_0000, 300 << 10, 64 << 10),
    (0x4000_0000, (600 << 10) + 1, 256 << 10),
    (1 << 40, 90 * PAGE as usize, PAGE),
];

#[derive(Debug, Clone)]
enum Action {
    /// Bytes of that value from a place on; 0 makes zero pages.
    Write {
        region: usize,
        at: prop::sample::Index,
        len: usize,
        value: u8,
    },
    Snapshot,
    /// The copy fails somewhere.
    FailedSnapshot(prop::sample::Index),
    Reopen,
    Merge,
}

fn action() -> impl Strategy<Value = Action> {
    let write = (
        0..SHAPES.len(),
        any::<prop::sample::Index>(),
        1..200_000_usize,
        prop_oneof![Just(0_u8), any::<u8>()],
    );
    let write = write.prop_map(|(region, at, len, value)| Action::Write {
        region,
        at,
        len,
        value,
    });
    prop_oneof![
        8 => write,
        4 => Just(Action::Snapshot),
        1 => any::<prop::sample::Index>().prop_map(Action::FailedSnapshot),
        1 => Just(Action::Reopen),
        1 => Just(Action::Merge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_checkpoint_restores_to_what_memory_was(
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let folder = Folder::new();
        let mut chain = Chain::create(&folder).unwrap();
        let mut guest = Guest::new(SHAPES);
        let mut checkpoints: Vec<Memory> = Vec::new();
        let mut base = 0;
        for action in actions {
            match action {
                Action::Write { region, at, len, value } => {
                    let (start, size, _) = SHAPES[region];
                    let at = at.index(size);
                    let bytes = vec![value; len.min(size - at)];
                    guest.write(start + at as u64, &bytes);
                }
                Action::Snapshot => {
                    let written = guest.snapshot(&mut chain).unwrap();
                    prop_assert_eq!(written.sequence as usize, checkpoints.len());
                    let file = std::fs::metadata(folder.file(written.sequence)).unwrap();
                    prop_assert_eq!(file.len(), written.file_size);
                    checkpoints.push(guest.memory.clone());
                }
                Action::FailedSnapshot(at) => {
                    // At a page that is marked, if any.
                    let runs: Vec<_> = {
                        let harvest = guest.tracker.begin_harvest().unwrap();
                        harvest.runs().collect()
                    };
                    if runs.is_empty() {
                        continue;
                    }
                    let run = at.get(&runs);
                    let failed = guest.snapshot_failing_at(&mut chain, run.start);
                    let is_ours = matches!(failed, Err(SnapshotError::Memory { .. }));
                    prop_assert!(is_ours, "{failed:?}");
                    prop_assert_eq!(chain.files().len(), checkpoints.len() - base);
                }
                Action::Reopen if checkpoints.is_empty() => {}
                Action::Reopen => chain = Chain::open(&folder).unwrap(),
                Action::Merge if checkpoints.is_empty() => {
                    let nothing = matches!(chain.merge(), Err(SnapshotError::NoBase { .. }));
                    prop_assert!(nothing);
                }
                Action::Merge => {
                    chain.merge().unwrap();
                    base = checkpoints.len() - 1;
                    prop_assert_eq!(folder.names().len(), 1);
                }
            }
        }
        for (sequence, memory) in checkpoints.iter().enumerate().skip(base) {
            let chain = Chain::open_at(&folder, sequence as u64).unwrap();
            chain.verify().unwrap();
            prop_assert!(guest.restored(&chain).unwrap() == *memory, "checkpoint {sequence}");
        }
    }
}
