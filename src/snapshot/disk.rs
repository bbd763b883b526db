//! The seam to the file system: what writing a snapshot asks of it. Tests bring one that fails.

use ::std::boxed::Box;
use ::std::fs::{self, File};
use ::std::io::{self, Write};
#[cfg(unix)]
use ::std::os::unix::fs::OpenOptionsExt as _;
use ::std::path::Path;
use core::fmt;

pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// A new, empty file, in the place of one that was there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;

    /// Gives a file another name, in one step, and replaces what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in `folder` survive a loss of power.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;
}

pub(super) trait Output: Write + fmt::Debug + Send {
    /// Makes the bytes survive a loss of power.
    fn sync(&mut self) -> io::Result<()>;
}

/// The operating system's.
#[derive(Debug)]
pub(super) struct System;

impl Disk for System {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        // To open what was there would be to take over its mode, or to follow a link.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        options.write(true).create_new(true);
        // A guest's memory has its secrets.
        #[cfg(unix)]
        options.mode(0o600);
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Elsewhere a folder cannot be opened as a file, and a rename is as durable as it gets.
        if cfg!(unix) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

impl Output for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
