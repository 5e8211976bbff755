//! What an operator sees of each guarded request or task: a span, a line in the log, a count.
//!
//! Owns the outcomes that they can have, and the span and figure that tell them. An observation travels with its run, so it ends once,
//! also if the client has left. Does not own the engine's own figures and warnings.

mod count;

use std::fmt::Display;

use tracing::{Level, Span, field};

use self::count::Count;
pub use self::count::describe;
use crate::{RecordKey, RunOutcome};

/// The outcome of a guarded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestOutcome {
    /// The handler ran and its answer is kept.
    Executed,
    /// The handler ran in the place of an earlier attempt, whose process died or stalled, or which was parked.
    TookOver,
    /// The handler ran; its answer is one that is not kept, and a retry runs again.
    Released,
    /// The handler ran; its answer is one that is not kept, and its steps are. A retry goes on after them.
    Parked,
    /// The handler ran; its answer is too large to be kept, or broke off.
    NotStored,
    /// The handler ran; the backend failed, and its answer is not recorded yet.
    NotRecorded,
    /// The handler ran beyond its lease, and another attempt took its place.
    Superseded,
    /// The handler ran; what it did in its transaction was rolled back, against its answer.
    RolledBack,
    /// The handler ran; whether what it did was committed is not known.
    NotCommitted,
    /// The handler panicked.
    Panicked,
    /// The handler ran without a claim.
    Unprotected,
    /// The stored answer of an equal request.
    Replayed,
    /// A replay, after a wait for it.
    Waited,
    /// 422: another request has used the key.
    Mismatch,
    /// 409: an equal request is still running.
    InFlight,
    /// 202: an equal request is still running, and its client asks again later.
    Accepted,
    /// 409: an equal request was run, and its outcome is not known.
    OutcomeUnknown,
    /// 409: an equal request has run, and its answer was not stored.
    ResponseNotStored,
    /// 503: the backend failed before the claim was decided.
    BackendUnavailable,
    /// 503: as many handlers run as the service allows.
    TooBusy,
    /// 400: the request has no key.
    KeyMissing,
    /// 400: the key is malformed.
    KeyInvalid,
    /// 500: the service is not set up for the handler.
    NotConfigured,
    /// Its body, which is compared, was too large or broke off.
    BodyRefused,
    /// The handler ran; its answer leaves open whether it had an effect, and retries are refused.
    Ambiguous,
    /// The client left before it was known whether its request would run.
    Abandoned,
}

impl RequestOutcome {
    /// Each of them.
    pub const ALL: &'static [Self] = &[
        Self::Executed,
        Self::TookOver,
        Self::Released,
        Self::Parked,
        Self::NotStored,
        Self::NotRecorded,
        Self::Superseded,
        Self::RolledBack,
        Self::NotCommitted,
        Self::Panicked,
        Self::Unprotected,
        Self::Replayed,
        Self::Waited,
        Self::Mismatch,
        Self::InFlight,
        Self::Accepted,
        Self::OutcomeUnknown,
        Self::ResponseNotStored,
        Self::BackendUnavailable,
        Self::TooBusy,
        Self::KeyMissing,
        Self::KeyInvalid,
        Self::NotConfigured,
        Self::BodyRefused,
        Self::Ambiguous,
        Self::Abandoned,
    ];

    /// The outcome of a request whose run ended with `ended`, as this attempt.
    #[must_use]
    pub fn of_run(ended: RunOutcome, attempt: u32) -> Self {
        match ended {
            RunOutcome::Completed | RunOutcome::Released if attempt > 1 => Self::TookOver,
            RunOutcome::Completed => Self::Executed,
            RunOutcome::Released => Self::Released,
            RunOutcome::Parked => Self::Parked,
            RunOutcome::NotStored => Self::NotStored,
            RunOutcome::NotRecorded => Self::NotRecorded,
            RunOutcome::Superseded => Self::Superseded,
            RunOutcome::RolledBack { .. } => Self::RolledBack,
            RunOutcome::NotCommitted => Self::NotCommitted,
            RunOutcome::Unknown => Self::Ambiguous,
            RunOutcome::Panicked => Self::Panicked,
        }
    }

    /// The word for it in spans, log lines and figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::TookOver => "took_over",
            Self::Released => "released",
            Self::Parked => "parked",
            Self::NotStored => "not_stored",
            Self::NotRecorded => "not_recorded",
            Self::Superseded => "superseded",
            Self::RolledBack => "rolled_back",
            Self::NotCommitted => "not_committed",
            Self::Panicked => "panicked",
            Self::Unprotected => "unprotected",
            Self::Replayed => "replayed",
            Self::Waited => "waited",
            Self::Mismatch => "mismatch",
            Self::InFlight => "in_flight",
            Self::Accepted => "accepted",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::ResponseNotStored => "response_not_stored",
            Self::BackendUnavailable => "backend_unavailable",
            Self::TooBusy => "too_busy",
            Self::KeyMissing => "key_missing",
            Self::KeyInvalid => "key_invalid",
            Self::NotConfigured => "not_configured",
            Self::BodyRefused => "body_refused",
            Self::Ambiguous => "ambiguous",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether it is what happens to most requests, and of interest to none but those who look for one.
    const fn is_usual(self) -> bool {
        matches!(self, Self::Executed | Self::Released | Self::Unprotected)
    }
}

