//! The console: a PL011, shared by the cores; and the way out, through semihosting.

use core::{
    fmt::{self, Write},
    panic::PanicInfo,
    ptr::NonNull,
};

use arm_pl011_uart::{
    DataBits, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer,
};
use semihosting::process;
use spin::Mutex;

/// Where `virt` has its first UART.
const PL011: NonNull<PL011Registers> = NonNull::new(0x900_0000 as *mut _).unwrap();

static CONSOLE: Mutex<Option<Uart<'static>>> = Mutex::new(None);

/// Sets the UART up.
pub fn open() {
    let line = LineConfig {
        data_bits: DataBits::Bits8,
        parity: Parity::None,
        stop_bits: StopBits::One,
    };
    // SAFETY: the initial page table maps the device, and nothing else refers to it.
    let mut uart = Uart::new(unsafe { UniqueMmioPointer::new(PL011) });
    // QEMU sends at any rate, so a refused one changes nothing.
    let _ = uart.enable(line, 115_200, 24_000_000);
    *CONSOLE.lock() = Some(uart);
}

/// Prints; see the macros.
pub fn write(arguments: fmt::Arguments<'_>) {
    if let Some(uart) = CONSOLE.lock().as_mut() {
        // A PL011 does not fail.
        let _ = uart.write_fmt(arguments);
    }
}

macro_rules! print {
    ($($arguments:tt)*) => { $crate::hypervisor::console::write(format_args!($($arguments)*)) };
}

macro_rules! println {
    () => { print!("\n") };
    ($($arguments:tt)*) => { print!("{}\n", format_args!($($arguments)*)) };
}

pub(crate) use {print, println};

/// Ends QEMU with this exit status.
pub fn exit(status: i32) -> ! {
    process::exit(status)
}

/// Says what cannot be gone on from, on any core, and ends QEMU.
pub fn die(reason: fmt::Arguments<'_>) -> ! {
    println!("\nhypervisor: {reason}");
    exit(2)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // The core that panics may hold the console.
    if CONSOLE.is_locked() {
        exit(3);
    }
    die(format_args!("{info}"))
}
