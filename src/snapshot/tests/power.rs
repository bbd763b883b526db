//! A machine that loses power after each thing that was asked of its disk: what was not synced may
//! be there, or not, or hold anything.

use ::std::boxed::Box;
use ::std::collections::BTreeMap;
use ::std::ffi::OsString;
use ::std::io::{self, Write};
use ::std::path::{Path, PathBuf};
use ::std::sync::{Arc, Mutex};
use ::std::vec::Vec;
use ::std::{fs, println};

use super::super::SnapshotError;
use super::super::disk::{Disk, Output, System};
use super::{Chain, Folder, Guest, restored};

#[derive(Debug, Clone)]
enum Event {
    Create(OsString),
    Write(OsString, Vec<u8>),
    Sync(OsString),
    Rename(OsString, OsString),
    Remove(OsString),
    SyncFolder(PathBuf),
    /// The caller was told that this many checkpoints are safe.
    Promised(usize),
}

/// The operating system's, without the wait of a real `fsync`, and a record of what it was asked.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Recorder {
    fn add(&self, event: Event) {
        self.0.lock().expect("no panic").push(event);
    }
}

fn name(path: &Path) -> OsString {
    path.file_name().expect("a name").into()
}

impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.add(Event::Create(name(path)));
        Ok(Box::new(RecordedOutput {
            output: System.create(path)?,
            name: name(path),
            recorder: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.add(Event::Rename(name(from), name(to)));
        System.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.add(Event::SyncFolder(folder.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.add(Event::Remove(name(path)));
        System.remove(path)
    }
}

#[derive(Debug)]
struct RecordedOutput {
    output: Box<dyn Output>,
    name: OsString,
    recorder: Recorder,
}

impl Write for RecordedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.recorder
            .add(Event::Write(self.name.clone(), bytes.into()));
        self.output.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl Output for RecordedOutput {
    fn sync(&mut self) -> io::Result<()> {
        self.recorder.add(Event::Sync(self.name.clone()));
        Ok(())
    }
}

/// What became of bytes that were written and not synced.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    Kept,
    Lost,
    HalfLost,
    Zeroed,
}

#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
}

impl Content {
    fn after(&self, unsynced: Unsynced) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        match unsynced {
            Unsynced::Kept => {}
            Unsynced::Lost => bytes.truncate(self.synced),
            Unsynced::HalfLost => bytes.truncate(self.synced.midpoint(self.bytes.len())),
            Unsynced::Zeroed => bytes[self.synced..].fill(0),
        }
        bytes
    }
}

type Names = BTreeMap<OsString, usize>;

/// A disk, as the events made it.
#[derive(Debug, Default)]
struct Model {
    files: Vec<Content>,
    /// The names as the last sync of the folder left them, and as each change since then.
    names: Vec<Names>,
    promised: usize,
}

impl Model {
    fn after(events: &[Event]) -> Self {
        let mut this = Self::default();
        this.names.push(Names::new());
        for event in events {
            this.apply(event);
        }
        this
    }

    fn apply(&mut self, event: &Event) {
        let mut names = self.names.last().expect("at least one").clone();
        match event {
            Event::Create(name) => {
                names.insert(name.clone(), self.files.len());
                self.files.push(Content::default());
            }
            Event::Write(name, bytes) => return self.files[names[name]].bytes.extend(bytes),
            Event::Sync(name) => {
                let file = &mut self.files[names[name]];
                file.synced = file.bytes.len();
                return;
            }
            Event::Rename(from, to) => {
                let file = names.remove(from).expect("it was created");
                names.insert(to.clone(), file);
            }
            Event::Remove(name) => {
                names.remove(name);
            }
            Event::SyncFolder(_) => return self.names = [names].into(),
            Event::Promised(checkpoints) => return self.promised = *checkpoints,
        }
        self.names.push(names);
    }

    fn write_to(&self, folder: &Path, names: &Names, unsynced: Unsynced) {
        fs::create_dir_all(folder).expect("a folder");
        for (name, &file) in names {
            let bytes = self.files[file].after(unsynced);
            fs::write(folder.join(name), bytes).expect("a file");
        }
    }
}

/// A name that is not synced is lost, with all that is below it.
#[test]
fn each_folder_that_is_made_is_synced_in_its_parent() {
    let folder = Folder::new("levels");
    let synced_by_create = |inner: &Path| {
        let recorder = Recorder::default();
        Chain::create_on(Box::new(recorder.clone()), inner).expect("a chain");
        let events = recorder.0.lock().expect("no panic");
        let synced = events.iter().map(|event| match event {
            Event::SyncFolder(folder) => folder.clone(),
            other => panic!("{other:?}"),
        });
        synced.collect::<Vec<_>>()
    };
    let outer = folder.0.parent().expect("it has one").to_path_buf();
    let (a, b) = (folder.0.join("a"), folder.0.join("a/b"));
    assert_eq!(synced_by_create(&b), [outer, folder.0.clone(), a.clone()]);
    // Who made it may not have synced it; those above it were somebody's before.
    assert_eq!(synced_by_create(&b), [a]);
}

/// Nothing of it reports a failure, and no write is torn: a kernel's own business.
#[test]
fn whenever_the_power_fails_the_chain_restores_a_checkpoint_no_older_than_promised() {
    let folder = Folder::new("power");
    let recorder = Recorder::default();
    let mut chain = folder.create_on(recorder.clone()).expect("a chain");
    let mut guest = Guest::new();
    let mut checkpoints = Vec::new();
    for step in 0..4 {
        guest.run(step);
        checkpoints.push(guest.memory.clone());
        guest.snapshot(&mut chain).expect("no failure");
        recorder.add(Event::Promised(checkpoints.len()));
        if step == 2 {
            chain.merge().expect("no failure");
        }
    }
    let events = recorder.0.lock().expect("no panic").clone();

    let mut moments = 0;
    for end in 0..=events.len() {
        let model = Model::after(&events[..end]);
        for names in &model.names {
            for unsynced in [
                Unsynced::Kept,
                Unsynced::Lost,
                Unsynced::HalfLost,
                Unsynced::Zeroed,
            ] {
                let left = Folder::new("power-left");
                model.write_to(&left.0, names, unsynced);
                moments += 1;
                let when = (&events[end.saturating_sub(1)], names, unsynced);
                match left.open() {
                    Ok(found) => {
                        let at = found.files().last().expect("a base").sequence as usize;
                        assert!(at + 1 >= model.promised, "{at} at {when:?}");
                        assert_eq!(restored(&found), checkpoints[at], "{when:?}");
                    }
                    Err(SnapshotError::NoBase { .. }) if model.promised == 0 => {}
                    Err(error) => panic!("{error} at {when:?}"),
                }
            }
        }
    }
    println!(
        "{} events, {moments} states after a loss of power",
        events.len()
    );
    assert!(moments > 4 * events.len());
}
