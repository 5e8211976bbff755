//! Runs of the model, each from its seed.
//!
//! Owns how many seeds there are and how long each runs. Does not own what happens in a run: the parent module.

use std::hash::Hasher as _;
use std::ops::Range;
use std::time::Duration;

use super::history::Counts;
use super::{CallHistory, Model};

/// 200,000 steps in all, or a few seconds.
const SEEDS: Range<u64> = 0..40;
const STEPS: usize = 5_000;
/// The length of a run whose calls are checked as a history. Longer ones have more positions than the checker visits.
const CHECKED_STEPS: usize = 500;
const CHECKED_SEEDS: Range<u64> = 0..8;

/// Runs one seed; panics at the first step that breaks a rule.
async fn live(seed: u64, steps: usize, calls: Option<CallHistory>) -> (u64, Counts) {
    let mut model = Model::new(seed, calls);
    for step in 0..=steps {
        if step < steps {
            model.step().await;
        } else {
            model.come_to_rest().await;
        }
        if let Some(violation) = &model.shared.lock().oracle.violation {
            panic!(
                "seed {seed}, step {step}: {violation}\n\
                 replay: IDEM_SEED={seed} IDEM_STEPS={steps} cargo test -p idem-core --lib model"
            );
        }
    }
    let world = model.shared.lock();
    (world.oracle.trace.finish(), world.oracle.counts)
}

fn run(seed: u64, steps: usize) -> (u64, Counts) {
    run_with(seed, steps, None)
}

fn run_with(seed: u64, steps: usize, calls: Option<CallHistory>) -> (u64, Counts) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(live(seed, steps, calls))
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

#[test]
fn whatever_happens_the_promise_holds() {
    let steps = setting("IDEM_STEPS").map_or(STEPS, |steps| usize::try_from(steps).expect("a number of steps"));
    let begun = std::time::Instant::now();
    let (first, time) = (setting("IDEM_SEED"), setting("IDEM_SECONDS").map(Duration::from_secs));
    let is_replay = first.is_some() && time.is_none();
    let mut total = Counts::default();
    let mut seeds = 0;
    for seed in first.unwrap_or(SEEDS.start).. {
        let (_, counts) = run(seed, steps);
        total.add(counts);
        seeds += 1;
        let is_over = time.map_or(is_replay || seed + 1 == SEEDS.end, |time| begun.elapsed() >= time);
        if is_over {
            break;
        }
    }
    println!("model: {seeds} seeds of {steps} steps, no rule broken; {total:?}");
    // A run without faults would prove nothing. With only a few seeds, some kinds of event may be missing by chance.
    assert!(
        seeds < SEEDS.end || total.is_telling(),
        "too little happened: {total:?}"
    );
}

#[test]
fn the_calls_of_short_runs_are_explained_by_the_specification() {
    for seed in CHECKED_SEEDS {
        let calls = CallHistory::new();
        run_with(seed, CHECKED_STEPS, Some(calls.clone()));
        let report = calls.check();
        assert!(report.unexplained.is_empty(), "seed {seed}: {report}");
        println!("seed {seed}: {report}");
        assert_eq!(report.unchecked, 0, "seed {seed}: {report}");
    }
}

#[test]
fn the_same_seed_makes_the_same_run() {
    assert_eq!(run(7, 1_000), run(7, 1_000));
    assert_ne!(run(7, 1_000), run(8, 1_000));
}
