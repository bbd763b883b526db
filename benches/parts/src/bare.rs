//! What a program without an operating system brings along. None of it ever runs.

use core::panic::PanicInfo;

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[cfg(any(feature = "critical-section", not(target_has_atomic = "ptr")))]
mod sections {
    use critical_section::{Impl, RawRestoreState, set_impl};

    struct Nothing;
    set_impl!(Nothing);

    // SAFETY: none of it runs.
    unsafe impl Impl for Nothing {
        unsafe fn acquire() -> RawRestoreState {}

        unsafe fn release(_: RawRestoreState) {}
    }
}

#[cfg(feature = "alloc")]
mod heap {
    use core::alloc::{GlobalAlloc, Layout};

    struct Nothing;

    #[global_allocator]
    static HEAP: Nothing = Nothing;

    // SAFETY: a heap may be exhausted, and this one always is.
    unsafe impl GlobalAlloc for Nothing {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            core::hint::black_box(core::ptr::null_mut())
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }
}

#[cfg(feature = "defmt")]
mod log {
    defmt::timestamp!("{=u8}", 0);

    #[defmt::global_logger]
    struct Nothing;

    // SAFETY: none of it runs.
    unsafe impl defmt::Logger for Nothing {
        fn acquire() {}

        unsafe fn flush() {}

        unsafe fn release() {}

        unsafe fn write(bytes: &[u8]) {
            core::hint::black_box(bytes);
        }
    }
}
