//! The options whose values are words.
//!
//! Owns the words and their defaults. Does not own which of them holds for a handler: [`Policy`](super::Policy).

use http::StatusCode;

/// What a duplicate gets while the first one runs (IDEM-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InFlight {
    /// 409 with `Retry-After`.
    #[default]
    Reject,
    /// The first one's answer, or 409 when that takes longer than `wait`.
    Wait,
    /// 202 with `Retry-After`.
    Accept,
}

/// What tells an equal request from another one under its key (IDEM-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compared {
    /// Method, path with query, media type, content encoding and body; `fingerprint = "request"`.
    #[default]
    Request,
    /// Nothing: all requests under a key are equal; `fingerprint = "none"`.
    Nothing,
}

/// What becomes of a request whose key cannot be checked, since the backend is away (IDEM-13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnOutage {
    /// 503, and the handler does not run.
    #[default]
    Refuse,
    /// The handler runs unprotected.
    Run,
}

/// Which answers are stored (IDEM-11). The others release their key, so that a retry runs again. A
/// [`Verdict`](crate::Verdict) beside an answer beats this option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoredAnswers {
    /// Every answer except 408, 425, 429, 5xx, and a 4xx with `Retry-After`.
    #[default]
    Final,
    /// 2xx and 3xx.
    Success,
    /// Every answer, 5xx included. What an idem service behind the handler has answered in place of its own is not stored
    /// all the same, for that is never final (IDEM-18).
    All,
}

impl StoredAnswers {
    /// Whether an answer with this status is stored, as far as the status says.
    #[must_use]
    pub fn include(self, status: StatusCode) -> bool {
        let passing = [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        match self {
            // What is left out says that the operation could not be carried out this time.
            Self::Final => !status.is_server_error() && !passing.contains(&status),
            Self::Success => status.is_success() || status.is_redirection(),
            Self::All => true,
        }
    }
}
