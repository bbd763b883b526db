//! Runs a command and keeps what it said; shows that something moves meanwhile; counts what passed.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::num::NonZero;
use std::ops::{AddAssign, ControlFlow};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// What a command said, both streams in the order in which they were written, and how it ended.
pub struct Output {
    pub lines: Vec<String>,
    /// `None` when it was stopped, at the time limit or before.
    pub status: Option<ExitStatus>,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The lines that may tell why it failed: all but cargo's progress and the tests that passed.
    pub fn telling(&self) -> impl Iterator<Item = &str> {
        let lines = self.lines.iter().map(String::as_str);
        lines.filter(|line| !is_routine(line))
    }

    /// How it ended, for a person.
    pub fn ending(&self) -> String {
        match self.status {
            Some(status) => status.to_string(),
            None => "stopped at the time limit".into(),
        }
    }
}

/// After how long without news a sign of life is due.
const QUIET: Duration = Duration::from_secs(60);

/// Runs `command` and stops it at `limit`. Gives each line to `on_line` as it comes, and `None`
/// after each minute without one.
pub fn capture(
    command: &mut Command,
    limit: Option<Duration>,
    mut on_line: impl FnMut(Option<&str>),
) -> Result<Output> {
    watch(command, limit, QUIET, |line| {
        on_line(line);
        ControlFlow::Continue(())
    })
}

/// Makes lines of what a command writes.
pub type Decode = Box<dyn FnOnce(PipeReader, &mut dyn FnMut(String)) + Send>;

/// The same for a command whose standard output is no text; the order of the two streams is lost.
pub fn capture_decoded(
    command: &mut Command,
    limit: Option<Duration>,
    decode: Decode,
    mut on_line: impl FnMut(Option<&str>),
) -> Result<Output> {
    follow(command, limit, QUIET, Some(decode), |line| {
        on_line(line);
        ControlFlow::Continue(())
    })
}

/// The same as [`capture`], but `None` comes after each time of `quiet` without a line, and the
/// command is stopped where `on_line` says so.
pub fn watch(
    command: &mut Command,
    limit: Option<Duration>,
    quiet: Duration,
    on_line: impl FnMut(Option<&str>) -> ControlFlow<()>,
) -> Result<Output> {
    follow(command, limit, quiet, None, on_line)
}

fn follow(
    command: &mut Command,
    limit: Option<Duration>,
    quiet: Duration,
    decode: Option<Decode>,
    mut on_line: impl FnMut(Option<&str>) -> ControlFlow<()>,
) -> Result<Output> {
    let (sender, news) = mpsc::channel();
    let text = piped(Box::new(text_lines), sender.clone())?;
    command.stdout(match decode {
        Some(decode) => piped(decode, sender.clone())?,
        None => text.try_clone()?,
    });
    command.stderr(text);
    // So that the end of the readers is the end of the news.
    drop(sender);
    let child = command.spawn();
    // The command holds the writing ends; while it does, the readers would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("cannot start `{}`", describe(command)))?;

    let end = limit.map(|limit| Instant::now() + limit);
    let mut lines = Vec::new();
    let status = loop {
        let left = end.map_or(quiet, |end| end.saturating_duration_since(Instant::now()));
        let verdict = match news.recv_timeout(left.min(quiet)) {
            Ok(line) => {
                let verdict = on_line(Some(&line));
                lines.push(line);
                verdict
            }
            Err(RecvTimeoutError::Disconnected) => break Some(child.wait()?),
            Err(RecvTimeoutError::Timeout) if left > quiet || end.is_none() => on_line(None),
            Err(RecvTimeoutError::Timeout) => ControlFlow::Break(()),
        };
        if verdict.is_break() {
            child.kill()?;
            child.wait()?;
            break None;
        }
    };
    Ok(Output { lines, status })
}

/// The writing end of a pipe, whose lines a thread sends on: so one can wait with a time limit.
fn piped(decode: Decode, sender: Sender<String>) -> Result<io::PipeWriter> {
    let (reader, writer) = io::pipe()?;
    // Nobody may want to hear any more; the pipe is read to its end all the same.
    thread::spawn(move || decode(reader, &mut |line| drop(sender.send(line))));
    Ok(writer)
}

