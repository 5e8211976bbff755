//! The changes that an operator may make, and their results.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{BackendError, BackendErrorKind, Completion, Token};

/// A change of a record from outside (clauses 26 and 27).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Remove the record. The next request with its key is a first request.
    Forget,
    /// Let the next request with its key run. It continues with the steps that are recorded.
    Rerun {
        /// The token of the parked record: a fresh one.
        token: Token,
        /// From when on `rerun_within` counts: the time of this change, in whole milliseconds.
        began_at: SystemTime,
        /// What became of a step that was interrupted.
        step: Option<StepChange>,
    },
    /// Give every later request with its key this outcome.
    Complete {
        /// The token of the completed record: a fresh one, so that a late owner cannot take the outcome for its own.
        token: Token,
        /// The outcome.
        completion: Completion,
        /// How long it stays, in whole milliseconds.
        ttl: Duration,
    },
}

/// A change of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepChange {
    /// The step has happened: write its bytes over what is there.
    Done {
        /// The name of the step.
        name: String,
        /// The bytes of the step.
        step: Bytes,
    },
    /// The step has not happened: remove it.
    NotDone {
        /// The name of the step.
        name: String,
    },
}

/// The error of a settlement of a record that cannot be read, unless it is the one that clause 25 allows.
///
/// # Errors
///
/// [`BackendErrorKind::Unreadable`]; nothing was changed.
pub fn only_forgotten(settlement: &Settlement, live: LiveClaim) -> Result<(), BackendError> {
    let why = match (settlement, live) {
        (Settlement::Forget, LiveClaim::Force) => return Ok(()),
        (Settlement::Forget, LiveClaim::Refuse) => "so it may be live; forget it by force if no handler runs under it",
        _ => "so it can only be forgotten, by force",
    };
    Err(BackendError::new(BackendErrorKind::Unreadable, why).not_written())
}

/// Whether a claim may be settled whose lease has not lapsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiveClaim {
    /// No: its handler may be running.
    Refuse,
    /// Yes. Its handler may run on, and its outcome is not recorded.
    Force,
}

/// The result of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the record may not be changed"]
pub enum Settled {
    /// The record is settled.
    Applied,
    /// The record is not at the version that was given, or is gone. Nothing was changed.
    Changed,
    /// The claim is live for this long. Nothing was changed.
    Live(Duration),
}

/// The result of one check of a store's setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the check, such as `eviction`.
    pub check: &'static str,
    /// How good it is.
    pub health: Health,
    /// What was found, and what to do about it. It shows no credentials.
    pub text: String,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Health::Good, text)
    }

    /// Records may be lost or calls may fail under some condition.
    #[must_use]
    pub fn warning(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Health::Warning, text)
    }

    /// Calls fail, or records are being lost.
    #[must_use]
    pub fn failing(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Health::Failing, text)
    }

    /// The check could not be made, for example because the user lacks a permission.
    #[must_use]
    pub fn unchecked(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Health::Unchecked, text)
    }

    fn new(check: &'static str, health: Health, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { check, health, text }
    }
}

/// How good a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All is well.
    Good,
    /// The check could not be made.
    Unchecked,
    /// Records may be lost or calls may fail under some condition.
    Warning,
    /// Calls fail, or records are being lost.
    Failing,
}
