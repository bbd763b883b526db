//! QEMU, Node and valgrind through apt, without removing a package that is installed.
//!
//! Debian's QEMU packages want each other in exactly the same version. Where one of them came from
//! backports, the others must come from there too: plain stable would offer to remove it. So the
//! decision looks at what is installed, and the backports source, where it is missing, is the
//! machine's own Debian entry with another suite.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::run;
use crate::process::ask;

/// Installs `package`, one of the family that `pattern` matches: whether it could be.
pub fn install(package: &str, pattern: &str) -> Result<bool> {
    match plan(&Facts::gather(pattern)) {
        Plan::Install(plan) => plan.carry_out(package),
        Plan::Explain => Ok(false),
    }
}

/// What the decision rests on.
#[derive(Clone, Default)]
struct Facts {
    has_apt: bool,
    privilege: Privilege,
    /// Debian's name for the release: `bookworm`.
    codename: String,
    /// The versions of the family's packages that are installed.
    installed: Vec<String>,
    /// The contents of apt's source files.
    sources: Vec<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Privilege {
    Root,
    /// `sudo` without a password.
    Sudo,
    #[default]
    None,
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Install(Install),
    /// It cannot be done from here.
    Explain,
}

#[derive(Debug, PartialEq, Eq)]
struct Install {
    sudo: bool,
    /// A source file to add: its name and contents.
    source: Option<(String, String)>,
    /// The suite to take the packages from; apt's own choice if `None`.
    suite: Option<String>,
}

fn plan(facts: &Facts) -> Plan {
    if !facts.has_apt || facts.privilege == Privilege::None {
        return Plan::Explain;
    }
    let mut install = Install {
        sudo: facts.privilege == Privilege::Sudo,
        source: None,
        suite: None,
    };
    let backported = |version: &String| version.contains("~bpo");
    if facts.installed.iter().any(backported) {
        let suite = format!("{}-backports", facts.codename);
        let entry = |suite: &str| facts.sources.iter().find_map(|text| entry_for(text, suite));
        if entry(&suite).is_none() {
            let Some(stable) = entry(&facts.codename) else {
                return Plan::Explain;
            };
            install.source = Some(stable.with_suite(&facts.codename, &suite));
        }
        install.suite = Some(suite);
    }
    Plan::Install(install)
}

/// One entry of a source file: a stanza of fields, or a line that starts with `deb`.
struct Entry<'a> {
    text: &'a str,
    extension: &'static str,
}

/// The first entry of `text` that names `suite`.
fn entry_for<'a>(text: &'a str, suite: &str) -> Option<Entry<'a>> {
    let names = |line: &str| line.split_whitespace().any(|word| word == suite);
    let stanzas = text.split("\n\n").filter(|stanza| {
        let any = |test: &dyn Fn(&str) -> bool| stanza.lines().any(test);
        let off = any(&|line| line.trim_end() == "Enabled: no");
        !off && any(&|line| line.starts_with("Suites:") && names(line))
    });
    let lines = text.lines();
    let lines = lines.filter(|line| line.starts_with("deb ") && names(line));
    let stanzas = stanzas.map(|text| (text, "sources"));
    let (text, extension) = stanzas.chain(lines.map(|text| (text, "list"))).next()?;
    Some(Entry { text, extension })
}

impl Entry<'_> {
    /// The name and contents of a source file with this entry, where `new` stands for `old`.
    fn with_suite(&self, old: &str, new: &str) -> (String, String) {
        let mut contents = String::new();
        for line in self.text.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with("Suites:") {
                contents += &format!("Suites: {new}");
            } else if line.starts_with("deb ") {
                let words = line.split_whitespace();
                let words = words.map(|word| if word == old { new } else { word });
                contents += &words.collect::<Vec<_>>().join(" ");
            } else {
                contents += line;
            }
            contents.push('\n');
        }
        (format!("{new}.{}", self.extension), contents)
    }
}

impl Facts {
    fn gather(pattern: &str) -> Self {
        let id = |args: &[&str]| ask("id", args).is_some_and(|id| id.trim() == "0");
        let privilege = if id(&["-u"]) {
            Privilege::Root
        } else if ask("sudo", &["-n", "true"]).is_some() {
            Privilege::Sudo
        } else {
            Privilege::None
        };
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = os_release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .unwrap_or_default();
        let format = "${db:Status-Status} ${Version}\n";
        let packages = ask("dpkg-query", &["-W", "-f", format, pattern]).unwrap_or_default();
        let installed = packages
            .lines()
            .filter_map(|line| line.strip_prefix("installed "))
            .map(String::from)
            .collect();
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        let more = fs::read_dir("/etc/apt/sources.list.d").into_iter();
        files.extend(more.flatten().filter_map(|file| Some(file.ok()?.path())));
        // apt reads no others: a file is switched off by another ending.
        let is_read = |path: &PathBuf| {
            let ending = path.extension().unwrap_or_default();
            ending == "list" || ending == "sources"
        };
        let sources = files.iter().filter(|path| is_read(path));
        let sources = sources.filter_map(|path| fs::read_to_string(path).ok());
        Self {
            has_apt: ask("apt-get", &["--version"]).is_some(),
            privilege,
            codename: codename.trim_matches('"').into(),
            installed,
            sources: sources.collect(),
        }
    }
}

