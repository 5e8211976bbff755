//! Why the record of an answer was not written, with the right answer to the request.

use std::error::Error;
use std::fmt;

use axum::response::{IntoResponse, Response};

use super::OfJoint;

/// Why the record of an answer was not written. As a response, it is the right answer to the request.
#[derive(Debug)]
pub struct JointError {
    kind: JointErrorKind,
    answer: Box<Response>,
}

/// The class of a [`JointError`]. After each of them, roll back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JointErrorKind {
    /// The answer is one that is not kept, by its status or its verdict. As a response, the error is that answer.
    NotKept,
    /// Another attempt has taken the claim over. As a response, the error is 409 `in-flight`: a retry gets the other attempt's
    /// answer.
    Superseded,
    /// The body of the answer could not be read, or is larger than `max_response`. As a response, the error is 500
    /// `not-configured`.
    Answer,
    /// The handler lacks `#[idempotent]`. As a response, the error is 500 `not-configured`.
    NotConfigured,
}

impl JointError {
    pub(super) fn new(kind: JointErrorKind, answer: Response) -> Self {
        let answer = Box::new(answer);
        Self { kind, answer }
    }

    /// Marks the answer as one of a `Joint`.
    pub(super) fn marked(mut self) -> Self {
        self.answer.extensions_mut().insert(OfJoint);
        self
    }

    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> JointErrorKind {
        self.kind
    }
}

impl IntoResponse for JointError {
    fn into_response(self) -> Response {
        *self.answer
    }
}

impl fmt::Display for JointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            JointErrorKind::NotKept => "the answer is not kept, so it has no record",
            JointErrorKind::Superseded => "another attempt has taken the claim over",
            JointErrorKind::Answer => "the answer could not be read, or is too large to be recorded",
            JointErrorKind::NotConfigured => "nothing would record the answer",
        })
    }
}

impl Error for JointError {}
