//! What a program does without userfaultfd: takes the permission to write by `mprotect`, and marks
//! and opens each page in its handler of SIGSEGV. Else as pugmark does it.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};

use rustix::mm::{MprotectFlags, mprotect as set};

use super::known::{FEW, ROUNDS};
use super::world::{Before, Live, World};
use crate::linux::Memory;

pub fn mprotect(world: &World) -> Live {
    let tracked = Tracked {
        memory: &world.memory,
        bits: (0..world.memory.pages().div_ceil(BITS))
            .map(|_| AtomicUsize::new(0))
            .collect(),
    };
    let _handler = Handler::install(&tracked);
    tracked.protect(0..world.memory.pages());
    let mut runs = Vec::new();
    world.turn(Before::Last, |gate| {
        for _ in 0..ROUNDS {
            if tracked.copy_written(&world.copy, &mut runs) < FEW {
                break;
            }
        }
        gate.stopped(|| tracked.copy_written(&world.copy, &mut runs));
    })
}

const BITS: usize = usize::BITS as usize;

struct Tracked<'a> {
    memory: &'a Memory,
    bits: Vec<AtomicUsize>,
}

impl Tracked<'_> {
    /// Takes the bits, then protects, then copies, so that a write that comes later than the copy
    /// faults. Run by run: one call for all of the memory took twice as long, and stopped writers
    /// for milliseconds.
    fn copy_written(&self, copy: &Memory, runs: &mut Vec<Range<usize>>) -> usize {
        runs.clear();
        for (index, word) in self.bits.iter().enumerate() {
            if word.load(SeqCst) == 0 {
                continue;
            }
            let mut bits = word.swap(0, SeqCst);
            while bits != 0 {
                let page = index * BITS + bits.trailing_zeros() as usize;
                match runs.last_mut() {
                    Some(last) if last.end == page => last.end += 1,
                    _ => runs.push(page..page + 1),
                }
                bits &= bits - 1;
            }
        }
        for run in runs.iter() {
            self.protect(run.clone());
        }
        for run in runs.iter() {
            copy.copy_live(self.memory, run.clone());
        }
        runs.iter().map(Range::len).sum()
    }

    fn protect(&self, pages: Range<usize>) {
        self.set(pages, MprotectFlags::READ)
            .expect("it is mapped, in fewer areas than there may be");
    }

    /// Opens a page, then marks it. Nothing here allocates or locks: a signal handler calls it.
    fn on_fault(&self, address: u64) -> bool {
        if !self.memory.addresses().contains(&address) {
            return false;
        }
        let page = self.memory.page_of(address);
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        let opened = self.set(page..page + 1, access).is_ok();
        self.bits[page / BITS].fetch_or(1 << (page % BITS), SeqCst);
        opened
    }

    fn set(&self, pages: Range<usize>, access: MprotectFlags) -> rustix::io::Result<()> {
        let size = self.memory.page_size();
        let start = self.memory.as_ptr().wrapping_add(pages.start * size);
        // SAFETY: pages of the memory, which stay readable; who writes to them is caught.
        unsafe { set(start.cast_mut().cast(), pages.len() * size, access) }
    }
}

/// Who handles the signal, and what was there before.
struct Handler<'a> {
    before: libc::sigaction,
    tracked: &'a Tracked<'a>,
}

static TRACKED: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

impl<'a> Handler<'a> {
    fn install(tracked: &'a Tracked<'a>) -> Self {
        TRACKED.store((&raw const *tracked).cast_mut().cast(), SeqCst);
        let mut before = MaybeUninit::uninit();
        // SAFETY: all zeros are a value of it; the handler is one for `SA_SIGINFO`, and calls only
        // what a signal handler may.
        let before = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            let set = libc::sigaction(libc::SIGSEGV, &action, before.as_mut_ptr());
            assert_eq!(set, 0);
            before.assume_init()
        };
        Self { before, tracked }
    }
}

impl Drop for Handler<'_> {
    /// Nobody writes any more, or else faults on open pages.
    fn drop(&mut self) {
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        let opened = self.tracked.set(0..self.tracked.memory.pages(), access);
        // SAFETY: what `sigaction` gave before.
        let set = unsafe { libc::sigaction(libc::SIGSEGV, &self.before, null_mut()) };
        TRACKED.store(null_mut(), SeqCst);
        assert_eq!((opened, set), (Ok(()), 0));
    }
}

extern "C" fn on_signal(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let tracked = TRACKED.load(SeqCst).cast::<Tracked<'_>>();
    // SAFETY: it is there as long as its `Handler`, which is longer than anybody writes; `info` is
    // the kernel's.
    let handled = unsafe {
        let address = (*info).si_addr() as u64;
        tracked
            .as_ref()
            .is_some_and(|tracked| tracked.on_fault(address))
    };
    if !handled {
        // The instruction is tried again, and ends the process as it should.
        // SAFETY: it may be called in a signal handler.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    }
}
