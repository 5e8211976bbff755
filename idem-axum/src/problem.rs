//! Problems as responses of axum's.
//!
//! Owns the type that users see and shape. Codes, statuses and texts are `idem-http`'s.

use std::ops::Deref;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use idem_http::IdempotencyProblem;

/// One refused request, as its client is told of it (RFC 9457).
///
/// As a response it is `application/problem+json` with the members `type`, `title`, `status`, `detail` and `code`. Its fields
/// are those of [`idem_http::ProblemDetails`]: `problem`, `title`, `detail`, `documentation` and `retry_after`. An
/// application with an error format of its own shapes it by
/// [`Idempotency::with_problem_response`](crate::Idempotency::with_problem_response).
///
/// ```
/// use axum::Json;
/// use axum::response::{IntoResponse as _, Response};
/// use idem_axum::{IdempotencyProblem, ProblemDetails};
///
/// fn shape(details: ProblemDetails) -> Response {
///     match details.problem {
///         // As it would have been.
///         IdempotencyProblem::BackendUnavailable => details.into_response(),
///         problem => {
///             let error = serde_json::json!({ "code": problem.code(), "message": details.detail });
///             Json(serde_json::json!({ "errors": [error] })).into_response()
///         }
///     }
/// }
/// # let _setting = |idempotency: idem_axum::Idempotency| idempotency.with_problem_response(shape);
/// ```
#[derive(Clone, Debug)]
pub struct ProblemDetails(pub(crate) idem_http::ProblemDetails);

impl ProblemDetails {
    /// A problem of a service whose documentation is not known.
    pub(crate) fn undocumented(problem: IdempotencyProblem) -> Self {
        Self(idem_http::ProblemDetails::new(problem, None))
    }
}

impl Deref for ProblemDetails {
    type Target = idem_http::ProblemDetails;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        self.0.into_response().map(Body::new)
    }
}
