//! One answer, and what it is: the handler's own, a replay, a refusal of ours, or an acceptance.
//!
//! Owns how these are told apart: by what the response carries in this process, and by what is on the wire else, so that a
//! service that passes requests on to another process can be tested too.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::response::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use crate::IdempotencyProblem;
use crate::problem::Accepted;

/// Marks replays.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Marks answers that could not be recorded.
const STORED: HeaderName = HeaderName::from_static("idempotency-stored");

/// A whole answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) head: Parts,
    pub(super) body: Bytes,
}

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The handler's, which ran for it.
    Handlers,
    Replay,
    Refusal(IdempotencyProblem),
    /// A 202 to a duplicate whose first one is on its way.
    Accepted,
}

impl Answer {
    pub(super) fn kind(&self) -> Kind {
        if self.says(&REPLAYED, "true") {
            Kind::Replay
        } else if let Some(problem) = self.problem() {
            Kind::Refusal(problem)
        } else if self.head.extensions.get::<Accepted>().is_some() {
            Kind::Accepted
        } else {
            Kind::Handlers
        }
    }

    /// Whether it has the form of an acceptance, which a handler's own answer may have as well.
    pub(super) fn looks_accepted(&self) -> bool {
        self.head.status == StatusCode::ACCEPTED && self.head.headers.contains_key(RETRY_AFTER) && self.body.is_empty()
    }

    pub(super) fn says_not_stored(&self) -> bool {
        self.says(&STORED, "false")
    }

    /// The `detail` of a problem, where it has one.
    pub(super) fn detail(&self) -> Option<String> {
        self.member("detail")
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        Response::from_parts(self.head, self.body)
    }

    fn problem(&self) -> Option<IdempotencyProblem> {
        let extension = self.head.extensions.get().copied();
        let is_problem_json = || self.says(&CONTENT_TYPE, "application/problem+json");
        extension.or_else(|| {
            let code = is_problem_json().then(|| self.member("code"))??;
            let mut problems = IdempotencyProblem::ALL.into_iter();
            problems.find(|problem| problem.code() == code && problem.status() == self.head.status)
        })
    }

    fn member(&self, name: &str) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        body.get(name)?.as_str().map(str::to_owned)
    }

    fn says(&self, header: &HeaderName, value: &str) -> bool {
        self.head.headers.get(header).is_some_and(|said| said == value)
    }
}