fn text_lines(reader: PipeReader, on_line: &mut dyn FnMut(String)) {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        on_line(String::from_utf8_lossy(&bytes).trim_end().to_owned());
        bytes.clear();
    }
}

/// The same with a spinner that shows the last line; on a plain log, a sign of life each minute.
pub fn capture_with_progress(command: &mut Command) -> Result<Output> {
    let spinner = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("  {spinner} {elapsed} {wide_msg}")?;
    spinner.set_style(style);
    spinner.enable_steady_tick(Duration::from_millis(200));
    let start = Instant::now();
    let mut next_sign = QUIET;
    let output = capture(command, None, |line| {
        if let Some(line) = line {
            spinner.set_message(line.to_owned());
        }
        if spinner.is_hidden() && start.elapsed() >= next_sign {
            println!("  … {} s", next_sign.as_secs());
            next_sign += QUIET;
        }
    });
    spinner.finish_and_clear();
    output
}

/// Runs commands, as many at a time as there are cores, and hands over each when it has ended.
pub fn capture_side_by_side(
    commands: &mut [Command],
    finished: &mut dyn FnMut(&Command, &Output, Duration),
) -> Result<()> {
    let at_a_time = thread::available_parallelism().map_or(1, NonZero::get);
    let queue = Mutex::new(commands.iter_mut());
    let next = &|| queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (sender, news) = mpsc::channel();
    thread::scope(|scope| {
        for sender in vec![sender; at_a_time] {
            scope.spawn(move || {
                while let Some(command) = next() {
                    let start = Instant::now();
                    let output = capture(command, None, |_| {});
                    drop(sender.send((command, output, start.elapsed())));
                }
            });
        }
        let start = Instant::now();
        loop {
            match news.recv_timeout(QUIET) {
                Ok((command, output, took)) => finished(command, &output?, took),
                Err(RecvTimeoutError::Timeout) => println!("  … {} s", start.elapsed().as_secs()),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })
}

/// Runs a short command and returns what it wrote, or `None` if it failed or does not exist.
pub fn ask(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// The command as a person would type it: the variables that it sets, then its words.
pub fn describe(command: &Command) -> String {
    let mut words = Vec::new();
    for (key, value) in command.get_envs() {
        if let (Some(value), true) = (value, key != "CARGO_TARGET_DIR") {
            words.push(format!("{}={}", key.display(), quoted(value)));
        }
    }
    let program = std::path::Path::new(command.get_program());
    match program.file_name() {
        Some(name) if name == "xtask" => words.push("cargo xtask".into()),
        _ => words.push(program.display().to_string()),
    }
    words.extend(command.get_args().map(quoted));
    words.join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.contains([' ', '"']) {
        format!("'{word}'")
    } else {
        word.into_owned()
    }
}

/// What cargo says of each crate, and libtest of each test that passed.
fn is_routine(line: &str) -> bool {
    const PROGRESS: [&str; 9] = [
        "Blocking",
        "Checking",
        "Compiling",
        "Documenting",
        "Downloaded",
        "Downloading",
        "Finished",
        "Locking",
        "Updating",
    ];
    let first = line.split_whitespace().next();
    let is_progress = first.is_some_and(|word| PROGRESS.contains(&word));
    is_progress || (line.starts_with("test ") && line.ends_with(" ... ok"))
}

/// How many passed, how many failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
}

impl Counts {
    pub fn one(success: bool) -> Self {
        Self {
            passed: usize::from(success),
            failed: usize::from(!success),
        }
    }

    /// Reads the counts that a command printed: the last line of our own commands, else the sum
    /// of cargo's `test result:` lines, else one for the command as a whole. A command that
    /// failed counts as one failure even where no test of it did.
    pub fn of(output: &Output) -> Self {
        Self::read(&output.lines, output.success())
    }

    fn read(lines: &[String], success: bool) -> Self {
        let last = lines.iter().rev().find(|line| !line.is_empty());
        let mut results = lines.iter().filter_map(|line| test_result(line)).peekable();
        let mut counts = Self::default();
        if let Some(ours) = last.and_then(|line| own_summary(line)) {
            counts = ours;
        } else if results.peek().is_some() {
            results.for_each(|result| counts += result);
        } else {
            return Self::one(success);
        }
        if !success && counts.failed == 0 {
            counts.failed = 1;
        }
        counts
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// `12 passed, 0 failed`
fn own_summary(line: &str) -> Option<Counts> {
    let (passed, failed) = line.split_once(" passed, ")?;
    Some(Counts {
        passed: passed.parse().ok()?,
        failed: failed.strip_suffix(" failed")?.parse().ok()?,
    })
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; …`
fn test_result(line: &str) -> Option<Counts> {
    let result = line.trim_start().strip_prefix("test result: ")?;
    let (_, counts) = result.split_once(". ")?;
    let number = |part: &str, name: &str| part.trim().strip_suffix(name)?.trim().parse().ok();
    let mut parts = counts.split(';');
    Some(Counts {
        passed: number(parts.next()?, "passed")?,
        failed: number(parts.next()?, "failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> (usize, usize) {
        let lines: Vec<String> = text.lines().map(String::from).collect();
        let counts = Counts::read(&lines, success);
        (counts.passed, counts.failed)
    }

    #[test]
    fn cargo_results_are_summed() {
        let text = "running 2 tests\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
            test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(read(text, false), (5, 1));
    }

    #[test]
    fn our_own_last_line_wins() {
        let text = "test result: FAILED. 3 passed; 1 failed; 0 ignored\n40 passed, 2 failed\n";
        assert_eq!(read(text, false), (40, 2));
        // Anywhere else it is only text.
        assert_eq!(read("40 passed, 2 failed\nand more", true), (1, 0));
    }

    #[test]
    fn a_command_without_tests_counts_as_one() {
        assert_eq!(read("Finished", true), (1, 0));
        assert_eq!(read("error: no", false), (0, 1));
    }

    #[test]
    fn a_failure_outside_the_tests_is_not_lost() {
        let text = "test result: ok. 2 passed; 0 failed; 0 ignored\nerror: could not compile";
        assert_eq!(read(text, false), (2, 1));
    }

    #[test]
    fn what_tells_of_a_failure_is_not_routine() {
        let text = "   Compiling pugmark v0.1.0\n\
            test a_page ... ok\n\
            test b_page ... FAILED\n\
            error: No space left on device";
        let output = Output {
            lines: text.lines().map(String::from).collect(),
            status: None,
        };
        let telling: Vec<&str> = output.telling().collect();
        assert_eq!(
            telling,
            ["test b_page ... FAILED", "error: No space left on device"]
        );
    }

    #[test]
    fn a_command_is_stopped_at_its_limit() {
        let mut sleep = Command::new("sleep");
        let output = capture(sleep.arg("60"), Some(Duration::from_millis(50)), |_| {});
        assert!(output.is_ok_and(|output| output.status.is_none()));
    }

    #[test]
    fn both_streams_are_read_to_the_end() -> Result<()> {
        let script = || {
            let mut sh = Command::new("sh");
            sh.args(["-c", "printf a,b,; echo text >&2"]);
            sh
        };
        let plain = capture(&mut script(), None, |_| {})?;
        assert_eq!(plain.lines, ["a,b,text"]);

        let parts: Decode = Box::new(|mut reader, on_line| {
            let text = io::read_to_string(&mut reader).unwrap_or_default();
            text.split_terminator(',')
                .for_each(|part| on_line(part.into()));
        });
        let mut decoded = capture_decoded(&mut script(), None, parts, |_| {})?;
        decoded.lines.sort();
        assert_eq!(decoded.lines, ["a", "b", "text"]);
        Ok(())
    }

    #[test]
    fn commands_side_by_side_all_end() -> Result<()> {
        let mut commands: Vec<Command> = ["true", "false", "true"].map(Command::new).into();
        let mut ended = Vec::new();
        capture_side_by_side(&mut commands, &mut |_, output, _| {
            ended.push(output.success())
        })?;
        ended.sort();
        assert_eq!(ended, [false, true, true]);
        Ok(())
    }

    #[test]
    fn a_command_is_described_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["test", "--cfg x"]).env("A", "-D warnings");
        assert_eq!(describe(&command), "A='-D warnings' cargo test '--cfg x'");
    }
}
