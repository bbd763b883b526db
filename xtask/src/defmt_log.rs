//! defmt's logs: what comes out of a program is numbers, whose texts are in its ELF file.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use defmt_decoder::{DecodeError, Frame, Table};
use object::{Object, ObjectSymbol};

use crate::process::Decode;

/// What makes lines of the output of the program at `path`; `None` if it does not log by defmt.
pub fn decoder(path: &Path) -> Result<Option<Decode>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf = object::File::parse(&*bytes).context("not an ELF file")?;
    // The linker script makes the section in any program; this symbol is the logger's own.
    let mut names = elf.symbols().filter_map(|symbol| symbol.name().ok());
    if !names.any(|name| name.starts_with("_defmt_encoding_")) {
        return Ok(None);
    }
    let table = Table::parse(&bytes)?.context("a program with a defmt logger and without texts")?;
    // Raw bytes have no frames: what is malformed could not be passed over.
    let has_frames = table.encoding().can_recover();
    ensure!(has_frames, "defmt's encoding is raw, not rzcobs");
    Ok(Some(Box::new(move |mut output, on_line| {
        decode(&table, &mut output, on_line)
    })))
}

fn decode(table: &Table, output: &mut dyn Read, on_line: &mut dyn FnMut(String)) {
    let mut decoder = table.new_stream_decoder();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = output.read(&mut bytes) {
        decoder.received(&bytes[..count]);
        loop {
            match decoder.decode() {
                Ok(frame) => line(&frame)
                    .lines()
                    .map(String::from)
                    .for_each(&mut *on_line),
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) => on_line("(not a frame of defmt's)".into()),
            }
        }
    }
}

/// As the program would have printed it: the level, if there is one, and the text.
fn line(frame: &Frame) -> String {
    match frame.level() {
        Some(level) => format!("{:5} {}", level.as_str(), frame.display_message()),
        None => frame.display_message().to_string(),
    }
}
