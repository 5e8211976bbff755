//! What a service would do with a request now, and why.
//!
//! Owns the prediction, from the request, the options of the operation and the record that is stored. It uses the functions by which a
//! service decides, and changes nothing. Does not own where the record is read, nor how a request is written down.
//!
//! A prediction says nothing of what the service does before and after: its extractors, its limit on running handlers, and the answer
//! that a handler gives.

mod guesses;

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use idem_core::{Decision, Fingerprint, IdempotencyKey, Record, RecordKey, Scope, decide};
use serde_json::Value;

pub use self::guesses::{Change, Guess, differences, guess};
use crate::fingerprint::{self, ComparedPath, RequestHash};
use crate::identity::{self, Caller};
use crate::operation::OperationName;
use crate::policy::{Compared, InFlight, Policy};
use crate::problem::{IdempotencyProblem, ProblemDetails};
use crate::settings::Settings;
use crate::stored;

/// How an operation is guarded, as far as it decides what a request gets.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The name of the operation in record keys, such as `POST /orders/{id}`.
    pub operation: String,
    /// Who owns the key space of the request.
    pub scope: Scope,
    /// The natural key, if the operation does not take the key from a header.
    pub natural_key: Option<IdempotencyKey>,
    /// How long an answer is kept.
    pub ttl: Duration,
    /// The options of the operation, with the defaults of the application.
    pub policy: Policy,
    /// What is compared, if it is a value of the handler's.
    pub value: Option<ComparedValue>,
    /// The settings of the application.
    pub settings: Settings,
}

/// The value of `fingerprint = …` for one request.
#[derive(Clone, Debug)]
pub struct ComparedValue {
    /// Its serde form.
    pub value: Value,
    /// The values of the path parameters, in their order; `None` if no route matches, and for a layer.
    pub parameters: Option<Vec<String>>,
}

/// What a service would do with a request now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forecast {
    /// The handler runs, and its answer is recorded.
    Runs(Begins),
    /// The handler runs without a claim: the request has no key, and needs none.
    RunsUnprotected,
    /// The stored answer is sent again.
    Replays(StatusCode),
    /// The request waits for the answer of the attempt in flight, whose lease has this long left unless it is renewed.
    Waits(Duration),
    /// 202: an equal request is in flight, and the operation accepts the duplicate.
    Accepted(Duration),
    /// The problem that is sent in place of the handler's answer.
    Refused(IdempotencyProblem),
}

/// In which attempt a handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Begins {
    /// Nothing is stored under the key.
    Anew,
    /// The lease of an earlier attempt has lapsed. This is the number of the new attempt.
    AfterCrash(u32),
    /// An earlier attempt has ended without an outcome, and its steps are kept. This is the number of the new attempt.
    WithSteps(u32),
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(Begins::Anew) => f.write_str("runs: nothing is stored under the key"),
            Self::Runs(Begins::AfterCrash(attempt)) => {
                write!(f, "runs: the lease of an earlier attempt has lapsed; attempt {attempt}")
            }
            Self::Runs(Begins::WithSteps(attempt)) => {
                write!(
                    f,
                    "runs: an earlier attempt has ended, and its steps are kept; attempt {attempt}"
                )
            }
            Self::RunsUnprotected => f.write_str("runs without protection: it has no key, and needs none"),
            Self::Replays(status) => write!(f, "replays: the stored answer has status {}", status.as_u16()),
            Self::Waits(left) => write!(f, "waits: an equal request is in flight; its lease has {left:?} left"),
            Self::Accepted(left) => {
                write!(
                    f,
                    "is accepted with 202: an equal request is in flight; its lease has {left:?} left"
                )
            }
            Self::Refused(problem) => {
                write!(f, "is refused with {} {}", problem.status().as_u16(), problem.code())
            }
        }
    }
}

impl Guard {
    /// A guard with the default options, for requests to `operation` that belong to `scope`.
    #[must_use]
    pub fn new(operation: impl Into<String>, scope: Scope) -> Self {
        Self {
            operation: operation.into(),
            scope,
            natural_key: None,
            ttl: Duration::from_hours(24),
            policy: Policy::new(),
            value: None,
            settings: Settings::default(),
        }
    }

