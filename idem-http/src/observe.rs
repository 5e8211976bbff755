//! The outcomes of requests in HTTP.
//!
//! Owns which answer of idem's belongs to which outcome. Does not own the outcomes: [`idem_core::observation`].

pub use idem_core::observation::{Observation, RequestOutcome, describe};

use crate::problem::IdempotencyProblem;

impl From<IdempotencyProblem> for RequestOutcome {
    /// The outcome of a request that was refused.
    fn from(problem: IdempotencyProblem) -> Self {
        match problem {
            IdempotencyProblem::KeyMissing => Self::KeyMissing,
            IdempotencyProblem::KeyInvalid => Self::KeyInvalid,
            IdempotencyProblem::TooLarge => Self::BodyRefused,
            IdempotencyProblem::KeyReused => Self::Mismatch,
            IdempotencyProblem::InFlight => Self::InFlight,
            IdempotencyProblem::OutcomeUnknown => Self::OutcomeUnknown,
            IdempotencyProblem::ResponseNotStored => Self::ResponseNotStored,
            IdempotencyProblem::BackendUnavailable => Self::BackendUnavailable,
            IdempotencyProblem::TooBusy => Self::TooBusy,
            IdempotencyProblem::RolledBack { .. } => Self::RolledBack,
            IdempotencyProblem::NotCommitted => Self::NotCommitted,
            IdempotencyProblem::NotConfigured => Self::NotConfigured,
        }
    }
}

/// What a client gets in place of the handler's answer; `None` where the handler runs.
#[must_use]
pub fn answer_of_idem(outcome: RequestOutcome) -> Option<&'static str> {
    match outcome {
        RequestOutcome::Replayed | RequestOutcome::Waited => Some("a replay"),
        RequestOutcome::Mismatch => Some("422 key-reused"),
        RequestOutcome::InFlight => Some("409 in-flight"),
        RequestOutcome::Accepted => Some("202"),
        RequestOutcome::OutcomeUnknown => Some("409 outcome-unknown"),
        RequestOutcome::ResponseNotStored => Some("409 response-not-stored"),
        RequestOutcome::BackendUnavailable => Some("503 backend-unavailable"),
        RequestOutcome::TooBusy => Some("503 too-busy"),
        RequestOutcome::KeyMissing => Some("400 key-missing"),
        RequestOutcome::KeyInvalid => Some("400 key-invalid"),
        RequestOutcome::NotConfigured => Some("500 not-configured"),
        RequestOutcome::BodyRefused => Some("413, or 400 if the body broke off"),
        _ => None,
    }
}
