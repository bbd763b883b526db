//! How much flash a microcontroller spends on pugmark: the least program with one bitmap and one
//! slot, whole. `cargo xtask qemu footprint` boots it, and `cargo xtask footprint` fails if it takes
//! more than benches/budget/footprint.json allows.
//!
//! What counts is all that goes into flash: the start-up code, the vector table, the constants, and
//! the critical sections in which a core without compare-and-swap marks and drains.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "arm"))]
mod firmware {
    use core::ops::Range;
    use core::panic::PanicInfo;

    use cortex_m::peripheral::SCB;
    use cortex_m_rt::{entry, exception};
    use pugmark::{AtomicUsize, DirtyBitmap, Slot, words_for};
    use semihosting::process::ExitCode;

    const BITS: usize = 1024;
    /// Marked one by one, and as a range.
    const ONE: usize = 700;
    const RANGE: Range<usize> = 701..1000;
    const VALUE: [u32; 4] = [1, 2, 3, 4];

    static BITMAP: DirtyBitmap<[AtomicUsize; words_for(BITS)]> = DirtyBitmap::new(BITS);
    static SLOT: Slot<[u32; 4]> = Slot::new([0; 4]);

    #[entry]
    fn main() -> ! {
        SCB::set_pendsv();
        let mut found = 0..0;
        while found.is_empty() {
            BITMAP.drain_runs(|run| found = run.start..run.end());
        }
        let good = found == (ONE..RANGE.end) && SLOT.read() == Some(VALUE);
        let code = if good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
        code.exit_process()
    }

    #[exception]
    fn PendSV() {
        // SAFETY: nobody else writes it, and this exception does not interrupt itself.
        unsafe { SLOT.write(&VALUE) };
        // After the value: whoever drains the marks reads it.
        let _ = BITMAP.mark(ONE);
        let _ = BITMAP.mark_range(RANGE);
    }

    #[panic_handler]
    fn panic(_: &PanicInfo) -> ! {
        ExitCode::FAILURE.exit_process()
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This firmware boots in QEMU. Run it with: cargo xtask qemu footprint");
}
