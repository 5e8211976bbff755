//! Durable steps: what an attempt has finished, its successor does not do again.
//!
//! Owns the steps of one attempt: which bodies are called, and what is recorded of them. Does not own where steps are stored:
//! [`StepBackend`] has the contract. Nor what becomes of them at the end of the attempt: the engine parks or ends the record.
//!
//! | the step is recorded | `at_most_once` | what happens |
//! |---|---|---|
//! | not at all | no | the body is called; `Ok` is recorded, `Err` is not |
//! | not at all | yes | the start is recorded, then as above |
//! | as done | | its result is returned |
//! | as done without its result | | [`StepErrorKind::ResultNotKept`] |
//! | as started | with `reconcile` | `Some` is recorded and returned; `None` means that it did not happen: the body is called |
//! | as started | without | [`StepErrorKind::Interrupted`] |
//! | with another input | | [`StepErrorKind::Diverged`] |

mod attempt;
mod backend;
mod error;
mod prepared;
mod recorded;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::Claim;
use crate::inspect::{StepState, StepView};

pub(crate) use self::attempt::Attempt;
pub use self::attempt::{StepLimits, is_step_name};
pub use self::backend::{RecordedSteps, StepBackend, StepStore};
pub use self::error::{StepError, StepErrorKind};
pub use self::prepared::{LookedUp, PreparedStep, StepRecord};
pub use self::run::{AtLeastOnce, AtMostOnce, Mode, Reconciled, Step, StepRun};

/// Whether a recorded step says only that its body may have begun.
#[cfg(test)]
pub(crate) fn is_start(step: &Bytes) -> bool {
    let recorded = recorded::Recorded::decode(step);
    recorded.is_some_and(|step| step.progress == recorded::Progress::Started)
}

impl StepView {
    /// What an operator sees of a recorded step.
    pub(crate) fn of((name, step): &(String, Bytes)) -> Self {
        let recorded = recorded::Recorded::decode(step);
        let attempt = recorded.as_ref().map(|recorded| recorded.attempt);
        let state = match recorded.map(|recorded| recorded.progress) {
            Some(recorded::Progress::Started) => StepState::Started,
            Some(recorded::Progress::Done(result)) => StepState::Done(result),
            Some(recorded::Progress::DoneWithout) => StepState::DoneWithoutResult,
            None => StepState::Unreadable,
        };
        let name = name.clone();
        Self { name, attempt, state }
    }
}

/// A step that an operator says has happened with this result, over what is `recorded` of it.
pub(crate) fn done_by_operator(recorded: Option<&Bytes>, attempt: u32, result: &Bytes) -> Bytes {
    let recorded = recorded.and_then(recorded::Recorded::decode);
    let (attempt, input) = recorded.map_or((attempt, None), |recorded| (recorded.attempt, recorded.input));
    let progress = recorded::Progress::Done(result.clone());
    let done = recorded::Recorded {
        attempt,
        input,
        progress,
    };
    done.encode()
}

/// The steps of one attempt. Clones share them.
///
/// [`Run::steps`](crate::Run::steps) makes it. Without a claim there is nothing to record under, and every body is called:
/// [`unprotected`](Self::unprotected).
#[derive(Clone, Debug)]
pub struct Steps(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    Recorded(Box<Attempt>),
    /// Only the names are checked.
    Unprotected(attempt::Names),
    /// Nothing guards the handler.
    Unguarded,
}

impl Steps {
    pub(crate) fn of(attempt: Attempt) -> Self {
        Self(Arc::new(Kind::Recorded(Box::new(attempt))))
    }

    /// The steps of a handler that runs without a claim: every body is called, and nothing is recorded.
    #[must_use]
    pub fn unprotected() -> Self {
        Self(Arc::new(Kind::Unprotected(attempt::Names::default())))
    }

    /// The steps of a handler that nothing guards: every step is [`StepErrorKind::NotConfigured`].
    #[must_use]
    pub fn unguarded() -> Self {
        Self(Arc::new(Kind::Unguarded))
    }

    pub(crate) fn recorded(&self) -> Option<&Attempt> {
        match &*self.0 {
            Kind::Recorded(attempt) => Some(attempt),
            Kind::Unprotected(_) | Kind::Unguarded => None,
        }
    }

    /// Checks the name of a step and takes it.
    fn take_name(&self, name: &'static str) -> Result<(), StepError> {
        match &*self.0 {
            Kind::Recorded(attempt) if attempt.keeps_steps() => attempt.names().take(name, attempt.limits().most),
            Kind::Unprotected(names) => names.take(name, usize::MAX),
            Kind::Recorded(_) | Kind::Unguarded => Err(StepError::new(StepErrorKind::NotConfigured, name)),
        }
    }

    /// The claim of the attempt as it is now: with steps, if the attempt has tried to record one. `None` without a claim.
    #[must_use]
    pub fn claim(&self) -> Option<Claim> {
        self.recorded().map(Attempt::claim)
    }

    /// Whether a step of this attempt cannot go on until somebody settles it: it was interrupted, its record cannot be read, has another
    /// input or no result, or is lost. What ends such an attempt should not complete the record, so that its steps stay.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.recorded().is_some_and(Attempt::is_unsettled)
    }

    /// The number of this attempt: 1, and one more each time that the request is run again.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.recorded().map_or(1, |attempt| attempt.claim().attempt)
    }

    /// Whether the step `name` is recorded as done, by this attempt or an earlier one.
    ///
    /// # Errors
    ///
    /// [`StepErrorKind::Unavailable`], [`StepErrorKind::Superseded`], [`StepErrorKind::Lost`] or [`StepErrorKind::Unreadable`].
    pub async fn is_recorded(&self, name: &'static str) -> Result<bool, StepError> {
        match self.recorded() {
            Some(attempt) => attempt.is_done(name).await,
            None => Ok(false),
        }
    }

    /// Runs a step once for all attempts of this request: await the result.
    ///
    /// `body` is called unless the step is recorded. Its `Ok` is recorded in its serde form, as JSON, and renews the lease. Its `Err`
    /// passes through and is not recorded. What the engine says instead of a result is a [`StepError`], converted by `W` into the
    /// body's own error.
    pub fn run<B, F, W>(&self, name: &'static str, body: B) -> StepRun<'_, B, AtLeastOnce, W>
    where
        B: FnOnce(Step) -> F,
    {
        StepRun::new(self, name, body)
    }
}
