//! The workload, its live snapshots, and the proof.

use std::error::Error;
use std::fmt::{Debug, Display};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use pugmark::WriteTracker;
use pugmark::host::std::Clock;
use pugmark::host::uffd::{Access, Mapping, UffdHandler, UffdLog, UffdProtection};
use pugmark::snapshot::{Chain, Written};
use pugmark::{BoxedRegion, DirtyRun, HarvestError, PageGeometry, StepDown, WriteProtect};

use super::files;
use super::memory::Memory;
use super::screen::{HeatMap, Screen};
use super::workload::{Stores, Workload, Writer};

type Tracker<P> = WriteTracker<P, Vec<BoxedRegion>>;

/// Where the memory is, for the tracker and in the files.
pub const IPA: u64 = 0x4000_0000;
/// Rounds of copying before the threads are stopped, and when there is little enough left.
const ROUNDS: usize = 4;
const LITTLE: usize = 256;

#[derive(Args)]
pub struct Options {
    /// Memory, in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
    size: u64,
    /// Who writes
    #[arg(long, value_enum, default_value_t = Guest::None)]
    guest: Guest,
    /// Threads that write, or vCPUs
    #[arg(long, default_value_t = 2)]
    pub threads: u64,
    /// Writes a second, of each thread
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..))]
    writes: u64,
    /// Milliseconds between two snapshots
    #[arg(long, default_value_t = 1000)]
    every: u64,
    /// How many diffs, after the base
    #[arg(long, default_value_t = 10)]
    snapshots: u64,
    /// What a fault opens
    #[arg(long, value_enum, default_value_t = Grain::Page)]
    grain: Grain,
    /// How writes are found
    #[arg(long, value_enum, default_value_t = Source::Faults)]
    pub source: Source,
    /// Where the files go, to stay there; unless given, a temporary folder
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Guest {
    /// Threads of this process
    None,
    /// The vCPUs of a KVM guest (feature `kvm`, x86-64)
    Kvm,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Grain {
    /// A page
    Page,
    /// A block of 2 MiB
    Block,
    /// A block, and a page where it faults often
    Adaptive,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Source {
    /// userfaultfd, with a handler thread that decides what each fault opens
    Faults,
    /// The kernel's own log, page by page, without faults (Linux 6.7)
    Log,
    /// KVM's dirty log, of its guest
    KvmLog,
    /// KVM's dirty ring, of its guest (Linux 5.11)
    KvmRing,
}

pub fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let memory = Memory::new(options.size << 20);
    match options.guest {
        Guest::None => {
            let threads = (0..options.threads).map(|_| &memory).collect();
            let what = format!("{} threads", options.threads);
            with_userfaultfd(options, &what, &memory, threads)
        }
        #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
        Guest::Kvm => super::guest::run(options, &memory),
        #[cfg(not(all(feature = "kvm", target_arch = "x86_64")))]
        Guest::Kvm => Err("this was built without a guest: it takes x86-64 and \
             `cargo run --release --example pugmark-snap --features uffd,kvm -- --guest kvm`"
            .into()),
    }
}

/// Tracks by userfaultfd what `writers` do to the memory.
pub fn with_userfaultfd<S: Stores>(
    options: &Options,
    what: &str,
    memory: &Memory,
    writers: Vec<S>,
) -> Result<bool, Box<dyn Error>> {
    let mapping = Mapping::new(IPA, memory.as_ptr(), memory.len());
    match options.source {
        Source::Faults => {
            let protection = match options.guest {
                Guest::None => UffdProtection::new([mapping])?,
                // A vCPU's writes are the kernel's.
                Guest::Kvm => UffdProtection::with_access([mapping], Access::Full)?,
            };
            let how = format!("{what}; userfaultfd, {:?}", protection.access());
            let regions = vec![region(options.grain, protection.geometry(), memory)?];
            let tracker = Arc::new(WriteTracker::new(protection, regions)?);
            let handler = UffdHandler::spawn(Arc::clone(&tracker))?;
            let same = watch(options, &how, memory, &tracker, writers)?;
            let end = handler.stop();
            println!("{} faults", tracker.counters().faults);
            match end.last_error {
                Some(error) => Err(error.into()),
                None => Ok(same),
            }
        }
        Source::Log => {
            let log = UffdLog::new([mapping])?;
            let how = format!("{what}; the kernel's log, {:?}", log.access());
            let regions = vec![region(Grain::Page, log.geometry(), memory)?];
            let tracker = WriteTracker::new(log, regions)?;
            watch(options, &how, memory, &tracker, writers)
        }
        Source::KvmLog | Source::KvmRing => {
            Err("KVM logs what its guest writes, and nothing else: `--guest kvm`".into())
        }
    }
}

pub fn region(
    grain: Grain,
    geometry: PageGeometry,
    memory: &Memory,
) -> Result<BoxedRegion, Box<dyn Error>> {
    let page = geometry.page_size();
    let (geometry, step_down) = match grain {
        Grain::Page => (PageGeometry::new(page, page)?, StepDown::NEVER),
        Grain::Block => (geometry, StepDown::NEVER),
        // As `StepDown` has it for few harvests a second.
        Grain::Adaptive => {
            let few = StepDown {
                threshold: 1,
                window: Duration::from_secs(4),
                ..StepDown::DEFAULT
            };
            (geometry, few)
        }
    };
    let region = BoxedRegion::boxed(IPA, memory.len() as u64, geometry)?;
    Ok(region.with_step_down(step_down))
}

/// Runs `writers` beside the snapshots. Whether what they restore to is the memory.
pub fn watch<P, S: Stores>(
    options: &Options,
    how: &str,
    memory: &Memory,
    tracker: &Tracker<P>,
    writers: Vec<S>,
) -> Result<bool, Box<dyn Error>>
where
    P: WriteProtect + Sync,
    P::Error: Debug + Display + 'static,
{
    let folder = options.folder.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("pugmark-snap-{}", std::process::id()))
    });
    println!(
        "{} MiB; {} writes a second each of {how}; files in {}",
        options.size,
        options.writes,
        folder.display(),
    );
    let chain = Chain::create(&folder)?;
    let page = tracker.regions()[0].geometry().page_size();
    let workload = Workload::default();
    let mut session = Session {
        memory,
        tracker,
        page,
        workload: &workload,
        chain,
        screen: Screen::new(),
        map: HeatMap::new(IPA, memory.len() as u64),
        all: HeatMap::new(IPA, memory.len() as u64),
        clock: Clock::new(),
    };
    let done = thread::scope(|scope| {
        for (thread, writer) in (0..).zip(writers) {
            let workload = &workload;
            let choose = Writer::new(memory, page as usize, thread);
            let full = || tracker.collect_log().expect("the log tells");
            scope.spawn(move || workload.run(writer, &full, choose, options.writes));
        }
        let done = session.snapshots(options);
        workload.end();
        done
    });
    // The last one, of what stands still now.
    let done = done.and_then(|()| session.snapshot("last"));
    session.screen.end(&session.all);
    done?;
    let same = compare(&session.chain, memory)?;
    println!("{}", files::summary(&session.chain));
    // What went wrong can be looked at.
    if same && options.folder.is_none() {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(same)
}