impl Install {
    /// Whether the package could be installed; the reason, if not, has been shown by apt.
    fn carry_out(&self, package: &str) -> Result<bool> {
        if let Some((name, contents)) = &self.source {
            let path = format!("/etc/apt/sources.list.d/{name}");
            println!("set-up: writing {path}, the machine's own Debian source with another suite");
            self.write(&path, contents)?;
        }
        // An unreachable third-party source makes this fail although ours are fine.
        let _ = self.apt_get(&["update", "--quiet"]);
        let mut args = vec!["install", "--yes", "--quiet"];
        args.extend(["--no-remove", "--no-install-recommends"]);
        if let Some(suite) = &self.suite {
            args.extend(["-t", suite]);
        }
        args.push(package);
        Ok(self.apt_get(&args).is_ok())
    }

    fn apt_get(&self, args: &[&str]) -> Result<()> {
        let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        let words = self.privileged(&[&words, args].concat());
        run(words[0], &words[1..])
    }

    fn write(&self, path: &str, contents: &str) -> Result<()> {
        let words = self.privileged(&["tee", path]);
        let mut tee = Command::new(words[0]);
        tee.args(&words[1..]);
        let mut tee = tee.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut input = tee.stdin.take().context("tee has no input")?;
        input.write_all(contents.as_bytes())?;
        drop(input);
        anyhow::ensure!(tee.wait()?.success(), "cannot write {path}");
        Ok(())
    }

    /// The words of a command that may change the system.
    fn privileged<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        let sudo: &[&str] = if self.sudo { &["sudo", "-n"] } else { &[] };
        [sudo, words].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /a/key.gpg\n\n\
        Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n";
    const LINES: &str = "# deb http://old.example/debian bookworm main\n\
        deb [signed-by=/a/key.gpg] http://mirror.example/debian bookworm main contrib\n";

    fn facts(installed: &str, sources: &[&str]) -> Facts {
        Facts {
            has_apt: true,
            privilege: Privilege::Root,
            codename: "bookworm".into(),
            installed: installed.split_whitespace().map(String::from).collect(),
            sources: sources.iter().map(|text| text.to_string()).collect(),
        }
    }

    fn install(facts: &Facts) -> Install {
        match plan(facts) {
            Plan::Install(install) => install,
            Plan::Explain => panic!("should install"),
        }
    }

    #[test]
    fn a_plain_machine_takes_what_apt_offers() {
        let install = install(&facts("1:7.2+dfsg-7+deb12u16", &[STANZAS]));
        assert_eq!(
            (install.source, install.suite, install.sudo),
            (None, None, false)
        );
    }

    #[test]
    fn without_apt_or_privilege_it_only_explains() {
        let able = facts("", &[STANZAS]);
        let no_apt = Facts {
            has_apt: false,
            ..able.clone()
        };
        let nobody = Facts {
            privilege: Privilege::None,
            ..able
        };
        assert_eq!(plan(&no_apt), Plan::Explain);
        assert_eq!(plan(&nobody), Plan::Explain);
    }

    #[test]
    fn backported_packages_bring_their_source_along() {
        let install = install(&facts("1:10.0.2+ds-2+deb13u1~bpo12+1", &[STANZAS]));
        assert_eq!(install.suite.as_deref(), Some("bookworm-backports"));
        let (name, contents) = install.source.expect("a source file");
        assert_eq!(name, "bookworm-backports.sources");
        assert_eq!(
            contents,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n\
             Components: main\nSigned-By: /a/key.gpg\n"
        );
    }

    #[test]
    fn the_one_line_form_is_understood() {
        let install = install(&facts("1:10.0~bpo12+1", &[LINES]));
        let (name, contents) = install.source.expect("a source file");
        assert_eq!(name, "bookworm-backports.list");
        assert_eq!(
            contents,
            "deb [signed-by=/a/key.gpg] http://mirror.example/debian bookworm-backports main contrib\n"
        );
    }

    #[test]
    fn a_source_that_is_there_is_not_added_again() {
        let there = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n";
        let install = install(&facts("1:10.0~bpo12+1", &[STANZAS, there]));
        assert_eq!(install.source, None);
        assert_eq!(install.suite.as_deref(), Some("bookworm-backports"));
    }

    #[test]
    fn backports_without_a_debian_source_are_left_to_a_person() {
        assert_eq!(plan(&facts("1:10.0~bpo12+1", &[])), Plan::Explain);
        let disabled = "Types: deb\nEnabled: no\nSuites: bookworm\n";
        assert_eq!(plan(&facts("1:10.0~bpo12+1", &[disabled])), Plan::Explain);
    }
}