    /// The record that the request belongs to; `None` if it has no key and needs none.
    ///
    /// # Errors
    ///
    /// The problem that the client is told of: the key is missing or malformed.
    pub fn record_key<B>(&self, request: &Request<B>) -> Result<Option<RecordKey>, ProblemDetails> {
        let mut lines = request.headers().get_all(self.policy.header()).iter();
        let key_lines: [Option<&HeaderValue>; 2] = [lines.next(), lines.next()];
        let caller = Caller {
            scope: &self.scope,
            is_scope_from_client: false,
            natural_key: self.natural_key.as_ref(),
            key_lines,
        };
        identity::record_key(
            &self.settings,
            &OperationName::Given(&self.operation),
            &self.policy,
            &caller,
        )
    }

    /// The fingerprint of the request, as it is stored and compared.
    #[must_use]
    pub fn fingerprint(&self, request: &Request<Bytes>) -> Fingerprint {
        let (method, uri) = (request.method(), request.uri());
        let plain = match (&self.value, self.policy.fingerprint()) {
            (Some(ComparedValue { value, parameters }), _) => {
                let count = parameters.as_ref().map(Vec::len);
                let mut values = parameters.iter().flatten().map(String::as_str);
                let path = match count {
                    Some(count) => ComparedPath::Parameters(count, &mut values),
                    None => ComparedPath::Whole,
                };
                fingerprint::of_value(method, uri, path, value.clone())
            }
            (None, Compared::Nothing) => Fingerprint::NONE,
            (None, _) => {
                let mut hash = RequestHash::new(method, uri, request.headers());
                hash.update(request.body());
                fingerprint::of_request(hash.finish())
            }
        };
        self.settings.fingerprint(plain)
    }

    /// What the service does with the request if `record` is stored under its key at the time `now`.
    ///
    /// ```
    /// use std::time::SystemTime;
    ///
    /// use http::Request;
    /// use idem_core::Scope;
    /// use idem_http::IdempotencyProblem;
    /// use idem_http::why::{Begins, Forecast, Guard};
    ///
    /// let guard = Guard::new("POST /orders", Scope::of("acme"));
    /// let request = Request::post("/orders").header("idempotency-key", "k-1").body("{}".into())?;
    /// assert_eq!(guard.forecast(&request, None, SystemTime::now()), Forecast::Runs(Begins::Anew));
    ///
    /// let without_key = Request::post("/orders").body("{}".into())?;
    /// let refused = Forecast::Refused(IdempotencyProblem::KeyMissing);
    /// assert_eq!(guard.forecast(&without_key, None, SystemTime::now()), refused);
    /// # Ok::<(), http::Error>(())
    /// ```
    #[must_use]
    pub fn forecast(&self, request: &Request<Bytes>, record: Option<Record>, now: SystemTime) -> Forecast {
        match self.record_key(request) {
            Err(details) => return Forecast::Refused(details.problem),
            Ok(None) => return Forecast::RunsUnprotected,
            Ok(Some(_)) => {}
        }
        let Some(record) = record else {
            return Forecast::Runs(Begins::Anew);
        };
        let policy = self.policy.durations(self.ttl);
        match decide(record, &self.fingerprint(request), &policy, || now) {
            Decision::Replay(payload) => match stored::decode(payload) {
                Some(answer) => Forecast::Replays(answer.status()),
                None => Forecast::Refused(IdempotencyProblem::BackendUnavailable),
            },
            Decision::NotStored => Forecast::Refused(IdempotencyProblem::ResponseNotStored),
            Decision::Mismatch => Forecast::Refused(IdempotencyProblem::KeyReused),
            Decision::InFlight(left) => match self.policy.in_flight() {
                InFlight::Wait => Forecast::Waits(left),
                InFlight::Accept => Forecast::Accepted(left),
                _ => Forecast::Refused(IdempotencyProblem::InFlight),
            },
            Decision::TakeOver(claim) => Forecast::Runs(Begins::AfterCrash(claim.attempt.saturating_add(1))),
            Decision::Continue(claim) => Forecast::Runs(Begins::WithSteps(claim.attempt.saturating_add(1))),
            Decision::OutcomeUnknown => Forecast::Refused(IdempotencyProblem::OutcomeUnknown),
        }
    }
}
