//! Why a task has no result, and what to tell the broker.
//!
//! Owns the cases and their verdicts. Does not own how a broker is told: each has words of its own.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use idem_core::{BackendError, StepError, StepErrorKind};

use crate::execution::Execution;

/// How much later a message is worth another try whose task was refused for no fault of it.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// What to tell the broker of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is done, by this delivery or an earlier one: acknowledge it.
    Acknowledge,
    /// It is not done: have it delivered again, after this long.
    Redeliver(Duration),
    /// No delivery of it will succeed, or nobody knows whether it has had its effect: put it aside for people to look at.
    SetAside,
}

impl Verdict {
    /// To be delivered again when the broker sees fit.
    pub const REDELIVER: Self = Self::Redeliver(Duration::ZERO);
}

/// The error of a task.
///
/// Its [`verdict`](Self::verdict) decides two things at once: what the broker is told, and whether the error is final. An error that
/// says [`Verdict::Redeliver`] releases the task, and the next delivery runs it again. Any other verdict is recorded with the error's
/// text, and later deliveries get [`RefusedKind::Failed`] with the same verdict, for the task's `ttl`.
#[diagnostic::on_unimplemented(
    message = "the error of a task says what to tell the broker, and `{Self}` does not",
    label = "its error is not `idem_task::TaskError`",
    note = "implement `From<Refused>` and `TaskError` for it; `Refused` itself is one, and so is `Box<dyn Error + Send + Sync>`"
)]
pub trait TaskError: From<Refused> + fmt::Display {
    /// What to tell the broker. Return [`Refused::verdict`] for an error that was made of a [`Refused`].
    fn verdict(&self) -> Verdict;
}

#[diagnostic::do_not_recommend]
impl TaskError for Refused {
    fn verdict(&self) -> Verdict {
        Refused::verdict(self)
    }
}

/// Each error is delivered again after a second, unless it is a [`Refused`].
#[diagnostic::do_not_recommend]
impl TaskError for Box<dyn Error + Send + Sync> {
    fn verdict(&self) -> Verdict {
        self.downcast_ref::<Refused>()
            .map_or(Verdict::Redeliver(SOON), Refused::verdict)
    }
}

/// What to tell the broker of a message whose task ended with `result`.
pub fn verdict<T, E: TaskError>(result: &Result<T, E>) -> Verdict {
    result.as_ref().err().map_or(Verdict::Acknowledge, E::verdict)
}

