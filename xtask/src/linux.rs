//! An unmodified Linux for the guest: fetched, made ready, and where QEMU has to place it.

pub mod demo;
mod device_tree;
mod hypervisor;
mod image;
mod initramfs;
#[allow(dead_code, reason = "the hypervisor uses the rest of it")]
#[path = "../../examples/el2_linux/guest/layout.rs"]
pub mod layout;
mod misbehaving;
mod packages;
mod report;
mod sources;
pub mod table;

use std::fs;
use std::ops::Range;
use std::path::{self, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::repo::Repo;

/// Where the scripts are that the guest runs.
const SCRIPTS: &str = "examples/el2_linux/guest";

/// All workloads, in the order in which they run. Each is a file in `work` beside `init`.
pub const ALL: [&str; 6] = ["idle", "dd", "churn", "sort", "fork", "random"];
/// A few that together take some seconds.
pub const SHORT: [&str; 2] = ["fork", "random"];

#[derive(clap::Args, Debug, Default, PartialEq)]
pub struct Files {
    /// A Linux kernel to boot instead of Debian's: an uncompressed arm64 Image
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// A busybox to use instead of Debian's: built for arm64, linked statically
    #[arg(long, value_name = "FILE")]
    busybox: Option<PathBuf>,
}

/// What the guest should be.
pub struct Wish<'a> {
    /// The cores that run it: [`layout::FIRST_CORE`] and on under the hypervisor.
    pub cores: Range<u64>,
    pub workloads: &'a [&'a str],
    /// More words for the kernel's command line.
    pub command_line: &'a str,
}

/// A file, and the address where the guest finds it.
#[derive(Debug)]
pub struct Placed {
    pub file: PathBuf,
    pub address: u64,
}

/// A guest, ready to be loaded.
#[derive(Debug)]
pub struct Guest {
    pub files: Vec<Placed>,
}

impl Guest {
    /// Has QEMU place the guest's files in memory.
    pub fn load(&self, qemu: &mut Command) {
        for Placed { file, address } in &self.files {
            // A comma in an option's value is written twice.
            let file = file.display().to_string().replace(',', ",,");
            let device = format!("loader,file={file},addr={address:#x},force-raw=on");
            qemu.args(["-device", &device]);
        }
    }
}

/// Makes a guest ready for the machine that `machine`, a QEMU command, would start.
pub fn prepare(repo: &Repo, own: &Files, wish: &Wish, machine: Command) -> Result<Guest> {
    let folder = repo.target_dir.join("linux-guest");
    fs::create_dir_all(&folder)?;
    let (kernel, busybox) = files(own, &folder)?;

    let bytes = read(&kernel, "kernel")?;
    let cannot = || format!("{} cannot be booted", kernel.display());
    let header = image::header(&bytes).with_context(cannot)?;
    let program = read(&busybox, "busybox")?;
    ensure!(
        is_arm64(&program),
        "{} is not a program for arm64",
        busybox.display()
    );
    let initramfs = root(&repo.root.join(SCRIPTS), &program, wish.workloads)?;
    let kernel_size = header.memory.max(bytes.len() as u64);
    let start = room(kernel_size, initramfs.len() as u64).with_context(cannot)?;
    let initramfs_at = start..start + initramfs.len() as u64;

    let command_line = command_line(wish);
    let tree = device_tree::of_qemu(machine, &folder.join("qemu.dtb"))?;
    let tree = device_tree::for_guest(
        &tree,
        &device_tree::Machine {
            memory: layout::RAM..layout::RAM + layout::RAM_SIZE,
            cores: wish.cores.clone(),
            initramfs: initramfs_at.clone(),
            command_line: &command_line,
        },
    )?;
    ensure!(
        tree.len() as u64 <= layout::DEVICE_TREE_ROOM,
        "the device tree of {} KiB is too large",
        tree.len() >> 10
    );
    let place = |name: &str, contents: &[u8], address| -> Result<Placed> {
        let file = folder.join(name);
        fs::write(&file, contents)?;
        Ok(Placed { file, address })
    };
    println!(
        "linux: {} MiB of memory, cores {:?}, command line: {command_line}",
        layout::RAM_SIZE >> 20,
        wish.cores.clone().collect::<Vec<_>>(),
    );
    Ok(Guest {
        files: vec![
            Placed {
                file: kernel,
                address: layout::KERNEL,
            },
            place("initramfs.cpio", &initramfs, initramfs_at.start)?,
            place("guest.dtb", &tree, layout::DEVICE_TREE)?,
        ],
    })
}

