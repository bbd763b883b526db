//! Files that are not what they should be.

use std::fs;

use pugmark::snapshot::{Chain, FileFault, FileInfo, SnapshotError};

use crate::guest::{Folder, Guest};

#[track_caller]
fn fault<T: std::fmt::Debug>(result: Result<T, SnapshotError>) -> (FileFault, String) {
    match result {
        Err(error) => {
            let text = error.to_string();
            match error {
                SnapshotError::File { fault, .. } => (fault, text),
                other => panic!("{other:?}"),
            }
        }
        Ok(value) => panic!("{value:?}"),
    }
}

#[test]
fn a_truncated_file_is_named_and_an_earlier_checkpoint_opens() {
    let (folder, guest, _) = Folder::with_chain(3);
    let before = guest
        .restored(&Chain::open_at(&folder, 2).unwrap())
        .unwrap();
    let bytes = fs::read(folder.file(3)).unwrap();
    fs::write(folder.file(3), &bytes[..bytes.len() - 40]).unwrap();
    let (found, text) = fault(Chain::open(&folder));
    assert!(matches!(found, FileFault::Truncated { .. }));
    assert!(
        text.contains("00000003.pugmark") && text.contains("earlier checkpoint"),
        "{text}"
    );
    let earlier = Chain::open_at(&folder, 2).unwrap();
    assert!(guest.restored(&earlier).unwrap() == before);
}

#[test]
fn a_flipped_bit_in_a_page_is_found_before_the_page_is_given() {
    let (folder, guest, _) = Folder::with_chain(2);
    let mut bytes = fs::read(folder.file(1)).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 4;
    fs::write(folder.file(1), &bytes).unwrap();
    // The heads are whole: what is in it can be told.
    let mut chain = Chain::open(&folder).unwrap();
    for found in [
        chain.verify(),
        guest.restored(&chain).map(drop),
        chain.merge().map(drop),
    ] {
        let (found, text) = fault(found);
        assert!(matches!(found, FileFault::Corrupted { .. }), "{found:?}");
        assert!(text.contains("whole copy"), "{text}");
    }
    assert_eq!(folder.names().len(), 3, "the merge left all as it was");
}

#[test]
fn a_foreign_file_is_refused() {
    let (folder, ..) = Folder::with_chain(1);
    fs::write(
        folder.file(2),
        b"\x7fELF, not a snapshot, but long enough for a header at least",
    )
    .unwrap();
    let (found, _) = fault(Chain::open(&folder));
    assert_eq!(found, FileFault::NotASnapshot);
    // One that is not named as a snapshot does not matter.
    fs::rename(folder.file(2), folder.as_ref().join("notes.txt")).unwrap();
    for name in [
        "notes.pugmark",
        "2.pugmark",
        "+0000002.pugmark",
        "00000002.bak",
    ] {
        fs::write(folder.as_ref().join(name), "x").unwrap();
    }
    Chain::open(&folder).unwrap();
}

#[test]
fn a_version_of_tomorrow_is_refused() {
    let (folder, ..) = Folder::with_chain(0);
    let mut bytes = fs::read(folder.file(0)).unwrap();
    bytes[8] = 2;
    fs::write(folder.file(0), bytes).unwrap();
    let (found, text) = fault(FileInfo::read(folder.file(0)));
    assert_eq!(found, FileFault::Version { found: 2 });
    assert!(text.contains("the pugmark that wrote it"), "{text}");
}

#[test]
fn a_diff_on_the_wrong_base_is_refused() {
    let (ours, guest, _) = Folder::with_chain(2);
    // The same guest, but for one byte in the base.
    let theirs = Folder::new();
    let mut other = Guest::of_pages(8);
    let mut chain = Chain::create(&theirs).unwrap();
    for n in 1..4 {
        other.write(0, &[n + 100]);
        other.snapshot(&mut chain).unwrap();
    }
    fs::copy(theirs.file(2), ours.file(2)).unwrap();
    let (found, text) = fault(Chain::open(&ours));
    assert!(matches!(found, FileFault::WrongBase { .. }), "{found:?}");
    assert!(text.contains("of another chain"), "{text}");

    // Of other memory altogether.
    let third = Folder::new();
    let mut chain = Chain::create(&third).unwrap();
    let larger = Guest::of_pages(9);
    for _ in 0..3 {
        larger.snapshot(&mut chain).unwrap();
    }
    fs::copy(third.file(2), ours.file(2)).unwrap();
    let (found, _) = fault(Chain::open(&ours));
    assert_eq!(found, FileFault::OtherRegions);

    // And one under the number of another.
    fs::copy(ours.file(1), ours.file(2)).unwrap();
    let (found, _) = fault(Chain::open(&ours));
    assert_eq!(found, FileFault::WrongName { sequence: 1 });
    let chain = Chain::open_at(&ours, 1).unwrap();
    guest.restored(&chain).unwrap();
}

