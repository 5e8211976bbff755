//! Why a step has no result.

use std::error::Error;
use std::fmt;

use crate::BackendError;

/// Why a step has no result. The step's own error is not one of them: it passes through.
#[derive(Debug)]
pub struct StepError {
    kind: StepErrorKind,
    name: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The class of a [`StepError`]. "Not run" is about this attempt: the step's body was not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepErrorKind {
    /// Another attempt has taken the claim over. If the body was called, its result is not recorded. End the handler; the client's
    /// retry gets the other attempt's answer.
    Superseded,
    /// An earlier attempt began the step, which may run at most once, and did not record its end. Not run. Whether it took effect
    /// has to be found out: add `reconcile`, or let an operator settle the record.
    Interrupted,
    /// The step is recorded with another input: the handler computed it otherwise this time. Not run.
    Diverged,
    /// The step is done, and its result is not kept: it was too large, or the body of `transact` ended its transaction itself. Not run.
    ResultNotKept,
    /// The recorded step, or its result, cannot be read, because the type has changed or the bytes are of another version. Not run.
    Unreadable,
    /// The backend has lost the steps of earlier attempts. Not run.
    Lost,
    /// The backend failed before the body was called. Not run: a retry may succeed.
    Unavailable,
    /// The body was called, and the backend did not record its result. The next attempt calls the body again, with the same
    /// downstream key; under `at_most_once` it is interrupted.
    NotRecorded,
    /// The transaction of the step was rolled back. `transact` alone has it. The next attempt runs it again.
    RolledBack {
        /// Whether the same commit may succeed the next time. If not, the step has to be mended: a deferred constraint failed, for
        /// example.
        may_pass: bool,
    },
    /// Whether the transaction of the step was committed is not known. `transact` alone has it. The next attempt finds out. If the
    /// body ended its transaction itself, the next attempt has [`ResultNotKept`](Self::ResultNotKept).
    NotCommitted,
    /// The handler has a transaction that the step would wait for: its `Transaction` has begun, or the step is inside of the body of
    /// a `transact`. Not run. Run the steps before `Transaction::begin`, and one after the other.
    InTransaction,
    /// The name was used before in this attempt. Not run.
    NameUsedTwice,
    /// The name is not 1 to 64 ASCII letters, digits, `-` and `_`. Not run.
    NameInvalid,
    /// The attempt has as many steps as it may have. Not run.
    TooMany,
    /// The input has no JSON form. Not run.
    NoSerdeForm,
    /// The handler runs in an engine whose backend keeps no steps, or without the attribute. Not run.
    NotConfigured,
}

impl StepError {
    /// An error of `kind` in the step `name`.
    #[must_use]
    pub fn new(kind: StepErrorKind, name: impl Into<String>) -> Self {
        let (name, source) = (name.into(), None);
        Self { kind, name, source }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(super) fn of_backend(kind: StepErrorKind, name: &str, error: BackendError) -> Self {
        Self::new(kind, name).with_source(error)
    }

    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> StepErrorKind {
        self.kind
    }

    /// The name of the step.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.escape_debug();
        let what = match self.kind {
            StepErrorKind::Superseded => "another attempt has taken the request over",
            StepErrorKind::Interrupted => "it was begun by an earlier attempt, and whether it took effect is not known",
            StepErrorKind::Diverged => "it is recorded with another input",
            StepErrorKind::ResultNotKept => "it is done, and its result is not kept",
            StepErrorKind::Unreadable => "what is recorded of it cannot be read",
            StepErrorKind::Lost => "the backend has lost the steps of earlier attempts",
            StepErrorKind::Unavailable => "the backend failed before it was run",
            StepErrorKind::NotRecorded => "it was run, and its result is not recorded",
            StepErrorKind::RolledBack { may_pass: true } => "its transaction was rolled back",
            StepErrorKind::RolledBack { may_pass: false } => "its transaction was rolled back, and will be again",
            StepErrorKind::NotCommitted => "whether its transaction was committed is not known",
            StepErrorKind::InTransaction => "a transaction of its handler is open, for which it would wait",
            StepErrorKind::NameUsedTwice => "its name was used before in this attempt",
            StepErrorKind::NameInvalid => "its name is not 1 to 64 ASCII letters, digits, `-` and `_`",
            StepErrorKind::TooMany => "the attempt has as many steps as it may have",
            StepErrorKind::NoSerdeForm => "its input has no JSON form",
            StepErrorKind::NotConfigured => "the backend keeps no steps, or nothing guards the handler",
        };
        write!(f, "step `{name}`: {what}")
    }
}

impl Error for StepError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
