//! How a run ends: a Cortex-M that has a debugger to tell (QEMU, here).

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};
// Linked for the logger that it is.
use defmt_semihosting as _;
use semihosting::process::ExitCode;

pub fn exit(good: bool) -> ! {
    let code = if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    code.exit_process()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    defmt::error!("{}", defmt::Display2Format(info));
    exit(false)
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    panic!("hard fault: {frame:?}")
}
