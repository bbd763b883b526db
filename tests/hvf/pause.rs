//! The rendezvous: nobody inside once it returns, everybody inside once it is over, never a hang.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pugmark::hvf::{Handled, HostPage, HvError, Pause, PauseError, StoppedError, Unhandled};

use crate::model::{self, Access, BAD_ARGUMENT, Form, NO_DEVICE, Program};
use crate::vmm::{HVC, Vcpu, Vm};

const RAM: u64 = 0x4000_0000;

/// Loads again and again, and counts, until it is told to end.
#[derive(Clone, Default)]
struct Spin {
    steps: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
}

impl Spin {
    fn steps(&self) -> usize {
        self.steps.load(SeqCst)
    }
}

impl Program for Spin {
    fn next(&mut self) -> Access {
        self.steps.fetch_add(1, SeqCst);
        let (form, ipa) = match self.end.load(SeqCst) {
            true => (Form::Trap, HVC),
            false => (Form::Load, RAM),
        };
        Access {
            form,
            ipa,
            value: 0,
        }
    }
}

/// Ends these guests when it drops, by a failed assertion too.
struct End<'a>(&'a [Spin]);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|spin| spin.end.store(true, SeqCst));
    }
}

fn vm() -> Vm {
    Vm::new(HostPage::Kib16, &[(RAM, 1 << 20)])
}

/// Waits until `done`, and not for ever.
fn until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "a hang");
        thread::yield_now();
    }
}

#[test]
fn nobody_is_inside_once_it_returns_and_all_go_on_once_it_is_over() {
    let _vm = vm();
    let pause = Pause::default();
    let spins: [Spin; 3] = Default::default();
    let inside = AtomicUsize::new(0);
    let canceled = AtomicUsize::new(0);
    let count = || spins.each_ref().map(Spin::steps);

    thread::scope(|scope| {
        let _end = End(&spins);
        for spin in &spins {
            let (pause, inside, canceled) = (&pause, &inside, &canceled);
            scope.spawn(move || {
                let vcpu = Vcpu::new(spin.clone());
                let mut seat = pause.seat(vcpu.id);
                loop {
                    let running = seat.enter();
                    inside.fetch_add(1, SeqCst);
                    let exit = vcpu.run();
                    inside.fetch_sub(1, SeqCst);
                    drop(running);
                    if exit.reason != 0 {
                        break;
                    }
                    canceled.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 0..300 {
            let before = count();
            until(|| count().iter().zip(before).all(|(now, then)| *now > then));
            let paused = pause.pause().expect("all come");
            assert_eq!(inside.load(SeqCst), 0, "round {round}");
            let stopped = count();
            if round % 10 == 0 {
                // One in another does not end it.
                drop(pause.pause().expect("nobody is inside"));
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(count(), stopped, "round {round}: it ran on");
            drop(paused);
        }
    });
    assert!(canceled.into_inner() >= 300);
}

/// The one thing that a weaker order of the flags would break. Miri runs it too, whose memory is as
/// weak as the language allows.
#[test]
fn a_vcpu_and_a_pause_that_begin_at_once_see_each_other() {
    let _vm = vm();
    let pause = Pause::new().with_watchdog(Duration::from_secs(60));
    let (inside, end) = (AtomicBool::new(false), AtomicBool::new(false));
    let laps = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let vcpu = Vcpu::new(Spin::default());
            let mut seat = pause.seat(vcpu.id);
            while !end.load(Relaxed) {
                let _running = seat.enter();
                inside.store(true, Relaxed);
                (0..20).for_each(|_| std::hint::spin_loop());
                inside.store(false, Relaxed);
                laps.fetch_add(1, Relaxed);
            }
        });
        let trials = if cfg!(miri) { 10 } else { 20_000 };
        let both = (0..trials).find(|_| {
            // It is awake, and goes in and out.
            let before = laps.load(Relaxed);
            until(|| laps.load(Relaxed) > before + 2);
            let _paused = pause.pause().expect("it comes");
            (0..20).any(|_| inside.load(Relaxed))
        });
        end.store(true, Relaxed);
        assert_eq!(both, None, "one was inside while all were out");
    });
}

#[test]
fn a_consumer_sees_a_stopped_guest_and_a_held_harvest_a_running_one() {
    let vm = vm();
    let tracker = vm.tracker();
    let spin = Spin::default();
    thread::scope(|scope| {
        let _end = End(std::slice::from_ref(&spin));
        scope.spawn(|| {
            let vcpu = Vcpu::new(spin.clone());
            let mut seat = tracker.seat(vcpu.id);
            loop {
                let _running = seat.enter();
                if vcpu.run().reason != 0 {
                    break;
                }
            }
        });
        until(|| spin.steps() > 0);
        let harvested = tracker.harvest(|_| {
            let stopped = spin.steps();
            thread::sleep(Duration::from_millis(10));
            assert_eq!(spin.steps(), stopped);
            Ok::<(), ()>(())
        });
        assert_eq!(harvested.map(|harvested| harvested.pages), Ok(64));

        assert_eq!(tracker.mark_written(RAM..RAM + 1), Ok(()));
        let held = tracker.begin_harvest().expect("it comes");
        let then = spin.steps();
        until(|| spin.steps() > then);
        assert_eq!(held.commit().pages, 1);
    });
}

#[test]
fn two_pauses_at_once_are_over_when_both_are() {
    let _vm = vm();
    let pause = Pause::new();
    let mut seat = pause.seat(0);
    let first = pause.pause().expect("nobody is inside");
    let second = pause.clone().pause().expect("nobody is inside");
    let (send, entered) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _running = seat.enter();
            send.send(()).expect("a listener");
        });
        drop(first);
        let still = entered.recv_timeout(Duration::from_millis(30));
        assert!(still.is_err(), "it went in while the second one held");
        drop(second);
        let went = entered.recv_timeout(Duration::from_secs(30));
        assert!(went.is_ok(), "it never went in");
    });
}

