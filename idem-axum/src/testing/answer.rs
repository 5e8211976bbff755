//! One answer, and what it is: the handler's own, a replay, a refusal of ours, or an acceptance.
//!
//! Owns how these are told apart: by the markers, which are on the wire, so that a service that passes requests on to another
//! process can be tested too.

use axum::http::header::RETRY_AFTER;
use axum::http::response::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;

use idem_http::IdempotencyProblem;
use idem_http::markers::{self, CODE, NOT_STORED, REPLAYED};

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
        } else if self.head.headers.get(CODE) == Some(&markers::ACCEPTED) {
            Kind::Accepted
        } else {
            Kind::Handlers
        }
    }

    /// Whether it says that the same request is worth another try: idem has made it in a service behind the handler, or the
    /// handler says when to come back.
    pub(super) fn says_not_yet(&self) -> bool {
        let comes_back = self.head.status.is_client_error() && self.head.headers.contains_key(RETRY_AFTER);
        comes_back || self.head.headers.get(CODE) == Some(&markers::NOT_FINAL)
    }

    pub(super) fn says_not_stored(&self) -> bool {
        self.says(&NOT_STORED, "false")
    }

    /// The `detail` of a problem, where it has one.
    pub(super) fn detail(&self) -> Option<String> {
        self.member("detail")
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        Response::from_parts(self.head, self.body)
    }

    fn problem(&self) -> Option<IdempotencyProblem> {
        let code = self.head.headers.get(CODE).map(HeaderValue::as_bytes)?;
        let mut problems = IdempotencyProblem::ALL.iter().copied();
        problems.find(|problem| problem.code().as_bytes() == code)
    }

    fn member(&self, name: &str) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        body.get(name)?.as_str().map(str::to_owned)
    }

    fn says(&self, header: &HeaderName, value: &str) -> bool {
        self.head.headers.get(header).is_some_and(|said| said == value)
    }
}