/// The kernel and busybox: a person's own where named, else Debian's.
fn files(own: &Files, folder: &Path) -> Result<(PathBuf, PathBuf)> {
    if let (Some(kernel), Some(busybox)) = (&own.kernel, &own.busybox) {
        return Ok((absolute(kernel)?, absolute(busybox)?));
    }
    let debian = packages::obtain(folder)?;
    let choose = |file: &Option<PathBuf>, debian: &packages::Fetched| {
        if let Some(file) = file {
            return absolute(file);
        }
        let packages::Fetched {
            package,
            version,
            package_sha256,
            file,
            ..
        } = debian;
        println!("linux: {package} {version}, SHA-256 {package_sha256}");
        Ok(folder.join(file))
    };
    Ok((
        choose(&own.kernel, &debian.kernel)?,
        choose(&own.busybox, &debian.busybox)?,
    ))
}

/// QEMU may run in another folder.
fn absolute(file: &Path) -> Result<PathBuf> {
    path::absolute(file).with_context(|| file.display().to_string())
}

fn read(file: &Path, what: &str) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("the {what} cannot be read: {}", file.display()))
}

/// An ELF file of machine 183.
fn is_arm64(program: &[u8]) -> bool {
    program.starts_with(b"\x7fELF") && program.get(0x12..0x14) == Some(&[183, 0])
}

/// The archive of the guest's root file system.
fn root(scripts: &Path, busybox: &[u8], workloads: &[&str]) -> Result<Vec<u8>> {
    let mut files = vec![
        ("bin/busybox".to_owned(), busybox.to_vec()),
        ("init".to_owned(), read(&scripts.join("init"), "script")?),
    ];
    for workload in workloads {
        let script = scripts.join("work").join(workload);
        files.push((format!("work/{workload}"), read(&script, "workload")?));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(name, contents)| initramfs::File { name, contents })
        .collect();
    initramfs::archive(&["bin", "dev", "proc", "sys", "tmp", "work"], &files)
}

/// Where the initramfs begins: as high as it can be, so that as large a kernel as can be fits below it.
fn room(kernel: u64, initramfs: u64) -> Result<u64> {
    let limit = layout::DEVICE_TREE - layout::KERNEL;
    let (kernel, initramfs) = (
        kernel.next_multiple_of(4096),
        initramfs.next_multiple_of(4096),
    );
    let needed = kernel.saturating_add(initramfs);
    ensure!(
        needed <= limit,
        "kernel and initramfs take {} MiB of memory, and the guest has {} MiB for them",
        needed.div_ceil(1 << 20),
        limit >> 20,
    );
    Ok(layout::DEVICE_TREE - initramfs)
}