#[test]
fn a_chain_with_a_gap_is_refused() {
    let (folder, ..) = Folder::with_chain(3);
    fs::remove_file(folder.file(1)).unwrap();
    let missing = Chain::open(&folder).unwrap_err();
    assert!(matches!(
        missing,
        SnapshotError::Missing { sequence: 1, .. }
    ));
    assert!(missing.to_string().contains("lacks checkpoint 1"));
    Chain::open_at(&folder, 0).unwrap();
    fs::remove_file(folder.file(0)).unwrap();
    assert!(Chain::open_at(&folder, 0).is_err());
}

#[test]
fn a_diff_is_no_first_checkpoint() {
    let (folder, ..) = Folder::with_chain(1);
    fs::remove_file(folder.file(0)).unwrap();
    let missing = Chain::open(&folder).unwrap_err();
    assert!(matches!(
        missing,
        SnapshotError::Missing { sequence: 0, .. }
    ));
}

#[test]
fn a_file_that_changes_under_an_open_chain_is_noticed() {
    let (folder, guest, _) = Folder::with_chain(1);
    let chain = Chain::open(&folder).unwrap();
    // Another process goes on from checkpoint 0, against the rule.
    fs::remove_file(folder.file(1)).unwrap();
    let mut theirs = Chain::open(&folder).unwrap();
    guest.tracker.mark_written(0..u64::MAX).unwrap();
    guest.snapshot(&mut theirs).unwrap();
    let (found, text) = fault(guest.restored(&chain).map(drop));
    assert_eq!(found, FileFault::Replaced);
    assert!(text.contains("one process at a time"), "{text}");
}

#[test]
fn what_a_killed_process_left_is_replaced() {
    let (folder, guest, mut chain) = Folder::with_chain(0);
    let left = folder.as_ref().join("unfinished.tmp");
    fs::write(&left, vec![0xaa; 1 << 20]).unwrap();
    Chain::open(&folder).unwrap();
    guest.snapshot(&mut chain).unwrap();
    assert!(!left.exists());
    chain.verify().unwrap();
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_a_guests_memory() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, guest, mut chain) = Folder::with_chain(0);
    let mode = |sequence| {
        let file = fs::metadata(folder.file(sequence)).unwrap();
        file.permissions().mode() & 0o777
    };
    assert_eq!(mode(0), 0o600);
    // Not either where a file of that name was there, for all to read.
    let left = folder.as_ref().join("unfinished.tmp");
    fs::write(&left, "x").unwrap();
    fs::set_permissions(&left, PermissionsExt::from_mode(0o666)).unwrap();
    guest.snapshot(&mut chain).unwrap();
    assert_eq!(mode(1), 0o600);
}

#[cfg(unix)]
#[test]
fn a_link_under_the_temporary_name_is_not_followed() {
    use std::os::unix::fs::symlink;
    let (folder, guest, mut chain) = Folder::with_chain(0);
    let precious = folder.as_ref().join("precious");
    for content in [Some("precious"), None] {
        match content {
            Some(content) => fs::write(&precious, content).unwrap(),
            None => fs::remove_file(&precious).unwrap(),
        }
        symlink(&precious, folder.as_ref().join("unfinished.tmp")).unwrap();
        let written = guest.snapshot(&mut chain).unwrap();
        assert_eq!(fs::read_to_string(&precious).ok().as_deref(), content);
        let file = fs::symlink_metadata(folder.file(written.sequence)).unwrap();
        assert!(file.is_file());
    }
    assert!(guest.restored(&Chain::open(&folder).unwrap()).unwrap() == guest.memory);
}
