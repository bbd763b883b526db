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
    /// The bytes from `start` to `end` were written and will not change: the disk may begin with them.
    /// It says nothing of whether they arrived; [`sync`](Self::sync) does.
    fn begin_sync(&mut self, start: u64, end: u64) {
        let _ = (start, end);
    }

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
    /// Else the kernel keeps all of it in memory until the `fsync`, which then waits for the whole disk:
    /// so the two take turns, and do not work at the same time.
    #[cfg(target_os = "linux")]
    fn begin_sync(&mut self, start: u64, end: u64) {
        use ::std::os::fd::AsRawFd as _;

        let (Ok(start), Ok(len)) = (start.try_into(), (end - start).try_into()) else {
            return;
        };
        // What fails here, fails in the `fsync` too: without a flag that waits, the call looks at no
        // errors of earlier writes, and so takes none away from it.
        // SAFETY: the descriptor is open, and the call touches no memory of this process.
        let _ = unsafe {
            libc::sync_file_range(self.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE)
        };
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
