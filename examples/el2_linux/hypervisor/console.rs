//! What goes out to the host: the report, line by line; the trace, in chunks; and the exit status.
//! All through semihosting, as the UART is the guest's, and one core at a time.

use core::{
    ffi::CStr,
    fmt::{self, Write as _},
    panic::PanicInfo,
};

use heapless::String;
use semihosting::{eprintln, fs::File, io::Write as _, process};
use spin::Mutex;

struct Files {
    report: File,
    trace: File,
}

static FILES: Mutex<Option<Files>> = Mutex::new(None);

/// A line of the report, or a path.
type Line = String<1024>;

/// Creates the report and the trace in `folder`.
pub fn open(folder: &str) {
    let [report, trace] = ["report.jsonl", "trace.bin"].map(|name| create(folder, name));
    *FILES.lock() = Some(Files { report, trace });
}

fn create(folder: &str, name: &str) -> File {
    let mut path = Line::new();
    let file = write!(path, "{folder}/{name}\0")
        .ok()
        .and_then(|()| CStr::from_bytes_with_nul(path.as_bytes()).ok())
        .and_then(|path| File::create(path).ok());
    file.unwrap_or_else(|| die(format_args!("{folder}/{name} cannot be created")))
}

/// Writes a line of the report: `object` is the inside of a JSON object.
pub fn report(object: fmt::Arguments<'_>) {
    let mut line = Line::new();
    if writeln!(line, "{{{object}}}").is_err() {
        die(format_args!("a line of the report is too long"));
    }
    if let Some(files) = FILES.lock().as_mut()
        && files.report.write_all(line.as_bytes()).is_err()
    {
        eprintln!("hypervisor: the report cannot be written");
        exit(2);
    }
}

/// Appends to the trace.
pub fn trace(bytes: &[u8]) {
    if let Some(files) = FILES.lock().as_mut()
        && files.trace.write_all(bytes).is_err()
    {
        eprintln!("hypervisor: the trace cannot be written");
        exit(2);
    }
}

/// Ends QEMU with this exit status.
pub fn exit(status: i32) -> ! {
    process::exit(status)
}

/// Says what cannot be gone on from, on any core, and ends QEMU.
pub fn die(reason: fmt::Arguments<'_>) -> ! {
    // The core that dies may be the one that holds the files; another one soon lets go of them.
    const LOOKS: u32 = 100_000_000;
    let mut files = (0..LOOKS).find_map(|_| FILES.try_lock());
    if let Some(files) = files.as_mut().and_then(|files| files.as_mut()) {
        let mut line = Line::new();
        // A reason that is too long is cut off, and ends as it should.
        let _ = line.push_str(r#"{"error":{"message":""#);
        let _ = write!(Json(&mut line), "{reason}");
        let _ = line.push_str("\"}}\n");
        let _ = files.report.write_all(line.as_bytes());
    } else {
        eprintln!("hypervisor: {reason}");
    }
    exit(2)
}

/// The inside of a JSON string.
struct Json<'a>(&'a mut Line);

impl fmt::Write for Json<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        /// Room for the end of the line.
        const REST: usize = 16;
        for letter in text.chars() {
            if self.0.len() + REST > self.0.capacity() {
                return Err(fmt::Error);
            }
            let escaped = match letter {
                '"' | '\\' => write!(self.0, "\\{letter}"),
                letter if letter.is_control() => self.0.write_char(' '),
                letter => self.0.write_char(letter),
            };
            escaped?;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    die(format_args!("{info}"))
}