/// The kernel starts `init` with what stands after the dashes.
fn command_line(wish: &Wish) -> String {
    // Without address randomisation two runs touch the same pages more often. A guest that finds
    // its memory damaged should say so and end: an oops is a panic, and that is a reset.
    let words = [
        "console=ttyAMA0 earlycon nokaslr oops=panic panic=-1 rdinit=/init",
        wish.command_line,
        "--",
        &format!("{:#x}", layout::DOORBELL),
        &wish.workloads.join(" "),
    ];
    words
        .iter()
        .filter(|words| !words.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a line on the console tells of something that must not be.
pub fn is_trouble(line: &str) -> bool {
    let signs = ["@@ failed", "Kernel panic", "Oops", "BUG:", "WARNING: CPU"];
    signs.iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_fits_or_it_is_said_why_not() {
        assert_eq!(room(28 << 20, 1_849_488).ok(), Some(0x5fc3_c000));
        assert!(room(254 << 20, 0).is_ok());
        let error = room(254 << 20, 1).expect_err("too large").to_string();
        assert!(
            error.contains("255 MiB") && error.contains("254 MiB"),
            "{error}"
        );
        assert!(room(u64::MAX - 4096, 4096).is_err());
    }

    /// Why these files are refused, on a machine without QEMU.
    fn complaint(folder: &Path, kernel: &[u8], busybox: &[u8]) -> String {
        let place = |name: &str, contents: &[u8]| {
            let file = folder.join(name);
            match contents {
                [] => _ = fs::remove_file(&file),
                _ => fs::write(&file, contents).expect("written"),
            }
            Some(file)
        };
        let files = Files {
            kernel: place("kernel", kernel),
            busybox: place("busybox", busybox),
        };
        let mut repo = Repo::find().expect("the repository");
        repo.target_dir = folder.into();
        let wish = Wish {
            cores: 2..4,
            workloads: &[],
            command_line: "",
        };
        let guest = prepare(&repo, &files, &wish, Command::new("no-such-qemu"));
        format!("{:#}", guest.expect_err("refused"))
    }

    #[test]
    fn files_that_are_no_good_are_refused_before_qemu_starts() {
        let folder = std::env::temp_dir().join(format!("pugmark-files-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder");
        let mut kernel = vec![0; 64];
        kernel[0x10] = 1;
        kernel[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let mut large = kernel.clone();
        large[0x13] = 0x10; // 256 MiB and a byte
        let mut busybox = b"\x7fELF".to_vec();
        busybox.resize(64, 0);
        let for_x86 = busybox.clone();
        busybox[0x12] = 183;

        let refused = [
            (&[][..], &busybox[..], "the kernel cannot be read"),
            (&kernel[..0x38], &busybox, "magic number"),
            (&large, &busybox, "the guest has 254 MiB"),
            (&kernel, &[], "the busybox cannot be read"),
            (&kernel, &for_x86, "not a program for arm64"),
        ];
        for (kernel, busybox, why) in refused {
            let complaint = complaint(&folder, kernel, busybox);
            assert!(complaint.contains(why), "{why}: {complaint}");
        }
        let complaint = complaint(&folder, &kernel, &busybox);
        assert!(complaint.contains("QEMU does not start"), "{complaint}");
        let _ = fs::remove_dir_all(&folder);
    }

    #[test]
    fn the_first_process_gets_its_words() {
        let wish = Wish {
            cores: 2..4,
            workloads: &["dd", "fork"],
            command_line: "quiet",
        };
        let line = command_line(&wish);
        assert!(
            line.ends_with(" rdinit=/init quiet -- 0xb000000 dd fork"),
            "{line}"
        );
    }

    #[test]
    fn files_are_placed() {
        let placed = |file: &str, address| Placed {
            file: file.into(),
            address,
        };
        let guest = Guest {
            files: vec![placed("a", 0x10), placed("b,c", 0x20), placed("d", 0x30)],
        };
        let mut qemu = Command::new("qemu");
        guest.load(&mut qemu);
        let words: Vec<_> = qemu.get_args().filter_map(|word| word.to_str()).collect();
        assert_eq!(
            words[..2],
            ["-device", "loader,file=a,addr=0x10,force-raw=on"]
        );
        assert_eq!(words[3], "loader,file=b,,c,addr=0x20,force-raw=on");
    }

    #[test]
    fn each_workload_has_a_script() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(SCRIPTS);
        for name in ALL.iter().chain(&SHORT) {
            assert!(folder.join("work").join(name).is_file(), "{name}");
            // It is a doorbell's word.
            assert!(name.len() <= 8 && name.is_ascii(), "{name}");
        }
    }

    #[test]
    fn trouble_is_seen() {
        assert!(is_trouble("@@ failed sort"));
        assert!(is_trouble(
            "[    6.5] Kernel panic - not syncing: Attempted to kill init!"
        ));
        assert!(!is_trouble("@@ phase sort"));
        assert!(!is_trouble("[    0.2] CPU features: detected: Spectre-v4"));
    }
}
