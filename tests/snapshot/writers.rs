//! Two chains on one folder. A process that is killed with the lock is the business of `killed`.

use pugmark::snapshot::{Chain, SnapshotError};

use crate::guest::{Folder, Guest, PAGE};

#[cfg(unix)]
#[test]
fn while_one_writes_another_is_refused_and_loses_nothing() {
    let (folder, mut guest, mut chain) = Folder::with_chain(1);
    let mut other = Chain::open(&folder).unwrap();
    guest.write(PAGE, &[7]);
    let refused = [
        guest.snapshot(&mut other).unwrap_err(),
        other.merge().unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, SnapshotError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("nothing is lost"), "{error}");
    }
    // To read it needs no lock.
    other.verify().unwrap();
    guest.restored(&other).unwrap();
    assert_eq!(guest.tracker.regions()[0].dirty().count(), 1);
    // The lock leaves nothing in the folder.
    assert_eq!(folder.names(), ["00000000.pugmark", "00000001.pugmark"]);

    drop(chain);
    let written = guest.snapshot(&mut other).unwrap();
    assert_eq!((written.sequence, written.data), (2, PAGE));
    chain = Chain::open(&folder).unwrap();
    let error = chain.merge().unwrap_err();
    assert!(matches!(error, SnapshotError::InUse { .. }), "{error}");
    drop(other);
    chain.merge().unwrap();
    assert!(guest.restored(&chain).unwrap() == guest.memory);
}

#[cfg(unix)]
#[test]
fn a_draft_is_refused_before_it_touches_that_of_another() {
    let (folder, mut guest, mut chain) = Folder::with_chain(0);
    let other = Guest::of_pages(8);
    guest.write(0, &[7]);
    let harvest = guest.tracker.begin_harvest().unwrap();
    let mut draft = chain.draft(&harvest).unwrap();
    let mut second = Chain::open(&folder).unwrap();
    other.snapshot(&mut second).unwrap_err();
    for run in harvest.runs() {
        let copied = draft.add(run, |at, into| {
            guest.memory.read(at, into);
            Ok(())
        });
        copied.unwrap();
    }
    draft.commit(harvest).unwrap();
    let found = Chain::open(&folder).unwrap();
    found.verify().unwrap();
    assert!(guest.restored(&found).unwrap() == guest.memory);
}

/// What it goes on from is not the last any more: its checkpoint would replace the other's.
#[test]
fn a_chain_that_another_has_written_to_is_refused() {
    let (folder, mut guest, _) = Folder::with_chain(1);
    let mut stale = Chain::open(&folder).unwrap();
    let mut other = Chain::open(&folder).unwrap();
    guest.write(0, &[7]);
    guest.snapshot(&mut other).unwrap();
    drop(other);
    guest.write(PAGE, &[7]);
    for error in [
        guest.snapshot(&mut stale).unwrap_err(),
        stale.merge().unwrap_err(),
    ] {
        let (opened, last) = (1, 2);
        let refused = matches!(&error, SnapshotError::NotTheLast { opened: o, last: l } if (*o, *l) == (opened, last));
        assert!(refused, "{error}");
    }
    // It keeps no lock that it cannot use.
    let mut chain = Chain::open(&folder).unwrap();
    assert_eq!(guest.snapshot(&mut chain).unwrap().sequence, 3);

    // Both found the folder empty.
    let folder = Folder::new();
    let [mut first, mut second] = [(); 2].map(|()| Chain::create(&folder).unwrap());
    let guest = Guest::of_pages(8);
    guest.snapshot(&mut first).unwrap();
    drop(first);
    let error = guest.snapshot(&mut second).unwrap_err();
    assert!(matches!(error, SnapshotError::Occupied { .. }), "{error}");
}

/// The number is right, and what is in it is not what the chain goes on from.
#[test]
fn a_chain_whose_last_file_is_another_is_refused() {
    let (folder, guest, _) = Folder::with_chain(1);
    let mut stale = Chain::open(&folder).unwrap();
    std::fs::remove_file(folder.file(1)).unwrap();
    let mut other = Chain::open(&folder).unwrap();
    guest.tracker.mark_written(0..u64::MAX).unwrap();
    guest.snapshot(&mut other).unwrap();
    drop(other);
    let error = guest.snapshot(&mut stale).unwrap_err();
    assert!(error.to_string().contains("another file"), "{error}");
}

/// Merged under it, the checkpoint is the same, so that the chain goes on.
#[test]
fn a_chain_that_another_has_merged_goes_on() {
    let (folder, mut guest, _) = Folder::with_chain(2);
    let mut chain = Chain::open(&folder).unwrap();
    Chain::open(&folder).unwrap().merge().unwrap();
    guest.write(0, &[9]);
    assert_eq!(guest.snapshot(&mut chain).unwrap().sequence, 3);
    let found = Chain::open(&folder).unwrap();
    assert!(guest.restored(&found).unwrap() == guest.memory);
}
