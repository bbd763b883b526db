//! The conformance suite on userfaultfd, by accesses that really happen.
//!
//! With a descriptor for user mode only, a store that a system call makes is refused where a store of
//! this program would wait: the answer of a guest that must not hang.

use std::ops::Range;

use pugmark::PageGeometry;
use pugmark::host::uffd::{Access, Mapping, UffdProtection};

use crate::conformance::{self, Machine};
use crate::for_each_case;
use crate::memory::{Kind, Memory, PAGE};

/// Neither end is on a block boundary of the guest.
const RAM: Range<u64> = 0x8000_3000..0x8060_5000;
/// Where a try writes, so that it does not change what is run.
const DATA: usize = 64;
#[cfg(target_arch = "x86_64")]
const RETURN: &[u8] = &[0xc3];
#[cfg(target_arch = "aarch64")]
const RETURN: &[u8] = &0xd65f_03c0_u32.to_le_bytes();
#[cfg(target_arch = "riscv64")]
const RETURN: &[u8] = &0x8082_u16.to_le_bytes();

/// Its memory is larger than the mapping that is tracked: what follows is the hole.
struct Process {
    memory: Memory,
    protection: UffdProtection,
}

impl Process {
    fn new() -> Self {
        let len = (RAM.end - RAM.start) as usize;
        let memory = Memory::new(Kind::Executable, len);
        for page in 0..len / PAGE {
            for (at, byte) in RETURN.iter().enumerate() {
                // SAFETY: within the page.
                unsafe { memory.page(page).add(at).write_volatile(*byte) };
            }
        }
        let mapping = Mapping::new(RAM.start, memory.start(), len);
        let protection = UffdProtection::with_access([mapping], Access::UserModeOnly)
            .expect("an ordinary user may");
        Self { memory, protection }
    }

    /// What `ipa` is in this process; what is not mapped is an address that never is.
    fn address(&self, ipa: u64) -> *mut u8 {
        if RAM.contains(&ipa) {
            self.memory.page((ipa - RAM.start) as usize / PAGE)
        } else {
            std::ptr::without_provenance_mut(usize::MAX - 2 * PAGE + 1)
        }
    }
}

/// A pipe: what a system call reads from, and writes to.
fn pipe() -> [i32; 2] {
    thread_local!(static MINE: [i32; 2] = {
        let mut fds = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        fds
    });
    MINE.with(|fds| *fds)
}

impl Machine for Process {
    type Protect = UffdProtection;

    fn protection(&self) -> &UffdProtection {
        &self.protection
    }

    fn geometry(&self) -> PageGeometry {
        self.protection.geometry()
    }

    fn ram(&self) -> Range<u64> {
        RAM
    }

    fn hole(&self) -> Option<u64> {
        Some(RAM.end)
    }

    fn try_write(&self, ipa: u64) -> bool {
        let [from, into] = pipe();
        let target = self.address(ipa).wrapping_add(DATA);
        // SAFETY: the descriptors are a pipe's; the target is a byte that nobody borrows, or an
        // address that the kernel refuses.
        unsafe {
            assert_eq!(libc::write(into, [1_u8].as_ptr().cast(), 1), 1);
            let written = libc::read(from, target.cast(), 1) == 1;
            if !written {
                assert_eq!(*libc::__errno_location(), libc::EFAULT);
                // The byte was not taken.
                assert_eq!(libc::read(from, [0_u8].as_mut_ptr().cast(), 1), 1);
            }
            written
        }
    }

    fn try_read(&self, ipa: u64) -> bool {
        let [from, into] = pipe();
        // SAFETY: as above.
        unsafe {
            let read = libc::write(into, self.address(ipa).cast(), 1) == 1;
            if read {
                assert_eq!(libc::read(from, [0_u8].as_mut_ptr().cast(), 1), 1);
            }
            read
        }
    }

    fn try_fetch(&self, ipa: u64) -> bool {
        if !RAM.contains(&ipa) {
            return false;
        }
        // SAFETY: a function that returns at once. If the page could not be run, the test would die.
        unsafe { std::mem::transmute::<*mut u8, extern "C" fn()>(self.address(ipa))() };
        true
    }
}

macro_rules! tests {
    ($($case:ident)+) => { $(#[test] fn $case() { run(stringify!($case)) })+ };
}
for_each_case!(tests);

fn run(name: &str) {
    let (_, case) = conformance::cases()
        .find(|(case, _)| *case == name)
        .expect("both lists come from one macro");
    let process = Process::new();
    let _served = process.protection.faults().expect("nobody else does");
    case(&process);
}
