//! What is asked of a chain that it refuses, and what it does in rounds.

use pugmark::snapshot::{Chain, FileInfo, Kind, SnapshotError};
use pugmark::{DirtyRun, HarvestError};

use crate::guest::{Folder, Guest, PAGE};

#[test]
fn a_new_chain_takes_a_folder_without_snapshots() {
    let (folder, ..) = Folder::with_chain(0);
    let occupied = Chain::create(&folder).unwrap_err();
    assert!(matches!(occupied, SnapshotError::Occupied { .. }));
    assert!(occupied.to_string().contains("open that chain"));

    let empty = Folder::new();
    let none = Chain::open(&empty).unwrap_err();
    assert!(matches!(none, SnapshotError::Io { .. }), "{none:?}");
    let deep = empty.as_ref().join("a/b");
    let chain = Chain::create(&deep).unwrap();
    assert_eq!(chain.files(), []);
    let none = chain.restore(|_, _| Ok(())).unwrap_err();
    assert!(matches!(none, SnapshotError::NoBase { .. }));
    let none = Chain::open(&deep).unwrap_err();
    assert!(none.to_string().contains("first harvest of a new tracker"));
}

#[test]
fn a_base_has_all_of_memory() {
    let folder = Folder::new();
    let mut chain = Chain::create(&folder).unwrap();
    let guest = Guest::of_pages(8);
    guest.tracker.arm().unwrap();
    guest.tracker.mark_written(0..3 * PAGE).unwrap();
    guest.tracker.mark_written(4 * PAGE..8 * PAGE).unwrap();
    let error = guest.snapshot(&mut chain).unwrap_err();
    let SnapshotError::Incomplete { range } = &error else {
        panic!("{error}");
    };
    assert_eq!(*range, 3 * PAGE..4 * PAGE);
    assert!(error.to_string().contains("mark_written"));
    // As it says: everything marked, it has all.
    guest.tracker.mark_written(0..u64::MAX).unwrap();
    let written = guest.snapshot(&mut chain).unwrap();
    assert_eq!((written.sequence, written.data), (0, 0));
    assert_eq!(written.zeros, 8 * PAGE);
    assert_eq!(folder.names(), ["00000000.pugmark"]);
}

#[test]
fn a_diff_is_of_the_same_regions() {
    let (_folder, guest, mut chain) = Folder::with_chain(1);
    let other = Guest::of_pages(9);
    let error = other.snapshot(&mut chain).unwrap_err();
    assert!(matches!(error, SnapshotError::OtherRegions { .. }));
    assert!(error.to_string().contains("begin a new one"));
    // What it did not take is marked.
    assert_eq!(other.tracker.regions()[0].dirty().count(), 9);
    guest.snapshot(&mut chain).unwrap();
}

#[test]
fn nothing_is_written_after_an_earlier_checkpoint() {
    let (folder, mut guest, _) = Folder::with_chain(3);
    let mut earlier = Chain::open_at(&folder, 2).unwrap();
    assert_eq!(earlier.files().len(), 3);
    guest.write(0, &[9]);
    let error = guest.snapshot(&mut earlier).unwrap_err();
    let refused = |error: &SnapshotError| {
        let (opened, last) = (2, 3);
        matches!(error, SnapshotError::NotTheLast { opened: o, last: l } if (*o, *l) == (opened, last))
    };
    assert!(refused(&error), "{error}");
    assert!(refused(&earlier.merge().unwrap_err()));
    let missing = Chain::open_at(&folder, 4).unwrap_err();
    assert!(matches!(
        missing,
        SnapshotError::Missing { sequence: 4, .. }
    ));
    // The guest's page is marked still.
    let mut chain = Chain::open(&folder).unwrap();
    assert_eq!(guest.snapshot(&mut chain).unwrap().data, PAGE);
}

#[test]
fn a_copy_in_rounds_holds_the_last_content() {
    let (folder, mut guest, mut chain) = Folder::with_chain(0);
    guest.write(PAGE, &[1; 5000]);
    guest.write(6 * PAGE, &[2]);

    // The guest writes while the first round is copied, so the borrows are by hand.
    let tracker = &guest.tracker;
    let mut harvest = tracker.begin_harvest().unwrap();
    let mut draft = chain.draft(&harvest).unwrap();
    for run in harvest.runs() {
        let copied = draft.add(run, |at, into| {
            guest.memory.read(at, into);
            Ok(())
        });
        copied.unwrap();
    }
    // A page of the first round, which is all zero now, and another.
    let mut memory = guest.memory.clone();
    memory.0[0].1[PAGE as usize..2 * PAGE as usize].fill(0);
    memory.0[0].1[3 * PAGE as usize] = 7;
    tracker.mark_written(PAGE..PAGE + 1).unwrap();
    tracker.mark_written(3 * PAGE..3 * PAGE + 1).unwrap();
    let last = harvest.extend_final(|run| {
        draft.add(run, |at, into| {
            memory.read(at, into);
            Ok(())
        })
    });
    assert_eq!(last.unwrap().pages, 2);
    let written = draft.commit(harvest).unwrap();
    assert_eq!((written.data, written.zeros), (4 * PAGE, PAGE));
    assert_eq!(tracker.regions()[0].dirty().count(), 0);
    let restored = guest.restored(&Chain::open(&folder).unwrap()).unwrap();
    assert!(restored == memory);
    // The other way round for a merge: the frames of one file, the last first.
    chain.merge().unwrap();
    assert!(guest.restored(&chain).unwrap() == memory);
}

