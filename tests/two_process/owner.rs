//! The process that owns the arena, reads it, and kills writers.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pugmark::slots::{
    Borrowed, CHUNK_SLOTS, Descent, Owner, Reader, Seen, bytes_for, mirror_words,
};
use pugmark::{BorrowedArena, SlotBinding, SlotWriter};
use rustix::process::Signal;

use crate::shared_memory::SharedMemory;
use crate::stamp::{STRIDE, Stamp};
use crate::writer::{HANGING, READ, SLOTS, Shared, Task, VARIABLE, WRITTEN, variable};

/// More than anything takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    memory: &'static SharedMemory,
    owner: Owner<'static, Borrowed<'static>>,
    reader: Reader<'static, Borrowed<'static>, Vec<Seen>, Vec<usize>>,
    /// What was last read of each slot.
    values: BTreeMap<usize, Stamp>,
    writers: u64,
    updated: usize,
    torn: usize,
}

/// A writer that lives, no longer than this.
pub struct Writer {
    number: u64,
    child: Child,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    pub fn new() -> Self {
        let slots = SLOTS[SLOTS.len() - 1] + 1;
        // And what its alignment may skip.
        let bytes = bytes_for(slots, STRIDE) + 64;
        // Until the process ends, so that everything may borrow it.
        let memory: &SharedMemory =
            Box::leak(Box::new(SharedMemory::new(size_of::<Shared>() + bytes)));
        // SAFETY: behind `Shared`, and shared with nobody yet.
        let arena = unsafe {
            let start = memory.start().cast::<Shared>().add(1).cast();
            BorrowedArena::in_memory(start, bytes, slots, STRIDE).expect("enough memory")
        };
        let arena: &_ = Box::leak(Box::new(arena));
        let mut owner = arena.owner().expect("nobody else has it");
        for _ in 0..slots {
            // Its writer is made when there is one to write.
            drop(owner.allocate().expect("a slot"));
        }
        let seen = vec![Seen::ZERO; arena.capacity() / CHUNK_SLOTS];
        let mirror = vec![0; mirror_words(slots, STRIDE)];
        Self {
            memory,
            owner,
            reader: Reader::new(arena, seen, mirror).expect("nobody else has it"),
            values: BTreeMap::new(),
            writers: 0,
            updated: 0,
            torn: 0,
        }
    }

    /// New writers for all the slots, whatever the last ones left.
    fn recover(&mut self) -> [SlotWriter<'static>; SLOTS.len()] {
        self.writers += 1;
        // SAFETY: a process that wrote was killed before this, and `write_all` ends.
        SLOTS.map(|slot| unsafe { self.owner.recover(slot) }.expect("it is allocated"))
    }

    pub fn start(&mut self, task: Task) -> Writer {
        let slots = self.recover().map(SlotWriter::into_binding);
        // SAFETY: at the start of the memory, which no other process has now.
        unsafe {
            self.memory.start().cast::<Shared>().write(Shared {
                start: self.memory.start().addr().get(),
                slots,
                stage: 0.into(),
            });
        }
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--ignored", "--exact", "writer_process"]);
        command.env(VARIABLE, variable(self.memory, self.writers, task));
        command.stdout(Stdio::null());
        Writer {
            number: self.writers,
            child: command.spawn().expect("it runs"),
        }
    }

    fn shared(&self) -> &Shared {
        // SAFETY: `start` wrote it; of it only an atomic changes while there are writers.
        unsafe { self.memory.start().cast().as_ref() }
    }

    /// One descend. Every value that it accepts must be whole, and newer than the last.
    pub fn read(&mut self) -> Descent {
        let values = &mut self.values;
        let descent = self.reader.descend(|offset, bytes| {
            for (index, value) in bytes.chunks(STRIDE).enumerate() {
                let slot = offset / STRIDE + index;
                let stamp = Stamp::of(slot, value);
                let last = values.insert(slot, stamp);
                assert!(last.is_none_or(|last| last < stamp), "{last:?}, {stamp:?}");
            }
        });
        self.updated += descent.updated;
        self.torn += descent.torn;
        descent
    }

    pub fn read_for(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.read();
        }
    }

    fn read_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < PATIENCE, "never {what}");
            self.read();
        }
    }

    fn all_are_from(&self, writer: u64) -> bool {
        let from = |slot| {
            self.values
                .get(slot)
                .is_some_and(|value| value.writer == writer)
        };
        SLOTS.iter().all(from)
    }

    pub fn read_until_all_are_from(&mut self, writer: &Writer) {
        self.read_until("its values", |world| world.all_are_from(writer.number));
    }

    /// Lets a writer go on to where it hangs, once it has written and left no hint.
    pub fn read_until_hanging(&mut self, _: &Writer) {
        let stage = |world: &Self| world.shared().stage.load(Ordering::Acquire);
        self.read_until("written", |world| stage(world) == WRITTEN);
        self.read();
        self.shared().stage.store(READ, Ordering::Release);
        self.read_until("hanging", |world| stage(world) == HANGING);
    }

    /// Kills it, and returns how many slots it was writing: one, or none.
    pub fn kill(&mut self, mut writer: Writer) -> usize {
        writer.child.kill().expect("SIGKILL");
        let status = writer.child.wait().expect("our child");
        let killed = Some(Signal::KILL.as_raw());
        assert_eq!(status.signal(), killed, "it ended by itself: {status}");

        let is_odd = |slot: &&SlotBinding| {
            // SAFETY: the arena is there; its versions are atomics.
            let version = unsafe { pugmark::AtomicU32::from_ptr(slot.version) };
            version.load(Ordering::Relaxed) % 2 == 1
        };
        let odd = self.shared().slots.iter().filter(is_odd).count();
        // It may have been killed before a hint.
        self.reader.rescan();
        let descent = self.read();
        assert_eq!(descent.torn, odd, "{descent:?}");
        assert!(odd <= 1);
        odd
    }

    /// Recovers every slot, and writes it from here.
    pub fn write_all(&mut self) {
        let mut slots = self.recover();
        let (writer, number) = (self.writers, 1);
        for slot in &mut slots {
            let value = Stamp { writer, number }.value(slot.id().index());
            slot.write(&value).expect("the stride");
        }
        assert_eq!(self.read().torn, 0);
        assert!(self.all_are_from(writer), "{:?}", self.values);
    }

    pub fn values(&self) -> &BTreeMap<usize, Stamp> {
        &self.values
    }

    pub fn counts(&self) -> String {
        let Self { updated, torn, .. } = self;
        format!("{updated} values read, {torn} tries torn, 0 accepted")
    }
}
