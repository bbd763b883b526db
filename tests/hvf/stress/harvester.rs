//! The side that copies, and compares.

use std::collections::BTreeMap;
use std::thread;

use pugmark::{DirtyRun, WriteProtect};

use super::guest::slots;
use super::{Conduct, Run, World};
use crate::vmm::{Rng, pages_of};

pub struct Harvester<'a> {
    run: &'a Run,
    /// The words at which anyone writes, by page; a page that was never copied is not in it.
    mirror: BTreeMap<u64, Vec<u64>>,
    chance: Rng,
    /// Pages whose mirror was wrong although they were not marked.
    pub lost: usize,
    /// How often all of memory was compared.
    pub compared: usize,
}

impl<'a> Harvester<'a> {
    pub fn new(run: &'a Run, seed: u64) -> Self {
        Self {
            run,
            mirror: BTreeMap::new(),
            chance: Rng(!seed),
            lost: 0,
            compared: 0,
        }
    }

    fn words(&self, page: u64) -> Vec<u64> {
        slots().map(|slot| self.run.vm.load(page + slot)).collect()
    }

    fn copy(&mut self, run: DirtyRun) {
        for page in pages_of(run, self.run.page) {
            let words = self.words(page);
            self.mirror.insert(page, words);
        }
    }

    /// Harvests in one form or another until `done`.
    pub fn until(&mut self, done: impl Fn() -> bool) {
        while !done() {
            self.harvest();
            for _ in 0..self.chance.below(4) {
                thread::yield_now();
            }
        }
    }

    fn harvest(&mut self) {
        let run = self.run;
        if run.is(Conduct::ProtectsBeforeItDrains) {
            self.protect_then_drain();
        }
        match self.chance.below(32) {
            0 => self.checkpoint(),
            1 => self.held(false),
            2 | 3 => self.held(true),
            4 | 5 => self.streamed(Some(self.chance.0 % 3)),
            6 | 7 => self.compare(),
            _ => self.streamed(None),
        }
    }

    /// A new baseline. It may fail, and then everything is marked.
    fn checkpoint(&mut self) {
        let _stopped = self.run.tracker.pause().expect("all vCPUs come");
        if self.run.tracker.arm().is_ok() {
            for &page in &self.run.pages {
                let words = self.words(page);
                self.mirror.insert(page, words);
            }
        }
    }

    /// The two-phase form, whose copy is made while the vCPUs run.
    fn held(&mut self, commit: bool) {
        let run = self.run;
        let Ok(held) = run.tracker.begin_harvest() else {
            return;
        };
        if commit {
            if !run.is(Conduct::CommitsWithoutACopy) {
                held.runs().for_each(|run| self.copy(run));
            }
            held.commit();
        }
    }

    /// It refuses a run, or none.
    fn streamed(&mut self, mut refused: Option<u64>) {
        let run = self.run;
        let consumer = |run| {
            match &mut refused {
                Some(0) => return Err(()),
                Some(left) => *left -= 1,
                None => {}
            }
            self.copy(run);
            Ok(())
        };
        // What is not accepted is marked again, whatever failed.
        let _ = match run.world {
            World::Stopped => run.tracker.harvest(consumer).map_err(drop),
            World::Running => run.tracker.harvest_running(consumer).map_err(drop),
        };
    }

    /// With all vCPUs stopped: a page is marked, or its mirror is right.
    fn compare(&mut self) {
        let run = self.run;
        let _stopped = run.tracker.pause().expect("all vCPUs come");
        for region in run.tracker.tracker().regions() {
            for n in 0..region.pages() {
                let page = region.base() + n as u64 * run.page.size();
                let words = self.words(page);
                let marked = region.dirty().is_marked(n) == Ok(true);
                if !marked && self.mirror.get(&page) != Some(&words) {
                    self.lost += 1;
                }
            }
        }
        self.compared += 1;
    }

    /// The wrong order.
    fn protect_then_drain(&mut self) {
        let run = self.run;
        let tracker = run.tracker.tracker();
        for region in tracker.regions() {
            if tracker.protection().protect(region.page_range()).is_err() {
                continue;
            }
            thread::yield_now();
            region.dirty().drain_runs(|dirty| {
                let start = region.base() + dirty.start as u64 * run.page.size();
                let len = dirty.len as u64 * run.page.size();
                self.copy(DirtyRun { start, len });
            });
        }
    }

    /// At the end: a harvest, and then nothing is marked and every mirror is right.
    pub fn finish(&mut self) {
        let run = self.run;
        let harvested = run.tracker.harvest(|run| {
            self.copy(run);
            Ok::<(), ()>(())
        });
        harvested.expect("nothing fails any more");
        let regions = run.tracker.tracker().regions();
        assert!(regions.iter().all(|region| region.dirty().count() == 0));
        self.compare();
    }
}
