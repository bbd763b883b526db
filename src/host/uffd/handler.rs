//! [`UffdHandler`]: the thread that answers the write faults.

use core::fmt;

use alloc::string::String;
use alloc::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::error::ProtectError;
use super::protection::UffdProtection;
use super::sys::{Messages, write_fault};
use crate::{FaultError, FaultOutcome, RegionSet, WriteProtect, WriteTracker};

/// The write faults on what an [`UffdProtection`] protects; while it is there, pages may be.
///
/// Dropped, it opens everything. The tracker does not hear of that: mark all of its regions **then**,
/// before the next harvest. [`UffdHandler`] does it by itself.
#[derive(Debug)]
pub struct Faults<'p> {
    protection: &'p UffdProtection,
}

impl<'p> Faults<'p> {
    /// To be made once the protection says that somebody serves its faults.
    pub(super) const fn new(protection: &'p UffdProtection) -> Self {
        Self { protection }
    }

    /// Calls `each` with the guest physical address of each write that waits, and returns how many
    /// there were: none where nobody waits, and at most 16, so that a loop of it can be left. To
    /// wait, `poll` the [descriptor](AsFd).
    ///
    /// Whoever waits goes on once the page is opened, and after [`retry`](Self::retry).
    ///
    /// # Errors
    ///
    /// [`ServeError::Call`].
    pub fn read(&self, each: impl FnMut(u64)) -> Result<usize, ServeError> {
        read(self.protection, each)
    }

    /// Lets the write at guest physical address `ipa` be tried again, although its page was not
    /// opened.
    pub fn retry(&self, ipa: u64) {
        retry(self.protection, ipa);
    }
}

impl AsFd for Faults<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.protection.memory().uffd().as_fd()
    }
}

impl Drop for Faults<'_> {
    fn drop(&mut self) {
        self.protection.end_serving(|| {});
    }
}

fn read(protection: &UffdProtection, each: impl FnMut(u64)) -> Result<usize, ServeError> {
    let memory = protection.memory();
    let mut messages = Messages::new();
    let messages = memory.uffd().read(&mut messages);
    let messages = messages.map_err(|error| ServeError::call("read of faults", error))?;
    let hosts = messages.iter().filter_map(write_fault);
    hosts
        .filter_map(|host| memory.mappings().ipa_of(host))
        .for_each(each);
    Ok(messages.len())
}

fn retry(protection: &UffdProtection, ipa: u64) {
    let memory = protection.memory();
    let page = protection.memory().page_around(ipa);
    let _ = memory.mappings().each_host_range(&page, |hosts| {
        // It fails where nothing is registered, so nobody waits.
        let _ = memory.uffd().wake(&hosts);
        Ok(())
    });
}

/// Why the faults are not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ServeError {
    /// Somebody serves them already: another handler of the same protection.
    AlreadyServed,
    /// A system call failed in a way that is not expected of it.
    Call {
        /// The call.
        call: &'static str,
        /// The number of the error.
        errno: i32,
    },
}

impl ServeError {
    const fn call(call: &'static str, error: Errno) -> Self {
        Self::Call {
            call,
            errno: error.raw_os_error(),
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyServed => f.write_str(
                "the faults are served already: one handler is enough for all mappings of a tracker",
            ),
            Self::Call { call, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "{call} failed: {error}")
            }
        }
    }
}

impl core::error::Error for ServeError {}

/// What went wrong with one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HandlerError {
    /// What the tracker says. The write is tried again, as with a vCPU that is resumed.
    Fault(FaultError<ProtectError>),
    /// The page is in a mapping but in no region of the tracker; it was opened.
    NotTracked {
        /// Guest physical address of the write.
        ipa: u64,
    },
    /// The faults cannot be read any more. The handler has ended.
    Ended(ServeError),
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(error) => error.fmt(f),
            Self::NotTracked { ipa } => write!(
                f,
                "the page at {ipa:#x} is protected and in no region: give the tracker a region for \
                 each mapping"
            ),
            Self::Ended(error) => write!(f, "the handler has ended: {error}"),
        }
    }
}

impl core::error::Error for HandlerError {}

/// What a handler has done when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct HandlerEnd {
    /// Write faults that were answered.
    pub faults: u64,
    /// Those with an error.
    pub errors: u64,
    /// The last one.
    pub last_error: Option<HandlerError>,
}

/// The thread that answers the write faults of a tracker.
///
/// When it ends, by [`stop`](Self::stop), by a drop or by a panic, it marks all memory and opens
/// all of it. So nothing is lost: the next harvest fails with [`ProtectError::NoHandler`]
/// until there is another handler, and then reports everything.
///
/// **It must not wait for a thread that writes to tracked memory**, or both wait for ever. It calls
/// nothing of the user's; where a `tracing` subscriber or a `defmt` logger is on, its lock is such a wait.
#[derive(Debug)]
pub struct UffdHandler {
    thread: Option<JoinHandle<()>>,
    stop: OwnedFd,
    end: Arc<Mutex<HandlerEnd>>,
    process: u32,
}

