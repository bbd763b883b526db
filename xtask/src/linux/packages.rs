//! Debian's arm64 kernel and busybox, through apt. Its state, its index and its downloads are in a
//! folder of ours: what the machine's own apt knows and has is neither used nor changed, but for
//! the sources it is told of and the keys it trusts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::sources;
use crate::process::ask;
use crate::setup::Missing;

const ARCHITECTURE: &str = "arm64";
/// The package that stands for the newest kernel; what it depends on is the kernel itself.
const KERNEL: &str = "linux-image-cloud-arm64";
const KERNEL_ITSELF: &str = "linux-image-";
const BUSYBOX: &str = "busybox-static";

/// One file of one package, as it was fetched.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fetched {
    pub package: String,
    pub version: String,
    /// The checksum of the package, which apt's signed index names.
    pub package_sha256: String,
    /// The file, in our folder.
    pub file: PathBuf,
    pub file_sha256: String,
}

/// What the folder holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lock {
    pub kernel: Fetched,
    pub busybox: Fetched,
}

/// The kernel and busybox: from `folder`, where what is there is what was fetched, else through apt.
pub fn obtain(folder: &Path) -> Result<Lock> {
    let lock = folder.join("lock.json");
    if let Some(lock) = read(&lock).filter(|lock| lock.holds(folder)) {
        return Ok(lock);
    }
    let mut apt = Apt::new(folder)?;
    println!("linux: reading the index of Debian's packages for {ARCHITECTURE}");
    apt.update()?;
    let (unpacked, boot) = (folder.join("unpacked"), Path::new("boot"));
    let kernel = apt.record(KERNEL).and_then(|record| {
        let kernel = record.dependency(KERNEL_ITSELF);
        apt.record(kernel.context("the kernel's package names no kernel")?)
    })?;
    let kernel = apt.fetch(&kernel, &unpacked, "Image", |unpacked| {
        find(&unpacked.join(boot), "vmlinuz-")
    })?;
    let busybox = apt.record(BUSYBOX)?;
    let busybox = apt.fetch(&busybox, &unpacked, "busybox", |unpacked| {
        let places = ["bin", "usr/bin"].map(|folder| unpacked.join(folder));
        places.iter().find_map(|folder| find(folder, "busybox"))
    })?;
    let fetched = Lock { kernel, busybox };
    fs::write(lock, serde_json::to_string_pretty(&fetched)? + "\n")?;
    Ok(fetched)
}

fn read(lock: &Path) -> Option<Lock> {
    serde_json::from_str(&fs::read_to_string(lock).ok()?).ok()
}

impl Lock {
    /// Whether the files are there and as they were.
    fn holds(&self, folder: &Path) -> bool {
        [&self.kernel, &self.busybox].iter().all(|fetched| {
            let file = fs::read(folder.join(&fetched.file));
            file.is_ok_and(|bytes| sha256(&bytes) == fetched.file_sha256)
        })
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file in `folder` whose name begins so.
fn find(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(prefix))
    })
}

/// apt with a state of its own.
struct Apt<'a> {
    folder: &'a Path,
    configuration: PathBuf,
    /// What it complained of when it read the index.
    complaints: String,
}

impl<'a> Apt<'a> {
    fn new(folder: &'a Path) -> Result<Self> {
        for (program, argument) in [("apt-get", "--version"), ("dpkg-deb", "--version")] {
            if ask(program, &[argument]).is_none() {
                return Err(missing(&format!("{program} is not on this machine")));
            }
        }
        let apt = folder.join("apt");
        // The sources may have changed since the last time.
        let _ = fs::remove_dir_all(&apt);
        for below in ["lists/partial", "cache/archives/partial", "sources.list.d"] {
            fs::create_dir_all(apt.join(below))?;
        }
        let codename = codename();
        let sources = machine_sources();
        let sources = sources
            .iter()
            .flat_map(|text| sources::derive(text, &codename, ARCHITECTURE));
        let mut count = 0;
        for source in sources {
            let name = format!("{count}.{}", source.extension);
            fs::write(apt.join("sources.list.d").join(name), source.contents)?;
            count += 1;
        }
        if count == 0 {
            return Err(missing("apt has no Debian source on this machine"));
        }
        // No package is installed here.
        fs::write(apt.join("status"), "")?;
        let configuration = apt.join("apt.conf");
        fs::write(&configuration, configure(&apt))?;
        Ok(Self {
            folder,
            configuration,
            complaints: String::new(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.configuration);
        command
    }

    /// A source that does not have this architecture fails and is no harm, if another one has the
    /// packages.
    fn update(&mut self) -> Result<()> {
        let mut command = self.command("apt-get");
        let output = command.args(["update", "--quiet"]).output()?;
        self.complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(())
    }

    fn record(&self, package: &str) -> Result<Record> {
        let mut command = self.command("apt-cache");
        let output = command
            .args(["show", "--no-all-versions", package])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Record::read(&text).ok_or_else(|| {
            eprint!("{}", self.complaints);
            missing(&format!(
                "none of this machine's Debian sources has {package} for {ARCHITECTURE}"
            ))
        })
    }

    /// Fetches the package, checks it, unpacks it for a moment, and keeps the one file of it that
    /// `choose` finds, as `name`.
    fn fetch(
        &self,
        record: &Record,
        unpacked: &Path,
        name: &str,
        choose: impl Fn(&Path) -> Option<PathBuf>,
    ) -> Result<Fetched> {
        let Record {
            package,
            version,
            size,
            sha256: expected,
            ..
        } = record;
        let megabytes = *size as f64 / 1e6;
        println!("linux: fetching {package} {version}, {megabytes:.1} MB");
        let deb = self.folder.join(record.file_name());
        let mut apt = self.command("apt-get");
        apt.args(["download", "--quiet", &format!("{package}={version}")]);
        run(apt.current_dir(self.folder))?;
        let found =
            sha256(&fs::read(&deb).with_context(|| format!("apt left no {}", deb.display()))?);
        ensure!(
            found == *expected,
            "{} has the SHA-256 {found}; apt's index says {expected}",
            deb.display()
        );

        let _ = fs::remove_dir_all(unpacked);
        run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(unpacked))?;
        let file =
            choose(unpacked).with_context(|| format!("{package} has no such file: {name}"))?;
        let bytes = fs::read(file)?;
        fs::write(self.folder.join(name), &bytes)?;
        fs::remove_dir_all(unpacked)?;
        fs::remove_file(deb)?;
        Ok(Fetched {
            package: package.clone(),
            version: version.clone(),
            package_sha256: found,
            file: name.into(),
            file_sha256: sha256(&bytes),
        })
    }
}

/// What a package's record in the index says.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    package: String,
    version: String,
    architecture: String,
    depends: String,
    size: u64,
    sha256: String,
}

