//! What a model is held to: that no execution fails, or that one does, in the way it should.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::model::Builder;

/// Preemptions that every wrong order here needs at most.
const BOUND: usize = 3;

/// Passes if `model` fails in no execution within the bound, and there were several.
pub fn holds(model: impl Fn() + Send + Sync + 'static) {
    let mut loom = Builder::new();
    loom.preemption_bound.get_or_insert(BOUND);
    let executions = Arc::new(AtomicUsize::new(0));
    explore(&loom, &executions, model);
    let executions = executions.load(Relaxed);
    assert!(executions > 1, "loom saw nothing that the threads share");
    println!("held in {executions} executions");
}

/// Passes if `model` fails in some execution with a panic that begins with `why`.
///
/// Any other end is a failure of the test: no panic, or one of loom's own (a deadlock, a limit).
pub fn fails(why: &str, model: impl Fn() + Send + Sync + 'static) {
    let mut loom = Builder::new();
    loom.preemption_bound = Some(BOUND);
    let executions = Arc::new(AtomicUsize::new(0));
    let outcome = catch_unwind(AssertUnwindSafe(|| explore(&loom, &executions, model)));
    let executions = executions.load(Relaxed);
    let Err(panic) = outcome else {
        panic!("the wrong order passed all {executions} executions");
    };
    let message = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(message), _) => message,
        (_, Some(message)) => *message,
        _ => "a panic without a message",
    };
    assert!(
        message.starts_with(why),
        "it failed for another reason than {why:?}: {message}"
    );
    println!("caught in execution {executions}: {message}");
}

/// [`fails`], as most wrong orders do.
pub fn loses(model: impl Fn() + Send + Sync + 'static) {
    fails("lost page", model);
}

fn explore(
    loom: &Builder,
    executions: &Arc<AtomicUsize>,
    model: impl Fn() + Send + Sync + 'static,
) {
    let executions = Arc::clone(executions);
    loom.check(move || {
        executions.fetch_add(1, Relaxed);
        model();
    });
}