struct Session<'a, P> {
    memory: &'a Memory,
    tracker: &'a Tracker<P>,
    page: u64,
    workload: &'a Workload,
    chain: Chain,
    screen: Screen,
    /// Of one snapshot, and of all diffs.
    map: HeatMap,
    all: HeatMap,
    clock: Clock,
}

impl<P> Session<'_, P>
where
    P: WriteProtect,
    P::Error: Debug + Display + 'static,
{
    fn snapshots(&mut self, options: &Options) -> Result<(), Box<dyn Error>> {
        self.screen.line(
            "         |       the file        |    the snapshot          | writes  longest,  ms\n\
             \u{20}          pages     MiB % saved |     ms  pages/s pause ms |  before   before   during",
        );
        self.snapshot("base")?;
        self.all.clear();
        for number in 1..=options.snapshots {
            thread::sleep(Duration::from_millis(options.every));
            self.snapshot(&format!("diff {number}"))?;
        }
        Ok(())
    }

    fn snapshot(&mut self, name: &str) -> Result<(), Box<dyn Error>> {
        let (writes, longest) = self.workload.take_counts();
        let began = Instant::now();
        let (written, pause) = self.take(name)?;
        let took = began.elapsed();
        // The longest write while the snapshot was taken, and while it was not.
        let (_, meanwhile) = self.workload.take_counts();
        self.tracker.tick(self.clock.now());
        self.screen.map(&self.map);
        let pages = written.data / self.page;
        let saved = self.memory.len() as f64 - written.file_size as f64;
        self.screen.line(&format!(
            "{name:8} {pages:>7} {:>7.1} {:>7.1} | {:>6.0} {:>8.0} {:>7.2} | {writes:>7} {:>8.3} {:>8.3}",
            files::mib(written.file_size),
            saved * 100.0 / self.memory.len() as f64,
            ms(took),
            pages as f64 / took.as_secs_f64(),
            ms(pause),
            ms(longest),
            ms(meanwhile),
        ));
        Ok(())
    }

    /// Copies in rounds while the threads run, and stops them only for the last.
    fn take(&mut self, name: &str) -> Result<(Written, Duration), Box<dyn Error>> {
        let (memory, workload) = (self.memory, self.workload);
        let (map, all) = (&mut self.map, &mut self.all);
        map.clear();
        let mut harvest = self.tracker.begin_harvest()?;
        let bytes = harvest.harvested().pages as u64 * self.page;
        let bar = self.screen.bar(name.to_owned(), bytes);
        let mut draft = self.chain.draft(&harvest)?;
        let mut copy = |run: DirtyRun| {
            map.add(run);
            all.add(run);
            draft.add(run, |address, into| {
                memory.read((address - IPA) as usize, into);
                bar.inc(into.len() as u64);
                Ok(())
            })
        };
        for run in harvest.runs() {
            copy(run)?;
        }
        for _ in 1..ROUNDS {
            if harvest.extend(&mut copy)?.pages < LITTLE {
                break;
            }
        }
        let (last, pause) = workload.paused(|| {
            loop {
                match harvest.extend_final(&mut copy) {
                    // The thread went on before the handler that opened its page returned.
                    Err(HarvestError::HandlersInFlight { .. }) => thread::yield_now(),
                    done => break done,
                }
            }
        });
        last?;
        Ok((draft.commit(harvest)?, pause))
    }
}

/// Restores the chain, as another process would find it, and compares.
fn compare(chain: &Chain, memory: &Memory) -> Result<bool, Box<dyn Error>> {
    let began = Instant::now();
    let mut restored = vec![0; memory.len()];
    Chain::open(chain.folder())?.restore(|address, bytes| {
        restored[(address - IPA) as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    })?;
    let took = ms(began.elapsed());
    let mut pieces = restored.chunks(1 << 20).zip(0..);
    let differs = pieces.find_map(|(piece, n)| memory.first_difference(n << 20, piece));
    match differs {
        None => println!(
            "restored {} bytes in {took:.0} ms: the same as memory, byte for byte",
            restored.len()
        ),
        Some(at) => println!("DIFFERENT from {:#x} on", IPA + at as u64),
    }
    Ok(differs.is_none())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