impl Record {
    fn read(text: &str) -> Option<Self> {
        let field = |key: &str| {
            let mut lines = text.lines().take_while(|line| !line.is_empty());
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            value.map(str::to_owned)
        };
        Some(Self {
            package: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture")?,
            depends: field("Depends").unwrap_or_default(),
            size: field("Size")?.parse().ok()?,
            sha256: field("SHA256")?,
        })
    }

    /// The package whose name begins so, of those that this one needs.
    fn dependency(&self, prefix: &str) -> Option<&str> {
        let mut names = self
            .depends
            .split([',', '|'])
            .filter_map(|item| item.split_whitespace().next());
        names.find(|name| name.starts_with(prefix))
    }

    /// What apt calls the file that it downloads.
    fn file_name(&self) -> String {
        let Self {
            package,
            version,
            architecture,
            ..
        } = self;
        format!(
            "{package}_{}_{architecture}.deb",
            version.replace(':', "%3a")
        )
    }
}

/// Read after the machine's own configuration, so that a proxy stays, and its hooks do not: some
/// machines have apt clean the system's cache after each update.
fn configure(apt: &Path) -> String {
    let apt = apt.display();
    format!(
        r#"#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "{ARCHITECTURE}";
APT::Architectures {{ "{ARCHITECTURE}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State "{apt}/";
Dir::State::lists "{apt}/lists/";
Dir::State::status "{apt}/status";
Dir::Cache "{apt}/cache/";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{apt}/sources.list.d/";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"#
    )
}

/// Debian's name for the machine's release.
fn codename() -> String {
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut lines = os_release.lines();
    let name = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

/// The contents of apt's source files.
fn machine_sources() -> Vec<String> {
    let folder = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let mut files: Vec<_> = folder
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    // Of other files, such as disabled ones, apt takes no notice.
    files.retain(|file| {
        file.extension()
            .is_some_and(|name| name == "list" || name == "sources")
    });
    files.push("/etc/apt/sources.list".into());
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect()
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "`{}` failed:\n{}",
        crate::process::describe(command),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn missing(reason: &str) -> anyhow::Error {
    let remedy =
        "pass --kernel with an arm64 Linux Image and --busybox with a static busybox for arm64";
    Missing(format!(
        "{reason}, so Debian's kernel cannot be fetched: {remedy}"
    ))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "Package: linux-image-cloud-arm64\nVersion: 6.1.9-2\n\
        Architecture: arm64\nDepends: kmod, linux-image-6.1.0-56-cloud-arm64 (= 6.1.9-2)\n\
        Filename: pool/x.deb\nSize: 1460\nSHA256: ab97\n\nPackage: another\nVersion: 1\n";

    #[test]
    fn a_record_is_read() {
        let record = Record::read(RECORD).expect("a record");
        assert_eq!((record.size, &*record.sha256), (1460, "ab97"));
        assert_eq!(
            record.dependency(KERNEL_ITSELF),
            Some("linux-image-6.1.0-56-cloud-arm64")
        );
        assert_eq!(record.dependency("linux-headers-"), None);
        assert_eq!(Record::read(""), None);
        assert_eq!(Record::read("Package: a\nVersion: 1\n"), None);
    }

    #[test]
    fn an_epoch_is_escaped_in_a_file_name() {
        let version = RECORD.replace("6.1.9-2\nArch", "1:6.1.9-2\nArch");
        let record = Record::read(&version).expect("a record");
        assert_eq!(
            record.file_name(),
            "linux-image-cloud-arm64_1%3a6.1.9-2_arm64.deb"
        );
    }

    #[test]
    fn a_checksum_is_hexadecimal() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
    }
}
