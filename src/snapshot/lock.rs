//! [`Lock`]: one chain at a time writes to a folder.

use ::std::fs::File;
use ::std::io;
use ::std::path::Path;

/// The right to write to a folder, until it is dropped or its process ends, however it ends.
///
/// It is on the folder itself, so that no lock file can be left behind. `None` where there is no
/// such lock: nothing is refused there.
#[derive(Debug)]
pub(super) struct Lock(Option<File>);

impl Lock {
    /// `None` where another one has it.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        // Elsewhere a folder cannot be opened as a file.
        if !cfg!(unix) {
            return Ok(Some(Self(None)));
        }
        let folder = File::open(folder)?;
        match flock(&folder, true) {
            Ok(()) => Ok(Some(Self(Some(folder)))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // The file system has no locks. To refuse would be to write no snapshot there, ever.
            Err(_) => Ok(Some(Self(None))),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // To close it is not enough: a child that another thread has just forked shares it until
        // it executes its program.
        if let Some(folder) = &self.0 {
            let _ = flock(folder, false);
        }
    }
}

fn flock(folder: &File, lock: bool) -> io::Result<()> {
    // Where rustix has it.
    #[cfg(all(
        unix,
        not(any(
            target_os = "espidf",
            target_os = "horizon",
            target_os = "solaris",
            target_os = "vita"
        ))
    ))]
    {
        use rustix::fs::FlockOperation::{NonBlockingLockExclusive, Unlock};
        let operation = if lock {
            NonBlockingLockExclusive
        } else {
            Unlock
        };
        rustix::fs::flock(folder, operation)?;
    }
    let _ = (folder, lock);
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use ::std::{env, format, fs, process};

    use super::Lock;

    #[test]
    fn it_ends_when_it_is_dropped_whoever_shares_its_file() {
        let folder = env::temp_dir().join(format!("pugmark-lock-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let take = || Lock::take(&folder).expect("a folder that can be opened");
        let lock = take().expect("nobody has it");
        // As a forked child does.
        let file = lock.0.as_ref().expect("temporary folders have locks");
        let shared = file.try_clone().expect("a second descriptor");
        assert!(take().is_none());
        drop(lock);
        assert!(take().is_some());
        drop(shared);
        fs::remove_dir(&folder).expect("it is empty");
    }
}
