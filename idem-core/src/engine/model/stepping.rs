//! A handler of three durable steps, whose bodies take time and fail at random.
//!
//! Owns what such a handler does. Does not own the rules: [`oracle::steps`](super::oracle).

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::handler::Granted;
use super::history::End;
use crate::Completion;
use crate::engine::RecordOutcome;
use crate::steps::{StepError, StepErrorKind, Steps};

/// How many steps the handler has.
pub(super) const STEPS: usize = 3;
/// The step whose body may be called by each attempt.
const REPEATED: usize = 0;
/// The step whose body runs at most once.
pub(super) const ONCE: usize = 1;
/// The step whose body runs at most once, and of which the handler can find out whether it happened.
pub(super) const ASKED: usize = 2;
/// How long a body, or a reconciliation, pauses at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How long the steps of a handler take at most: each reconciles and pauses twice in its body.
pub(super) const LONGEST_STEPS: Duration = LONGEST_PAUSE.saturating_mul(9);
pub(super) const NAMES: [&str; STEPS] = ["repeated", "once", "asked"];

/// Why a handler does not come to the end of its steps.
#[derive(Debug)]
pub(super) enum Failure {
    Step(StepErrorKind),
    /// The body fails.
    Body,
    /// The body panics.
    Panic,
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self::Step(error.kind())
    }
}

impl Granted {
    /// How a handler ends whose steps have failed.
    pub(super) fn end_of(&self, failure: &Failure) -> End {
        match failure {
            Failure::Panic => End::Panicked,
            // Now and then somebody settles the record, so that the key becomes free.
            Failure::Step(StepErrorKind::Interrupted) if self.random(4) == 0 => {
                End::With(RecordOutcome::complete(Completion::Unknown))
            }
            Failure::Step(_) | Failure::Body => End::With(RecordOutcome::Release),
        }
    }

    /// Takes all steps, one after the other or at the same time.
    pub(super) async fn take_steps(&self, steps: &Steps) -> Result<(), Failure> {
        if self.random(4) == 0 {
            let [first, second, third] = [REPEATED, ONCE, ASKED].map(|step| self.take_step(steps, step));
            let (first, second, third) = futures_util::join!(first, second, third);
            return first.and(second).and(third);
        }
        for step in [REPEATED, ONCE, ASKED] {
            self.take_step(steps, step).await?;
        }
        Ok(())
    }

    async fn take_step(&self, steps: &Steps, step: usize) -> Result<(), Failure> {
        let faults = self.shared.lock().faults[self.process];
        let has_called = AtomicBool::new(false);
        let body = |_| self.body(step, &has_called);
        let run = steps.run::<_, _, StepError>(NAMES[step], body);
        let result: Result<u64, Failure> = match step {
            REPEATED => run.of(&self.key).await,
            ONCE => run.at_most_once().await,
            _ => run.at_most_once().reconcile(|| self.reconcile(step)).await,
        };
        self.lives();
        let world = &mut *self.shared.lock();
        let was_hit = world.faults[self.process] > faults;
        let told = match &result {
            Ok(value) => Ok(*value),
            Err(Failure::Step(kind)) => Err(*kind),
            Err(Failure::Body | Failure::Panic) => return result.map(drop),
        };
        let met = (has_called.load(Ordering::Relaxed), was_hit);
        world.oracle.step_ended(self.key, self.token, step, told, met);
        result.map(drop)
    }

    /// Fails without an effect, or has its effect and then ends, fails or panics.
    async fn body(&self, step: usize, has_called: &AtomicBool) -> Result<u64, Failure> {
        has_called.store(true, Ordering::Relaxed);
        self.shared.lock().oracle.body_called(self.key, self.token, step);
        self.pause().await;
        if self.random(10) == 0 {
            return Err(Failure::Body);
        }
        let value = self.shared.lock().oracle.body_took_effect(self.key, self.token, step);
        self.pause().await;
        match self.random(16) {
            0 => Err(Failure::Body),
            1 => Err(Failure::Panic),
            _ => Ok(value),
        }
    }

    async fn reconcile(&self, step: usize) -> Result<Option<u64>, Failure> {
        self.pause().await;
        if self.random(8) == 0 {
            return Err(Failure::Body);
        }
        Ok(self.shared.lock().oracle.reconciled(self.key, self.token, step))
    }

    async fn pause(&self) {
        let time = match self.random(16) {
            // For longer than a lease, so that an attempt that cannot renew its lease is superseded in a step.
            0..5 => self.random(LONGEST_PAUSE.as_secs() * 1_000),
            5..8 => self.random(1_500),
            8..10 => self.random(50),
            _ => 0,
        };
        sleep(Duration::from_millis(time)).await;
        self.lives();
    }

    fn random(&self, bound: u64) -> u64 {
        self.shared.lock().random.below(bound)
    }

    /// Ends the handler if its process is dead.
    fn lives(&self) {
        let is_dead = self.shared.lock().oracle.is_dead(self.process);
        if is_dead {
            resume_unwind(Box::new("the process is dead"));
        }
    }
}
