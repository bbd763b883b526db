//! QEMU's `virt` at EL2, with an identity map so that atomics work on cacheable memory.

use aarch64_rt::{ExceptionHandlers, InitialPagetable, entry};

/// A block descriptor: valid, accessed, and AP[1], which is reserved as 1 at EL2.
const BLOCK: usize = 1 | 1 << 10 | 1 << 6;
/// Device memory (entry 0 of the run-time's MAIR), never executed.
const DEVICE: usize = BLOCK | 1 << 54;
/// Normal memory (entry 1), inner shareable.
const NORMAL: usize = BLOCK | 1 << 2 | 3 << 8;
/// What one entry of the root table maps.
const GIB: usize = 1 << 30;

aarch64_rt::initial_pagetable!({
    let mut map = [0; 512];
    map[0] = DEVICE;
    map[1] = NORMAL | GIB;
    InitialPagetable(map)
});

/// Any exception is a panic, which is what the default handlers do.
struct Exceptions;

impl ExceptionHandlers for Exceptions {}

aarch64_rt::exception_handlers!(Exceptions);
entry!(start);

fn start(_: u64, _: u64, _: u64, _: u64) -> ! {
    unsafe extern "C" {
        /// Of the test harness: reads on the command line which test to run.
        fn main() -> !;
    }
    // SAFETY: the harness exports this symbol with this signature, and it is called once.
    unsafe { main() }
}
