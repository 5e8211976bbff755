//! What a running task knows of itself.
//!
//! Owns the handle, and how code below the task finds it. Does not own the steps: [`idem_core::steps`].

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use idem_core::key::unrepeatable_key;
use idem_core::steps::{AtLeastOnce, Step, StepRun};
use idem_core::{Claim, RecordKey, StepError};

tokio::task_local! {
    static CURRENT: Execution;
}

/// One run of a task. Clones are of the same run.
#[derive(Clone, Debug)]
pub struct Execution(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` where the task runs unprotected.
    under: Option<Under>,
    steps: idem_core::Steps,
}

#[derive(Debug)]
struct Under {
    record: RecordKey,
    attempt: u32,
    began_at: SystemTime,
}

impl Execution {
    pub(crate) fn under(record: &RecordKey, claim: &Claim, steps: idem_core::Steps) -> Self {
        let under = Under {
            record: record.clone(),
            attempt: claim.attempt,
            began_at: claim.began_at,
        };
        let under = Some(under);
        Self(Arc::new(Inner { under, steps }))
    }

    pub(crate) fn unprotected() -> Self {
        let (under, steps) = (None, idem_core::Steps::unprotected());
        Self(Arc::new(Inner { under, steps }))
    }

    /// Makes it the [`current`](Self::current) one of `work`.
    pub(crate) fn around<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// The run that the calling code belongs to; `None` outside of a task, and in a task of tokio that it has spawned.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The record's key: operation, scope and key. `None` where the task runs unprotected.
    #[must_use]
    pub fn record_key(&self) -> Option<&str> {
        self.0.under.as_ref().map(|under| under.record.as_str())
    }

    /// Which run of this task it is: 1, and one more each time after a process died, or stalled beyond its lease.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.under.as_ref().map_or(1, |under| under.attempt)
    }

    /// When the first attempt began, by the clock of the process that ran it; `None` where the task runs unprotected.
    #[must_use]
    pub fn began_at(&self) -> Option<SystemTime> {
        self.0.under.as_ref().map(|under| under.began_at)
    }

    /// A key for a call that the task makes itself, in the form of a UUID: the same for every attempt, and different for each label
    /// and each task. Where the task runs unprotected it is new each time.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        match &self.0.under {
            Some(under) => under.record.downstream_key(label),
            None => unrepeatable_key(label),
        }
    }

    /// The durable steps of the task: what one attempt has finished, the next one does not do again.
    ///
    /// Over a backend that keeps no steps, every step is an error.
    #[must_use]
    pub fn steps(&self) -> Steps {
        Steps(self.0.steps.clone())
    }
}

/// The durable steps of a task.
#[derive(Clone, Debug)]
pub struct Steps(idem_core::Steps);

impl Steps {
    /// Runs a step once for all attempts of this task: await the result. [`idem_core::steps`] has the rules.
    ///
    /// `body` gets the [`Step`], which has a key for the call that it makes. Its error must be one that a [`StepError`] converts
    /// into.
    pub fn run<B, F>(&self, name: &'static str, body: B) -> StepRun<'_, B, AtLeastOnce, StepError>
    where
        B: FnOnce(Step) -> F,
    {
        self.0.run(name, body)
    }

    /// Whether the step `name` is recorded as done, by this attempt or an earlier one.
    ///
    /// # Errors
    ///
    /// If the backend cannot be asked, or another attempt has taken the task over.
    pub async fn is_recorded(&self, name: &'static str) -> Result<bool, StepError> {
        self.0.is_recorded(name).await
    }
}
