//! A disk that fills up: the kernel's own ENOSPC.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use pugmark::snapshot::{Chain, SnapshotError, Step};

use crate::guest::{Folder, Guest, PAGE};

const FOLDER: &str = "PUGMARK_TEST_FOLDER";

#[track_caller]
fn is_no_space(error: &SnapshotError) {
    let SnapshotError::Io {
        step, error: io, ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*step, Step::Write);
    assert_eq!(io.kind(), ErrorKind::StorageFull);
    let text = error.to_string();
    assert!(
        text.contains("free some space") && text.contains("nothing is lost"),
        "{text}"
    );
}

/// A file system of 4 MiB, in a mount namespace of a process of its own, so that nothing of it is
/// left behind.
#[test]
fn a_small_file_system() {
    let folder = Folder::new();
    fs::create_dir_all(&folder).expect("a folder");
    let mount = "mount -t tmpfs -o size=4m tmpfs \"$PUGMARK_TEST_FOLDER\"";
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .env(FOLDER, folder.as_ref());
        command.output()
    };
    match unshare(mount) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            println!("skipped: no file system of our own: {}", why.trim());
            return;
        }
        Err(error) => {
            println!("skipped: no unshare: {error}");
            return;
        }
    }
    let test = env::current_exe().expect("this test");
    let run = format!("{mount} && exec {test:?} no_space::child --exact --ignored --nocapture");
    let output = unshare(&run).expect("it ran before");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("met a full disk"), "{said}");
    print!("{said}");
}

#[test]
#[ignore = "the process that the test above starts"]
fn child() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let mut guest = Guest::of_pages(100);
    let mut chain = Chain::create(folder).expect("a chain");
    let mut failures = 0;
    for step in 0..30_u64 {
        for page in 0..50 {
            let value = (step + page) as u8 | 1;
            guest.write((step * 13 + page) % 100 * PAGE, &[value; PAGE as usize]);
        }
        let before = chain.files().len();
        // It meets the end of the disk at another place each time.
        let ballast = fill_but(folder, (step * 16) << 10);
        if let Err(error) = guest.snapshot(&mut chain) {
            failures += 1;
            is_no_space(&error);
            assert_eq!(chain.files().len(), before);
            if before > 0 {
                is_no_space(&chain.merge().expect_err("it takes more than the diff"));
                Chain::open(folder)
                    .expect("as it was")
                    .verify()
                    .expect("whole");
            }
            fs::remove_file(&ballast).expect("some space");
            guest.write(step * PAGE, &[step as u8; 10]);
            guest.snapshot(&mut chain).expect("there is room");
        } else {
            fs::remove_file(&ballast).expect("some space");
        }
        let found = Chain::open(folder).expect("whole");
        assert!(guest.restored(&found).expect("whole") == guest.memory);
        chain.merge().expect("there is room");
    }
    assert!(failures > 2 && failures < 30);
    println!("met a full disk {failures} times");
}

/// A file that takes all the space but `free` bytes.
fn fill_but(folder: &Path, free: u64) -> PathBuf {
    let path = folder.join("ballast");
    let mut file = File::create(&path).expect("a file");
    while file.write_all(&[1; PAGE as usize]).is_ok() {}
    let len = file.metadata().expect("its size").len();
    file.set_len(len - free).expect("a shorter file");
    path
}