#[test]
fn a_vcpu_that_does_not_come_back_is_an_error_with_its_number() {
    let vm = vm();
    let tracker = vm.tracker().with_watchdog(Duration::from_millis(25));
    let vcpu = Vcpu::new(Spin::default());
    let other = Vcpu::new(Spin::default());
    let _idle = tracker.seat(vcpu.id);
    let mut seat = tracker.seat(other.id);
    // Its thread is busy with an exit.
    let running = seat.enter();
    let begun = Instant::now();
    let Err(error) = tracker.pause() else {
        panic!("it was inside");
    };
    let PauseError::Stuck { vcpu, waited } = error else {
        panic!("{error:?}");
    };
    assert_eq!(vcpu, other.id);
    assert!(waited >= Duration::from_millis(25) && waited <= begun.elapsed());
    assert!(error.to_string().starts_with("vCPU 1 did not leave"));
    // What stops the world says the same, and did nothing; what does not goes on.
    let is_stuck = |error| matches!(error, PauseError::Stuck { vcpu, .. } if vcpu == other.id);
    let consumer = |_| Ok::<(), ()>(());
    assert!(matches!(tracker.arm(), Err(StoppedError::Pause(error)) if is_stuck(error)));
    let harvested = tracker.harvest(consumer);
    assert!(matches!(harvested, Err(StoppedError::Pause(error)) if is_stuck(error)));
    let held = tracker.begin_harvest().map(|held| held.harvested());
    assert!(matches!(held, Err(StoppedError::Pause(error)) if is_stuck(error)));
    assert_eq!(tracker.tracker().regions()[0].dirty().count(), 64);
    let harvested = tracker.harvest_running(consumer);
    assert_eq!(harvested.map(|harvested| harvested.pages), Ok(64));
    // Everyone runs on, and the next pause is as good as any.
    drop(running);
    drop(seat.enter());
    assert!(tracker.pause().is_ok());
}

