//! Whether a file is a kernel that can be entered: the 64 bytes that the arm64 boot protocol puts
//! at its start (Documentation/arch/arm64/booting.rst in the kernel's source).

use anyhow::{Result, bail, ensure};

/// What the header says.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of memory from its start that the kernel takes, more than the file has.
    pub memory: u64,
}

/// Other files that a person may take for a kernel: where they have which bytes.
const OTHERS: [(usize, &[u8], &str); 7] = [
    (4, b"zimg", "a compressed EFI image"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"\xfd7zXZ", "compressed with xz"),
    (0, b"\x7fELF", "an ELF file, perhaps vmlinux"),
    (0, b"!<arch>", "a package"),
    (0x202, b"HdrS", "a kernel for x86"),
];

/// Reads the header of a file's `bytes`.
pub fn header(bytes: &[u8]) -> Result<Header> {
    if let Some((_, _, what)) = OTHERS
        .iter()
        .find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
    {
        bail!(
            "it is {what}; what is needed is arch/arm64/boot/Image as the kernel's build makes it"
        );
    }
    ensure!(
        bytes.get(0x38..0x3c) == Some(b"ARM\x64"),
        "it is not a Linux kernel for arm64: the magic number is not there"
    );
    let word = |at: usize| {
        let bytes = bytes[at..at + 8].try_into();
        bytes.map_or(0, u64::from_le_bytes)
    };
    let (text_offset, memory, flags) = (word(0x08), word(0x10), word(0x18));
    ensure!(memory > 0, "the kernel is older than Linux 3.17");
    ensure!(text_offset == 0, "the kernel is older than Linux 5.10");
    ensure!(flags & 1 == 0, "the kernel is big-endian");
    Ok(Header { memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[..4].copy_from_slice(b"MZ\x40\xfa");
        image[0x10..0x18].copy_from_slice(&0x01ab_0000u64.to_le_bytes());
        image[0x18] = 0x0a;
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        image
    }

    fn complaint(image: &[u8]) -> String {
        header(image).map_or_else(|error| error.to_string(), |header| format!("{header:?}"))
    }

    #[test]
    fn a_kernel_says_how_much_memory_it_takes() {
        assert_eq!(
            header(&image()).ok(),
            Some(Header {
                memory: 0x01ab_0000
            })
        );
    }

    #[test]
    fn other_files_are_named() {
        let mut compressed = image();
        compressed[4..8].copy_from_slice(b"zimg");
        assert!(complaint(&compressed).contains("EFI"));
        assert!(complaint(b"\x1f\x8b\x08\0").contains("gzip"));
        assert!(complaint(b"\x7fELF\x02\x01").contains("ELF"));
        let mut x86 = vec![0; 4096];
        x86[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(complaint(&x86).contains("x86"));
        assert!(complaint(b"").contains("magic"));
        assert!(complaint(&[0; 4096]).contains("magic"));
    }

    #[test]
    fn old_kernels_and_big_endian_ones_are_refused() {
        for (at, value, what) in [(0x0a, 8, "5.10"), (0x12, 0, "3.17"), (0x18, 1, "endian")] {
            let mut image = image();
            image[at] = value;
            if at == 0x12 {
                image[0x13] = 0;
            }
            assert!(complaint(&image).contains(what), "{}", complaint(&image));
        }
    }
}