/// What a client gets in place of the handler's answer; `None` where the handler runs.
pub type Instead = fn(RequestOutcome) -> Option<&'static str>;

/// One request under observation, from the extractors to its outcome.
#[derive(Debug)]
pub struct Observation {
    span: Span,
    count: Count,
    record: Option<RecordKey>,
    attempt: u32,
    instead: Option<Instead>,
    is_task: bool,
    ended: bool,
}

impl Observation {
    /// Begins to observe a request for `operation`.
    ///
    /// The span is of the highest level, so that every line that its handler writes has the key, whatever level is
    /// filtered. A filter that names targets has to let errors of this one through.
    pub fn start(operation: &impl Display, label: impl FnOnce() -> String) -> Self {
        let span = tracing::span!(
            Level::ERROR,
            "idempotent",
            operation = field::Empty,
            scope = field::Empty,
            idempotency_key = field::Empty,
            attempt = field::Empty,
            outcome = field::Empty,
            observed = field::Empty,
        );
        // Not above: with tracing's feature `log`, which others may turn on, it would be made for spans that are not shown.
        if !span.is_disabled() {
            span.record("operation", operation.to_string());
        }
        Self {
            span,
            count: Count::new(label),
            record: None,
            attempt: 1,
            instead: None,
            is_task: false,
            ended: false,
        }
    }

    /// Says that it is a task, and not a request: the log then speaks of a task.
    #[must_use]
    pub const fn of_task(mut self) -> Self {
        self.is_task = true;
        self
    }

    /// Says that the service only observes: the handler runs whatever the outcome says, and `instead` tells what a client would get in
    /// place of its answer.
    #[must_use]
    pub const fn observing(mut self, instead: Option<Instead>) -> Self {
        self.instead = instead;
        self
    }

    /// The span that its handler runs in.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// The request has a record key; `labelled` if it may be counted by it.
    pub fn identified(&mut self, record: &RecordKey, labelled: bool) {
        if !self.span.is_disabled() {
            self.span.record("scope", field::display(record.shown_scope()));
            self.span.record("idempotency_key", field::display(record.shown_key()));
        }
        if labelled {
            self.count.label(record);
        }
        self.record = Some(record.clone());
    }

    /// The handler is about to run, as this attempt.
    pub fn runs(&mut self, attempt: u32) {
        self.attempt = attempt;
        self.span.record("attempt", attempt);
    }

    /// The run has ended.
    pub fn ran(self, ended: RunOutcome) {
        if ended == RunOutcome::NotStored && self.instead.is_none() && !self.is_task {
            let _entered = self.span.enter();
            tracing::warn!(
                key = self.shown_key(),
                "the handler's answer is not kept, and its retries get 409 response-not-stored: it is too large (raise \
                 `max_response`, or answer with less), took too long to end, or did not end as announced"
            );
        }
        let outcome = RequestOutcome::of_run(ended, self.attempt);
        self.end(outcome);
    }

    /// The request has ended.
    pub fn end(mut self, outcome: RequestOutcome) {
        self.conclude(outcome);
    }

    /// Also in the lines themselves, for those whose filter leaves out the span.
    fn shown_key(&self) -> Option<field::DisplayValue<impl Display + '_>> {
        self.record.as_ref().map(|record| field::display(record.shown()))
    }

    fn conclude(&mut self, outcome: RequestOutcome) {
        self.ended = true;
        if let Some(instead) = self.instead {
            return self.conclude_observed(outcome, instead(outcome));
        }
        let name = outcome.name();
        self.span.record("outcome", name);
        self.count.one("idem_requests_total", name);
        let _entered = self.span.enter();
        let key = self.shown_key();
        match (self.is_task, outcome.is_usual()) {
            (false, true) => tracing::debug!(key, outcome = name, "an idempotent request has ended"),
            (false, false) => tracing::info!(key, outcome = name, "an idempotent request has ended"),
            (true, true) => tracing::debug!(key, outcome = name, "an idempotent task has ended"),
            (true, false) => tracing::info!(key, outcome = name, "an idempotent task has ended"),
        }
    }
}

impl Observation {
    /// By other names, so that nobody takes what would have happened for what has happened.
    fn conclude_observed(&mut self, outcome: RequestOutcome, instead: Option<&'static str>) {
        let name = outcome.name();
        self.span.record("observed", name);
        self.count.one("idem_observed_requests_total", name);
        let _entered = self.span.enter();
        let key = self.shown_key();
        if let Some(instead) = instead {
            tracing::info!(
                key,
                observed = name,
                instead,
                "an observed request runs; without `observing`, its client would get another answer"
            );
        } else if outcome.is_usual() {
            tracing::debug!(key, observed = name, "an observed request has ended");
        } else {
            tracing::info!(key, observed = name, "an observed request has ended");
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if !self.ended {
            let outcome = if std::thread::panicking() {
                RequestOutcome::Panicked
            } else {
                RequestOutcome::Abandoned
            };
            self.conclude(outcome);
        }
    }
}
