//! Builds `program.c`: with a C compiler as C11, and with a C++ compiler as C++.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The warnings are those of a strict embedder; none may remain.
const WARNINGS: &str = "-Wall -Wextra -Wpedantic -Werror";
const C: &str = "-std=c11 -x c";
const CXX: &str = "-std=c++11 -x c++";
/// What Rust's standard library needs of the system's.
const LIBRARIES: &str = "-pthread -ldl -lm -Wl,--gc-sections";

/// The program compiled as C, and as C++.
pub fn programs() -> &'static [PathBuf; 2] {
    static PROGRAMS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let library = static_library();
        [
            compile(&compiler("CC", "cc"), C, &library, "program-c"),
            compile(&compiler("CXX", "c++"), CXX, &library, "program-c++"),
        ]
    })
}

/// The name of a compiler: the environment's choice, or the usual one.
fn compiler(variable: &str, usual: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| usual.into())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn built() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// As features/capi.md tells a user to make it.
fn static_library() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).env_remove("CARGO_BUILD_TARGET");
    cargo.args("rustc --release --lib --features capi,std --crate-type staticlib".split(' '));
    cargo.arg("--target-dir").arg(built());
    run(&mut cargo);
    built().join("release/libpugmark.a")
}

fn compile(compiler: &str, language: &str, library: &Path, name: &str) -> PathBuf {
    let program = built().join(name);
    let mut command = Command::new(compiler);
    command.args(WARNINGS.split(' ')).args(language.split(' '));
    command.arg("-O2").arg("-I").arg(root().join("include"));
    command.arg(root().join("tests/capi/program.c"));
    command.args(["-x", "none"]).arg(library);
    command.args(LIBRARIES.split(' ')).arg("-o").arg(&program);
    run(&mut command);
    program
}

/// Runs a command, which must end well.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "{command:?}: {error}. A C and a C++ compiler are needed: `apt-get install g++` on \
             Debian, `dnf install gcc-c++` on Fedora; or name them in CC and CXX"
        )
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
}

#[test]
fn bad_input_is_a_status_in_c() {
    for program in programs() {
        run(Command::new(program).arg("bad-input"));
    }
}

/// The program has all of the library that the functions reach; a panic would bring its message.
#[test]
fn no_function_can_panic() {
    for program in programs() {
        let bytes = std::fs::read(program).expect("the program");
        let message = b"panicked at";
        let panics = bytes.windows(message.len()).any(|found| found == message);
        assert!(!panics, "{}", program.display());
    }
}
