//! Each thing that is asked of the disk fails once, in each of its ways.

use ::std::boxed::Box;
use ::std::io::{self, Write};
use ::std::path::Path;
use ::std::sync::{Arc, Mutex};
use ::std::vec::Vec;
use ::std::{panic, println};

use super::super::disk::{Disk, Output, System};
use super::super::{SnapshotError, Step};
use super::{Folder, Guest, restored};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// Nothing was done. Of a write, half of it was.
    NotDone,
    /// It was done, and reported as failed.
    Done,
    /// Nothing is done from there on, until the disk is mended.
    ForGood,
}

#[derive(Debug, Default)]
struct Plan {
    calls: usize,
    fail_at: Option<(usize, Failure)>,
    failed: Vec<&'static str>,
}

/// The operating system's, but what the plan says, and without the wait of a real `fsync`.
#[derive(Debug, Clone, Default)]
struct Faulty(Arc<Mutex<Plan>>);

impl Faulty {
    fn step<T>(&self, name: &'static str, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.failure(name) {
            None => act(),
            Some(Failure::Done) => act().and(Err(broken())),
            Some(_) => Err(broken()),
        }
    }

    /// Whether this call is to fail.
    fn failure(&self, name: &'static str) -> Option<Failure> {
        let mut plan = self.0.lock().expect("no panic");
        let call = plan.calls;
        plan.calls += 1;
        let (at, how) = plan.fail_at?;
        let fails = call == at || (call > at && how == Failure::ForGood);
        fails.then(|| plan.failed.push(name));
        fails.then_some(how)
    }

    fn mend(&self) {
        self.0.lock().expect("no panic").fail_at = None;
    }
}

fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let output = self.step("create", || System.create(path))?;
        Ok(Box::new(FaultyOutput(output, self.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename", || System.rename(from, to))
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.step("sync_folder", || Ok(()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step("remove", || System.remove(path))
    }
}

#[derive(Debug)]
struct FaultyOutput(Box<dyn Output>, Faulty);

impl Write for FaultyOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.1.failure("write") {
            None => self.0.write(bytes),
            Some(how) => {
                let part = match how {
                    Failure::Done => bytes,
                    _ => &bytes[..bytes.len() / 2],
                };
                self.0.write_all(part)?;
                Err(broken())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Output for FaultyOutput {
    fn sync(&mut self) -> io::Result<()> {
        self.1.step("sync", || Ok(()))
    }
}

/// The operating system's, but what is written meets its full disk for as long as it is full.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct DevFull(Arc<Mutex<bool>>);

#[cfg(target_os = "linux")]
impl Disk for DevFull {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let output = System.create(path)?;
        if !*self.0.lock().expect("no panic") {
            return Ok(output);
        }
        let full = ::std::fs::File::options().write(true).open("/dev/full")?;
        Ok(Box::new(full))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        System.sync_folder(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        System.remove(path)
    }
}

const STEPS: u64 = 6;
/// After which the chain is merged.
const MERGE: u64 = 3;

/// A base, diffs, a merge, more diffs, and at most one failure; what the chain is after it, and
/// after what follows. The calls made, and which failed.
fn run(fail_at: Option<(usize, Failure)>) -> (usize, Vec<&'static str>) {
    let folder = Folder::new("failures");
    let disk = Faulty::default();
    let mut chain = folder.create_on(disk.clone()).expect("a chain");
    let mut guest = Guest::new();
    // What the last checkpoint holds.
    let mut checkpoint = None;
    disk.0.lock().expect("no panic").fail_at = fail_at;
    for step in 0..STEPS {
        guest.run(step);
        match guest.snapshot(&mut chain) {
            Ok(written) => {
                assert_eq!(
                    written.sequence as usize,
                    chain.files().len() - 1 + base(&chain)
                );
                checkpoint = Some(guest.memory.clone());
            }
            Err(error) => {
                // The chain that this process has open is as it was.
                if let Some(checkpoint) = &checkpoint {
                    assert_eq!(&restored(&chain), checkpoint);
                }
                // What another one finds is that, or this one whole, if it got its name.
                let published = matches!(
                    error,
                    SnapshotError::Io {
                        step: Step::Rename | Step::SyncFolder,
                        ..
                    }
                );
                match folder.open() {
                    Ok(found) if published && found.files().len() > chain.files().len() => {
                        assert_eq!(restored(&found), guest.memory);
                    }
                    Ok(found) => assert_eq!(Some(restored(&found)), checkpoint),
                    Err(error) => {
                        let none = matches!(error, SnapshotError::NoBase { .. });
                        assert!(none && checkpoint.is_none(), "{error}");
                    }
                }
                let text = std::format!("{error}");
                assert!(text.contains("nothing is lost"), "{text}");
                // The guest goes on; the next one has what this one had, and more.
                disk.mend();
                guest.run(step + 100);
                guest.snapshot(&mut chain).expect("the disk is mended");
                checkpoint = Some(guest.memory.clone());
            }
        }
        assert_eq!(folder.open().map(|found| restored(&found)).ok(), checkpoint);
        if step == MERGE {
            if let Err(error) = chain.merge() {
                assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
                assert_eq!(Some(restored(&chain)), checkpoint);
                assert_eq!(folder.open().map(|found| restored(&found)).ok(), checkpoint);
                disk.mend();
            }
            // What the chain goes on from is the same checkpoint, merged or not.
            assert_eq!(Some(restored(&chain)), checkpoint);
        }
    }
    // Whatever happened on the way, a merge succeeds now and leaves one file.
    disk.mend();
    chain.merge().expect("the disk is mended");
    assert_eq!(folder.names(), [chain.files()[0].path.clone()]);
    assert_eq!(folder.open().map(|found| restored(&found)).ok(), checkpoint);
    let plan = disk.0.lock().expect("no panic");
    (plan.calls, plan.failed.clone())
}

/// The number of the chain's first file.
fn base(chain: &super::Chain) -> usize {
    chain
        .files()
        .first()
        .map_or(0, |file| file.sequence as usize)
}

#[test]
fn whatever_fails_the_chain_is_whole_and_the_next_snapshot_has_it_all() {
    let (calls, failed) = run(None);
    assert!(failed.is_empty() && calls > 40, "{calls} calls");
    let mut seen = ::std::collections::BTreeMap::new();
    for how in [Failure::NotDone, Failure::ForGood, Failure::Done] {
        for at in 0..calls {
            let outcome = panic::catch_unwind(|| run(Some((at, how))));
            let Ok((_, failed)) = outcome else {
                panic!("when call {at} fails, {how:?}");
            };
            for name in failed {
                *seen.entry(name).or_insert(0) += 1;
            }
        }
    }
    println!("failed: {seen:?}");
    let names: Vec<_> = seen.into_keys().collect();
    assert_eq!(
        names,
        ["create", "remove", "rename", "sync", "sync_folder", "write"]
    );
}

#[test]
fn a_full_disk_says_so() {
    let folder = Folder::new("full");
    let disk = Faulty::default();
    let mut chain = folder.create_on(disk.clone()).expect("a chain");
    disk.0.lock().expect("no panic").fail_at = Some((2, Failure::ForGood));
    let error = Guest::new().snapshot(&mut chain).expect_err("it is full");
    let text = std::format!("{error}");
    assert!(
        text.contains("free some space") && text.contains("nothing is lost"),
        "{text}"
    );
}

/// The kernel's own error, where there is nothing to mount a small file system with.
#[cfg(target_os = "linux")]
#[test]
fn the_full_device() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: there is no /dev/full");
        return;
    }
    let folder = Folder::new("dev-full");
    let full = Arc::new(Mutex::new(false));
    let mut chain = folder
        .create_on(DevFull(full.clone()))
        .expect("a new folder");
    let mut guest = Guest::new();
    guest.snapshot(&mut chain).expect("a base");
    let before = guest.memory.clone();

    guest.run(1);
    *full.lock().expect("no panic") = true;
    let error = guest.snapshot(&mut chain).expect_err("it is full");
    let SnapshotError::Io { step, error, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(
        (step, error.kind()),
        (Step::Write, io::ErrorKind::StorageFull)
    );
    assert_eq!(folder.names().len(), 1, "nothing is left behind");
    assert_eq!(restored(&folder.open().expect("as it was")), before);

    *full.lock().expect("no panic") = false;
    guest.snapshot(&mut chain).expect("there is room again");
    assert_eq!(restored(&folder.open().expect("whole")), guest.memory);
}

#[test]
fn nothing_is_committed_after_a_write_that_failed() {
    let folder = Folder::new("broken");
    let disk = Faulty::default();
    let mut chain = folder.create_on(disk.clone()).expect("a chain");
    let guest = Guest::new();
    guest.snapshot(&mut chain).expect("a base");
    guest.tracker.mark_written(0..u64::MAX).expect("all");
    let harvest = guest.tracker.begin_harvest().expect("the only one");
    let mut draft = chain.draft(&harvest).expect("a draft");
    // The next write is that of the first frame, when the same run comes again.
    let run = harvest.runs().next().expect("all memory");
    draft
        .add(run, |_, _| Ok(()))
        .expect("there is room in the frame");
    let calls = disk.0.lock().expect("no panic").calls;
    disk.0.lock().expect("no panic").fail_at = Some((calls, Failure::NotDone));
    draft.add(run, |_, _| Ok(())).expect_err("it is full");
    disk.mend();
    // Whoever goes on nevertheless gets no further.
    draft
        .add(run, |_, _| Ok(()))
        .expect_err("an earlier write failed");
    let error = draft.commit(harvest).expect_err("an earlier write failed");
    assert!(std::format!("{error}").contains("an earlier write failed"));
    assert_eq!(chain.files().len(), 1);
    folder.open().expect("whole").verify().expect("whole");
}