/// Why a task has no result.
#[derive(Clone)]
pub struct Refused {
    kind: RefusedKind,
    /// Whether it is the error of a task inside of another one.
    is_inner: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The class of a [`Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedKind {
    /// Another delivery of the same message runs. This much later, it is worth another try.
    InFlight(Duration),
    /// The key belongs to another message.
    KeyReused,
    /// The scope or the key is empty or too long.
    KeyInvalid,
    /// An attempt began, and it is not known whether it had its effect. The task's settings do not allow another one; or the attempt
    /// ran unprotected, and its commit was not answered.
    OutcomeUnknown,
    /// An earlier delivery ended with an error that is final. Its text is the [`source`](Error::source).
    Failed(Verdict),
    /// The task ran, and its result was too large to be recorded, or had no JSON form.
    ResultNotKept,
    /// The task ran, and its recorded result cannot be read as the type that is asked for now.
    ResultUnreadable,
    /// The backend cannot be asked. This delivery did not run.
    BackendUnavailable,
    /// As many tasks run as the engine allows. This delivery did not run.
    TooBusy,
    /// The task panicked. The next delivery runs it again; under `AfterCrash::Refuse` it is [`OutcomeUnknown`](Self::OutcomeUnknown).
    Panicked,
    /// The task takes a transaction that its engine cannot give, such as one in another database, or its transaction outlived it. The
    /// log says which. Nothing is recorded, and nothing is committed.
    NotConfigured,
    /// The task's transaction could not begin, because the pool has no connection or the database cannot be reached.
    TransactionUnavailable,
    /// The task ran, and the database refused the commit of its transaction. Nothing is recorded, and nothing is committed. The log
    /// names the cause.
    RolledBack {
        /// Whether the same commit may succeed the next time.
        may_pass: bool,
    },
    /// The task ran, and it is not known whether its transaction was committed. The next delivery finds out: it gets the result, or
    /// runs the task.
    NotCommitted,
    /// A step has no result. The [`source`](Error::source) names the step. Where it is set aside, the steps are kept, whatever error
    /// the task makes of it: once it is settled, a later delivery goes on.
    Step(StepErrorKind),
}

impl Refused {
    pub(crate) fn new(kind: RefusedKind) -> Self {
        Self {
            kind,
            is_inner: Execution::current().is_some(),
            source: None,
        }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The class of it.
    #[must_use]
    pub fn kind(&self) -> RefusedKind {
        self.kind
    }

    /// What to tell the broker.
    ///
    /// | kind | verdict |
    /// |---|---|
    /// | `InFlight` | redeliver, after the time that it has |
    /// | `BackendUnavailable`, `TooBusy`, `TransactionUnavailable`, `NotCommitted` | redeliver, after a second |
    /// | `Panicked`, `NotConfigured`, `RolledBack` that may pass | redeliver, after a second. Nothing here counts them: set a limit on deliveries at the broker, or count them |
    /// | `ResultNotKept`, `ResultUnreadable` | acknowledge: the task has run. Inside of another task: set aside, because that one lacks the result |
    /// | `Failed` | as its error said |
    /// | `Step`: interrupted, lost, unreadable, diverged, or its result not kept | set aside |
    /// | any other `Step` | redeliver, after a second |
    /// | `KeyReused`, `KeyInvalid`, `OutcomeUnknown`, `RolledBack` that will not pass | set aside |
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.kind {
            RefusedKind::InFlight(after) => Verdict::Redeliver(after),
            RefusedKind::BackendUnavailable
            | RefusedKind::TooBusy
            | RefusedKind::Panicked
            | RefusedKind::NotConfigured
            | RefusedKind::TransactionUnavailable
            | RefusedKind::RolledBack { may_pass: true }
            | RefusedKind::NotCommitted => Verdict::Redeliver(SOON),
            // A task around it that needs the result is not done, and never will be.
            RefusedKind::ResultNotKept | RefusedKind::ResultUnreadable if self.is_inner => Verdict::SetAside,
            RefusedKind::ResultNotKept | RefusedKind::ResultUnreadable => Verdict::Acknowledge,
            RefusedKind::Failed(verdict) => verdict,
            RefusedKind::Step(kind) => verdict_of_step(kind),
            RefusedKind::KeyReused
            | RefusedKind::KeyInvalid
            | RefusedKind::OutcomeUnknown
            | RefusedKind::RolledBack { may_pass: false } => Verdict::SetAside,
        }
    }
}

/// People have to look at a step that was begun or done and has no result. Every other one may succeed in the next attempt, or after
/// the next deploy.
fn verdict_of_step(kind: StepErrorKind) -> Verdict {
    match kind {
        StepErrorKind::Interrupted
        | StepErrorKind::Lost
        | StepErrorKind::Diverged
        | StepErrorKind::Unreadable
        | StepErrorKind::ResultNotKept => Verdict::SetAside,
        _ => Verdict::Redeliver(SOON),
    }
}

impl From<BackendError> for Refused {
    fn from(error: BackendError) -> Self {
        Self::new(RefusedKind::BackendUnavailable).with_source(error)
    }
}

impl From<StepError> for Refused {
    fn from(error: StepError) -> Self {
        Self::new(RefusedKind::Step(error.kind())).with_source(error)
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            RefusedKind::InFlight(_) => "another delivery of this task is running",
            RefusedKind::KeyReused => "the key was used for another message",
            RefusedKind::KeyInvalid => "the task has no valid key",
            RefusedKind::OutcomeUnknown => "an attempt began, and whether it had its effect is not known",
            RefusedKind::Failed(_) => "an earlier delivery failed for good",
            RefusedKind::ResultNotKept => "the task has run, and its result was not kept",
            RefusedKind::ResultUnreadable => "the task has run, and its result cannot be read",
            RefusedKind::BackendUnavailable => "the task did not run, because its key cannot be checked",
            RefusedKind::TooBusy => "the task did not run, because as many run as are allowed",
            RefusedKind::Panicked => "the task panicked",
            RefusedKind::NotConfigured => "the task takes a transaction that it cannot be given",
            RefusedKind::TransactionUnavailable => "the transaction of the task could not begin",
            RefusedKind::RolledBack { .. } => "the task ran, and its transaction was rolled back",
            RefusedKind::NotCommitted => "the task ran, and it is not known whether its transaction was committed",
            RefusedKind::Step(_) => "a step of the task has no result",
        })
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
