//! The guest's root file system: busybox, the scripts, and nothing else.

use std::io::Write;

use anyhow::Result;
use cpio::newc::{self, Builder, ModeFileType};

/// A file of the archive.
pub struct File<'a> {
    pub name: &'a str,
    pub contents: &'a [u8],
}

/// Makes the archive: `files`, which are all executable, the folders that they and the scripts'
/// mounts need, and the console, which the kernel opens before it starts the first process.
pub fn archive(folders: &[&str], files: &[File]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    // Entries with the same number are taken for links to one file.
    let mut numbers = 1..;
    let mut add = |entry: Builder, kind, contents: &[u8]| -> Result<()> {
        let entry = entry.ino(numbers.next().unwrap_or(0));
        let size = contents.len().try_into()?;
        let mut writer = entry.set_mode_file_type(kind).write(&mut archive, size);
        writer.write_all(contents)?;
        writer.finish()?;
        Ok(())
    };
    for name in folders {
        add(
            Builder::new(name).mode(0o755).nlink(2),
            ModeFileType::Directory,
            &[],
        )?;
    }
    let console = Builder::new("dev/console").mode(0o600);
    add(console.rdev_major(5).rdev_minor(1), ModeFileType::Char, &[])?;
    for File { name, contents } in files {
        add(
            Builder::new(name).mode(0o755),
            ModeFileType::Regular,
            contents,
        )?;
    }
    Ok(newc::trailer(archive)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let files = [
            File {
                name: "init",
                contents: b"#!/bin/busybox sh\n",
            },
            File {
                name: "bin/busybox",
                contents: b"\x7fELF",
            },
        ];
        let archive = archive(&["bin", "dev"], &files).expect("an archive");
        let mut rest = &archive[..];
        let mut seen = Vec::new();
        loop {
            let reader = newc::Reader::new(rest).expect("an entry");
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            let head = (entry.name().to_owned(), entry.mode(), entry.rdev_major());
            let mut contents = Vec::new();
            rest = reader.to_writer(&mut contents).expect("the contents");
            seen.push((head, contents));
        }
        let entry = |name: &str, mode, major, contents: &[u8]| {
            ((name.to_owned(), mode, major), contents.to_vec())
        };
        assert_eq!(
            seen,
            [
                entry("bin", 0o040_755, 0, b""),
                entry("dev", 0o040_755, 0, b""),
                entry("dev/console", 0o020_600, 5, b""),
                entry("init", 0o100_755, 0, b"#!/bin/busybox sh\n"),
                entry("bin/busybox", 0o100_755, 0, b"\x7fELF"),
            ]
        );
    }
}