#[test]
fn a_vcpu_is_asked_again_if_it_did_not_hear() {
    let _vm = vm();
    let pause = Pause::new().with_watchdog(Duration::from_secs(30));
    let spin = Spin::default();
    thread::scope(|scope| {
        let _end = End(std::slice::from_ref(&spin));
        scope.spawn(|| {
            let vcpu = Vcpu::new(spin.clone());
            let mut seat = pause.seat(vcpu.id);
            let _running = seat.enter();
            assert_eq!(vcpu.run().reason, 0);
        });
        until(|| spin.steps() > 0);
        model::planned(|plan| plan.lose_exits(2));
        drop(pause.pause().expect("the third one is heard"));
    });
}

#[test]
fn a_vcpu_that_was_about_to_enter_leaves_at_once() {
    let vm = vm();
    let tracker = vm.tracker();
    let (entered, is_inside) = (Barrier::new(2), AtomicBool::new(true));
    thread::scope(|scope| {
        scope.spawn(|| {
            let vcpu = Vcpu::new(Spin::default());
            let mut seat = tracker.seat(vcpu.id);
            let _running = seat.enter();
            entered.wait();
            // The pause has begun by now, most likely, and this run is over before it begins.
            thread::sleep(Duration::from_millis(5));
            let handled = tracker.handle_exit(vcpu.run());
            assert_eq!(handled, Ok(Handled::NotOurs(Unhandled::Canceled)));
            is_inside.store(false, SeqCst);
        });
        entered.wait();
        let _paused = tracker.pause().expect("it comes");
        assert!(!is_inside.load(SeqCst));
    });
}

#[test]
fn a_vcpu_that_is_destroyed_meanwhile_is_out() {
    let vm = vm();
    let tracker = vm.tracker();
    let begun = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let vcpu = Vcpu::new(Spin::default());
            let mut seat = tracker.seat(vcpu.id);
            // Never dropped: its thread ends the vCPU in the middle of an exit.
            std::mem::forget(seat.enter());
            begun.wait();
            thread::sleep(Duration::from_millis(20));
            drop(seat);
            drop(vcpu);
        });
        begun.wait();
        let harvested = tracker.harvest(|_| Ok::<(), ()>(()));
        assert_eq!(harvested.map(|harvested| harvested.pages), Ok(64));
    });
    // The number is forgotten: nobody asks the framework for a vCPU that is gone.
    assert!(tracker.arm().is_ok());
}

#[test]
fn a_vcpu_whose_thread_panics_is_out() {
    let vm = vm();
    let tracker = vm.tracker();
    let died = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut seat = tracker.seat(0);
            let _running = seat.enter();
            panic!("in an exit handler");
        });
        thread.join()
    });
    assert!(died.is_err());
    assert!(tracker.pause().is_ok());
}

#[test]
fn the_framework_that_refuses_is_an_error_and_nothing_stays_stopped() {
    let vm = vm();
    let tracker = vm.tracker();
    // Destroyed before its seat was dropped.
    let mut seat = tracker.seat(77);
    let running = seat.enter();
    let error = tracker.pause().map(drop);
    let expected = PauseError::Exit {
        error: HvError { code: BAD_ARGUMENT },
    };
    assert_eq!(error, Err(expected));
    assert_eq!(
        expected.to_string(),
        "the vCPUs cannot be made to leave: HV_BAD_ARGUMENT (0xfae94003)"
    );
    let error = tracker.arm().expect_err("it cannot be stopped");
    assert_eq!(error.to_string(), expected.to_string());
    drop(running);
    drop(seat.enter());
    assert!(tracker.arm().is_ok());

    let mut seat = tracker.seat(0);
    let _running = seat.enter();
    vm.destroy();
    let error = tracker.pause().map(drop);
    let gone = HvError { code: NO_DEVICE };
    assert_eq!(error, Err(PauseError::Exit { error: gone }));
}