impl UffdHandler {
    /// Starts the thread. The memory may be armed once this returns.
    ///
    /// # Errors
    ///
    /// [`ServeError`]; there is no thread then.
    pub fn spawn<R>(tracker: Arc<WriteTracker<UffdProtection, R>>) -> Result<Self, ServeError>
    where
        R: RegionSet + Send + Sync + 'static,
        R::Words: Send + Sync,
        R::Blocks: Send + Sync,
    {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = event.map_err(|error| ServeError::call("eventfd", error))?;
        let stopped = stop
            .try_clone()
            .map_err(|error| Self::spawn_error("dup", &error))?;
        let end = Arc::new(Mutex::new(HandlerEnd::default()));
        // Here and not in the thread, so that `protect` works once this returns.
        let serving = Serving::new(tracker)?;
        let thread = {
            let end = Arc::clone(&end);
            thread::Builder::new()
                .name(String::from("pugmark-uffd"))
                .spawn(move || serving.run(&stopped, &end))
        };
        Ok(Self {
            thread: Some(thread.map_err(|error| Self::spawn_error("spawn", &error))?),
            stop,
            end,
            process: std::process::id(),
        })
    }

    fn spawn_error(call: &'static str, error: &std::io::Error) -> ServeError {
        ServeError::Call {
            call,
            errno: error.raw_os_error().unwrap_or(0),
        }
    }

    /// What it has done so far.
    pub fn so_far(&self) -> HandlerEnd {
        *locked(&self.end)
    }

    /// Ends it: all memory is open and marked when this returns.
    pub fn stop(mut self) -> HandlerEnd {
        self.end_thread();
        self.so_far()
    }

    fn end_thread(&mut self) {
        // A child has neither the thread nor a right to stop the parent's.
        if std::process::id() != self.process {
            core::mem::forget(self.thread.take());
            return;
        }
        if let Some(thread) = self.thread.take() {
            // It fails only where the counter is full, so that the thread is awake.
            let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
            // Its panic was reported, and its memory opened and marked.
            let _ = thread.join();
        }
    }
}

impl Drop for UffdHandler {
    fn drop(&mut self) {
        self.end_thread();
    }
}

/// A tracker whose faults are served; dropped, all of its memory is open and marked.
struct Serving<R: RegionSet>(Arc<WriteTracker<UffdProtection, R>>);

impl<R: RegionSet> Serving<R> {
    fn new(tracker: Arc<WriteTracker<UffdProtection, R>>) -> Result<Self, ServeError> {
        tracker.protection().begin_serving()?;
        Ok(Self(tracker))
    }

    fn run(&self, stop: &OwnedFd, end: &Mutex<HandlerEnd>) {
        let tracker = &*self.0;
        let protection = tracker.protection();
        loop {
            let [fault, stopped] = wait(protection.memory().uffd().as_fd(), stop.as_fd());
            if stopped {
                return;
            }
            if !fault {
                continue;
            }
            let mut done = HandlerEnd::default();
            let read = read(protection, |ipa| {
                done.faults += 1;
                if let Err(error) = answer(tracker, ipa) {
                    done.errors += 1;
                    done.last_error = Some(error);
                }
            });
            if let Err(error) = read {
                done.last_error = Some(HandlerError::Ended(error));
            }
            let mut end = locked(end);
            end.faults += done.faults;
            end.errors += done.errors;
            end.last_error = done.last_error.or(end.last_error);
            if read.is_err() {
                return;
            }
        }
    }
}

impl<R: RegionSet> Drop for Serving<R> {
    fn drop(&mut self) {
        let tracker = &*self.0;
        tracker.protection().end_serving(|| {
            for region in tracker.regions() {
                let marked = tracker.mark_written(region.page_range());
                debug_assert!(marked.is_ok(), "the region is the tracker's");
            }
        });
    }
}

/// Waits for a fault or for the end: which of them is there.
fn wait(faults: BorrowedFd<'_>, stop: BorrowedFd<'_>) -> [bool; 2] {
    let mut fds = [
        PollFd::from_borrowed_fd(faults, PollFlags::IN),
        PollFd::from_borrowed_fd(stop, PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Ok(_) => fds.map(|fd| !fd.revents().is_empty()),
        // Interrupted, or out of memory for a moment.
        Err(_) => [false; 2],
    }
}

fn answer<R: RegionSet>(
    tracker: &WriteTracker<UffdProtection, R>,
    ipa: u64,
) -> Result<(), HandlerError> {
    let protection = tracker.protection();
    let error = match tracker.on_write_fault(ipa) {
        Ok(FaultOutcome::Granted { .. }) => return Ok(()),
        Ok(FaultOutcome::NotTracked) => {
            let opened = protection.unprotect(protection.memory().page_around(ipa));
            debug_assert!(opened.is_ok(), "the fault was on a mapping");
            HandlerError::NotTracked { ipa }
        }
        Err(error) => HandlerError::Fault(error),
    };
    retry(protection, ipa);
    note!(error, "the write fault at {:#x} failed", ipa);
    Err(error)
}

fn locked(end: &Mutex<HandlerEnd>) -> MutexGuard<'_, HandlerEnd> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}
