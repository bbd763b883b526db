//! What an ELF file tells of its program: how large it is, and the tests that it carries.
//!
//! The tests are what the `embedded-test` crate left there. Each is a symbol in the section `.embedded_test`. The symbol's name is a JSON object that
//! describes the test; what it points at is the address of the test's function and the path of
//! its module. A test is run by booting the program with the command line `run_addr ADDRESS`.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionFlags, SectionKind, elf};
use serde::Deserialize;

/// The version of this layout that we read.
const VERSION: u64 = 1;

pub struct Test {
    /// The path within the program: `bitmap::marks_once`.
    pub name: String,
    pub address: u64,
    pub ignored: bool,
    pub should_panic: bool,
    pub timeout_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct Description {
    name: String,
    ignored: bool,
    should_panic: bool,
    timeout: Option<u64>,
}

/// How many bytes a program takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// What is never written: code, constants, the vector table.
    pub text: u64,
    /// Statics with an initial value, which flash has to hold too.
    pub data: u64,
    /// Statics that start as zeros.
    pub bss: u64,
}

impl Size {
    pub fn of(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let file = object::File::parse(&*bytes).context("not an ELF file")?;
        let mut size = Self::default();
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
                continue;
            };
            // The texts of defmt's log stay on the host; a linker script says so, where there is one.
            let stays = section.name().is_ok_and(|name| name.starts_with(".defmt"));
            match section.kind() {
                _ if stays || !sh_flags.contains(elf::SHF_ALLOC) => {}
                SectionKind::UninitializedData => size.bss += section.size(),
                _ if sh_flags.contains(elf::SHF_WRITE) => size.data += section.size(),
                _ => size.text += section.size(),
            }
        }
        Ok(size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, data, bss } = self;
        write!(f, "text {text} bytes, RAM {} bytes of statics", data + bss)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The names and sizes of what the program at `path` has: functions and statics.
pub fn symbols(path: &Path) -> Result<Vec<(String, u64)>> {
    let bytes = read(path)?;
    let elf = object::File::parse(&*bytes).context("not an ELF file")?;
    let symbols = elf.symbols().filter(|symbol| symbol.is_definition());
    let symbol = |symbol: object::Symbol| Ok((symbol.name()?.to_owned(), symbol.size()));
    symbols.map(symbol).collect()
}

/// The tests in the program at `path`, by name; `None` if it is not a test program.
pub fn tests(path: &Path) -> Result<Option<Vec<Test>>> {
    let bytes = read(path)?;
    let elf = object::File::parse(&*bytes).context("not an ELF file")?;
    let Some(section) = elf.section_by_name(".embedded_test") else {
        return Ok(None);
    };
    let width = if elf.is_64() { 8 } else { 4 };
    // The machine words that a symbol of the section points at.
    let words = |address: u64, count: u64| -> Result<Vec<u64>> {
        let data = section.data_range(address, width * count)?;
        let data = data.context("a test's symbol points outside its section")?;
        Ok(data.chunks(width as usize).map(little_endian).collect())
    };

    let mut tests = Vec::new();
    for symbol in elf.symbols() {
        if symbol.section_index() != Some(section.index()) {
            continue;
        }
        let name = symbol.name()?;
        if name == "EMBEDDED_TEST_VERSION" {
            let version = words(symbol.address(), 1)?[0];
            ensure!(
                version == VERSION,
                "embedded-test layout {version}, not {VERSION}"
            );
        } else if name.starts_with('{') {
            let description: Description = serde_json::from_str(name)
                .with_context(|| format!("a test's description: {name}"))?;
            let words = words(symbol.address(), 3)?;
            let module = string_at(&elf, words[1], words[2])?;
            // The first part is the crate, which is the program itself.
            let module = module.split_once("::").map_or("", |(_, module)| module);
            tests.push(Test {
                name: format!("{module}::{}", description.name),
                address: words[0],
                ignored: description.ignored,
                should_panic: description.should_panic,
                timeout_seconds: description.timeout,
            });
        }
    }
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(tests))
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The text at an address of the loaded program.
fn string_at(elf: &object::File, address: u64, len: u64) -> Result<String> {
    let mut segments = elf.segments();
    let bytes = segments.find_map(|segment| segment.data_range(address, len).ok()?);
    let bytes =
        bytes.with_context(|| format!("a module path at {address:#x}, not in the program"))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
