//! Bytes that are no snapshot, or were one.

use ::std::fs;
use ::std::io::Cursor;
use ::std::path::Path;
use ::std::sync::OnceLock;
use ::std::vec::Vec;

use proptest::prelude::*;

use super::super::disk::{Disk, System};
use super::super::layout::{Layout, RegionLayout};
use super::super::packer::Packer;
use super::super::reader::Reader;
use super::super::{FileFault, FileInfo, Kind, SnapshotError};
use super::{Folder, Guest, PAGE};

/// A diff with runs, zeros and several pages.
fn diff() -> &'static [u8] {
    static DIFF: OnceLock<Vec<u8>> = OnceLock::new();
    DIFF.get_or_init(write_diff)
}

fn write_diff() -> Vec<u8> {
    let folder = Folder::new("bytes");
    let mut chain = folder.create_on(System).expect("a chain");
    let mut guest = Guest::new();
    guest.snapshot(&mut chain).expect("a base");
    let size = guest.memory.len();
    guest.memory[600..1600].fill(7);
    guest.memory[size - 50..].fill(9);
    for written in [0..1, 512..1600, 5000..5001, size - 1..size] {
        let written = written.start as u64..written.end as u64;
        let written = super::BASE + written.start..super::BASE + written.end;
        guest.tracker.mark_written(written).expect("in the region");
    }
    let written = guest.snapshot(&mut chain).expect("a diff");
    assert!(written.runs > 3 && written.zeros > 0 && written.data > 0);
    let file = chain.files().last().expect("a diff");
    fs::read(&file.path).expect("the file")
}

fn read(bytes: &[u8]) -> Result<FileInfo, SnapshotError> {
    let len = bytes.len() as u64;
    // Without the page data it must not fail alone, but never panic.
    let walked = Reader::new(Path::new("walked"), Cursor::new(bytes), len)
        .and_then(|mut reader| reader.walk(|_| ()));
    let verified = Reader::new(Path::new("verified"), Cursor::new(bytes), len)
        .and_then(|mut reader| reader.verify());
    if walked.is_err() {
        assert!(verified.is_err());
    }
    verified
}

fn fault(bytes: &[u8]) -> FileFault {
    match read(bytes) {
        Err(SnapshotError::File { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let whole = diff();
    read(whole).expect("whole");
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let fault = fault(&bytes);
        match at {
            0..8 => assert_eq!(fault, FileFault::NotASnapshot),
            8..12 => assert!(matches!(fault, FileFault::Version { .. })),
            _ => assert!(
                matches!(
                    fault,
                    FileFault::Corrupted { .. } | FileFault::Truncated { .. }
                ),
                "{fault:?}"
            ),
        }
    }
}

#[test]
fn every_cut_is_found() {
    let whole = diff();
    for len in 0..whole.len() {
        let expected = FileFault::Truncated { len: len as u64 };
        assert_eq!(fault(&whole[..len]), expected);
    }
    let longer = [whole, &[0]].concat();
    let at = whole.len() as u64;
    assert_eq!(fault(&longer), FileFault::TrailingBytes { at });
    let twice = [whole, whole].concat();
    assert_eq!(fault(&twice), FileFault::TrailingBytes { at });
}

/// Each frame is whole, but they are not all, or not in order.
#[test]
fn a_frame_that_is_missing_moved_or_doubled_is_found() {
    let folder = Folder::new("frames");
    let mut chain = folder.create_on(System).expect("a chain");
    let guest = Guest::new();
    let harvest = guest.tracker.begin_harvest().expect("the only one");
    let mut draft = chain.draft(&harvest).expect("a draft");
    for byte in [1, 2] {
        let run = harvest.runs().next().expect("all memory");
        let copied = draft.add(run, |_, into| {
            into.fill(byte);
            Ok(())
        });
        copied.expect("nothing fails");
    }
    let written = draft.commit(harvest).expect("nothing fails");
    assert_eq!(written.runs, 2);
    let whole = fs::read(folder.names()[0].as_path()).expect("the file");
    // Both frames are as long; the end is 32 bytes.
    let header = 48 + 24;
    let (header, rest) = whole.split_at(header);
    let (frames, end) = rest.split_at(rest.len() - 32);
    let (first, second) = frames.split_at(frames.len() / 2);
    assert_eq!((&first[..4], &second[..4]), (&b"RUNS"[..], &b"RUNS"[..]));
    for frames in [
        &[first][..],
        &[second],
        &[],
        &[second, first],
        &[first, first],
        &[first, second, second],
    ] {
        let changed = [header, &frames.concat(), end].concat();
        let at = (header.len() + frames.concat().len()) as u64;
        assert_eq!(fault(&changed), FileFault::Corrupted { at });
    }
    read(&[header, first, second, end].concat()).expect("whole");
}

/// No chain writes one, so it is put together by hand.
#[test]
fn a_base_that_lacks_memory_is_found() {
    let folder = Folder::new("lacking");
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.as_ref().join("00000000.pugmark");
    let output = System.create(&path).expect("a file");
    let layout = Layout::of(Guest::new().tracker.regions());
    let mut packer = Packer::new(output, &layout, 0, Kind::Base).expect("nothing fails");
    let region = layout.regions()[0].range();
    packer
        .zero(region.start..region.start + PAGE)
        .expect("nothing fails");
    packer
        .zero(region.start + 2 * PAGE..region.end)
        .expect("nothing fails");
    packer.finish().expect("nothing fails");

    let chain = folder.open().expect("each record is whole");
    let start = region.start + PAGE;
    let verified = [chain.verify(), FileInfo::verify(&path).map(drop)];
    for outcome in verified.into_iter().chain([chain.restore(|_, _| Ok(()))]) {
        match outcome {
            Err(SnapshotError::File { fault, .. }) => {
                assert_eq!(fault, FileFault::IncompleteBase { start });
            }
            other => panic!("{other:?}"),
        }
    }
}

/// As whoever forges a file could have it: no checksum tells.
#[test]
fn regions_that_no_memory_has_are_refused() {
    let region = |base, size| RegionLayout {
        base,
        size,
        page_size: PAGE,
    };
    let last = 0_u64.wrapping_sub(PAGE);
    for regions in [
        [region(0, u64::MAX), region(PAGE, PAGE)],
        [region(last, PAGE), region(0, PAGE)],
        [region(0, PAGE), region(last, PAGE)],
    ] {
        assert_eq!(Layout::new(regions.into()), None, "{regions:?}");
    }
    let whole = [region(0, PAGE), region(last, PAGE - 1)];
    assert!(Layout::new(whole.into()).is_some());
}

proptest! {
    #[test]
    fn no_bytes_pass_for_a_snapshot(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn no_bytes_pass_for_the_rest_of_one(
        keep in 0_usize..200,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let whole = diff();
        let changed = [&whole[..keep], &bytes].concat();
        prop_assert!(read(&changed).is_err());
    }

    #[test]
    fn no_change_passes(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let whole = diff();
        let mut changed = whole.to_vec();
        for (at, byte) in edits {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        prop_assume!(changed != whole);
        prop_assert!(read(&changed).is_err());
    }
}
