//! A Cortex-M board: the run-time calls the harness's `main` by itself.

// Linked for the critical section that it brings.
use cortex_m as _;
use cortex_m_rt::{ExceptionFrame, exception};

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    panic!("hard fault: {frame:?}")
}
