//! Start-up for tests on bare metal: gives control to the harness, and tells of panics.

use core::panic::PanicInfo;

#[cfg(target_arch = "aarch64")]
mod aarch64;

#[cfg(target_arch = "arm")]
mod cortex_m;

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    semihosting::eprintln!("{info}");
    semihosting::process::abort()
}