#[test]
fn a_draft_without_all_of_its_harvest_is_not_committed() {
    let (folder, mut guest, mut chain) = Folder::with_chain(0);
    guest.write(PAGE, &[1]);
    guest.write(4 * PAGE, &[1; 2 * PAGE as usize]);
    let harvest = guest.tracker.begin_harvest().unwrap();
    let mut draft = chain.draft(&harvest).unwrap();
    for run in [(PAGE, PAGE), (4 * PAGE, PAGE)] {
        let (start, len) = run;
        draft.add(DirtyRun { start, len }, |_, _| Ok(())).unwrap();
    }
    let error = draft.commit(harvest).unwrap_err();
    let SnapshotError::Incomplete { range } = error else {
        panic!("{error}");
    };
    assert_eq!(range, 5 * PAGE..6 * PAGE);
    assert_eq!(guest.tracker.regions()[0].dirty().count(), 3);
    assert_eq!(folder.names(), ["00000000.pugmark"]);
    assert_eq!(guest.snapshot(&mut chain).unwrap().sequence, 1);
}

#[test]
fn a_draft_takes_whole_pages_of_a_region() {
    let (_folder, guest, mut chain) = Folder::with_chain(0);
    let mut harvest = guest.tracker.begin_harvest().unwrap();
    let mut draft = chain.draft(&harvest).unwrap();
    for (start, len) in [
        (1, PAGE),
        (0, PAGE - 1),
        (0, 0),
        (7 * PAGE, 2 * PAGE),
        (8 * PAGE, PAGE),
    ] {
        let error = draft.add(DirtyRun { start, len }, |_, _| Ok(()));
        let not_a_run = matches!(error, Err(SnapshotError::NotARun { .. }));
        assert!(not_a_run, "{start:#x}+{len:#x}: {error:?}");
    }
    // The error comes out of the harvest with its run.
    guest.tracker.mark_written(0..1).unwrap();
    let refused =
        harvest.extend(|run| draft.add(run, |_, _| Err(std::io::Error::other("no such memory"))));
    let Err(HarvestError::Consumer { error, .. }) = refused else {
        panic!("{refused:?}");
    };
    let text = error.to_string();
    assert!(text.contains("0x0..0x1000: no such memory"), "{text}");
}

#[test]
fn an_empty_harvest_is_a_checkpoint_too() {
    let (folder, guest, mut chain) = Folder::with_chain(1);
    let written = guest.snapshot(&mut chain).unwrap();
    assert_eq!((written.sequence, written.runs), (2, 0));
    let chain = Chain::open(&folder).unwrap();
    assert!(guest.restored(&chain).unwrap() == guest.memory);
}

#[test]
fn what_restores_may_refuse() {
    let (_folder, _, chain) = Folder::with_chain(1);
    let error = chain
        .restore(|_, _| Err(std::io::Error::other("full")))
        .unwrap_err();
    assert!(matches!(error, SnapshotError::Target { .. }));
}

#[test]
fn a_merge_keeps_number_and_id_and_the_chain_goes_on() {
    let (folder, mut guest, mut chain) = Folder::with_chain(3);
    let tip = chain.files().last().unwrap().clone();
    let merged = chain.merge().unwrap();
    assert_eq!((merged.sequence, merged.id), (3, tip.id));
    assert_eq!(folder.names(), ["00000003.pugmark"]);
    // Merged again, it holds the same.
    let again = chain.merge().unwrap();
    let content = |written: pugmark::snapshot::Written| (written.id, written.data, written.zeros);
    assert_eq!(content(again), content(merged));
    assert!(guest.restored(&chain).unwrap() == guest.memory);

    guest.write(2 * PAGE, &[0x77]);
    let written = guest.snapshot(&mut chain).unwrap();
    assert_eq!(written.sequence, 4);
    let chain = Chain::open(&folder).unwrap();
    assert_eq!(chain.files()[0].kind, Kind::Merged { id: tip.id });
    assert_eq!(chain.files()[1].kind, Kind::Diff { parent: tip.id });
    assert!(guest.restored(&chain).unwrap() == guest.memory);
    chain.verify().unwrap();
}

#[test]
fn info_tells_people_what_is_in_a_file() {
    let (folder, ..) = Folder::with_chain(1);
    let base = FileInfo::read(folder.file(0)).unwrap();
    assert_eq!((base.data, base.zeros), (PAGE, 7 * PAGE));
    let diff = FileInfo::verify(folder.file(1)).unwrap();
    let text = diff.to_string();
    for part in [
        "00000001.pugmark\n",
        &format!(
            "checkpoint 1: id {:016x}, a diff on {:016x}\n",
            diff.id, base.id
        ),
        "memory 0x0..0x8000, pages of 4096\n",
        "data   4096 bytes, 12.50 % of memory\n",
        "zeros  0 bytes, 0.00 %, not stored\n",
        &format!("runs   1; the file has {} bytes", diff.file_size),
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let text = base.to_string();
    assert!(text.contains("a base\n"), "{text}");
}

/// The region ends as high as one can: its last whole page is the last but one below 2^64.
#[test]
fn memory_at_the_top_of_the_address_space() {
    let size = 32 * PAGE - 1;
    let start = (33 * PAGE).wrapping_neg();
    let folder = Folder::new();
    let mut chain = Chain::create(&folder).unwrap();
    let mut guest = Guest::new(&[(start, size as usize, PAGE)]);
    guest.write(start + PAGE, &[1; 5]);
    guest.write(start + size - 3, &[2; 3]);
    guest.snapshot(&mut chain).unwrap();
    guest.write(start + 2 * PAGE, &[3; 5]);
    guest.snapshot(&mut chain).unwrap();
    // Its zeros are copied as such.
    let merged = chain.merge().unwrap();
    assert_eq!(merged.data + merged.zeros, size);
    chain.verify().unwrap();
    assert!(guest.restored(&chain).unwrap() == guest.memory);
}
