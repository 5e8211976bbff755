//! The answers idem gives in place of the handler: RFC 9457 problem details with a stable `code`.
//!
//! Owns codes, statuses and texts. Nothing stored is ever in them (IDEM-3, IDEM-9).

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::body::Body;
use crate::markers;

/// Why idem answered in place of the handler; also in the response's extensions.
///
/// Clients tell these from the application's own errors by the header `Idempotency-Code` or the member `code` of the body,
/// and layers around the handler by the extension. `docs/http.md` shows an example of each.
///
/// ```
/// use http::Response;
/// use idem_http::IdempotencyProblem;
///
/// fn watch_for_reused_keys<B>(response: &Response<B>) {
///     if let Some(IdempotencyProblem::KeyReused) = response.extensions().get() {
///         eprintln!("a client has used a key for two requests");
///     }
/// }
/// # watch_for_reused_keys(&Response::new(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdempotencyProblem {
    /// 400: the operation needs a key and the request has none.
    KeyMissing,
    /// 400: there is a key header, but no well-formed key in it.
    KeyInvalid,
    /// 413: the body of the request is larger than what an idempotency layer compares.
    TooLarge,
    /// 422: another request has used this key.
    KeyReused,
    /// 409: an equal request is still running. Try again later.
    InFlight,
    /// 409: an earlier attempt began, and it is not known whether it had its effect. Look the effect up; do not send the request
    /// again.
    ///
    /// The cause is one of these: under `after_crash = "refuse"`, the attempt's process died, or it panicked or answered a 5xx
    /// other than 501 and 503; its process died, and `max_attempts` or `rerun_within` allows no other attempt; or its answer has
    /// [`Verdict::Unknown`](crate::Verdict::Unknown).
    OutcomeUnknown,
    /// 409: an equal request has run, but its answer was not stored. Look the result up; do not send it again.
    ResponseNotStored,
    /// 503: the backend cannot be asked. This attempt did not run; an earlier one may have. Try again later, under the same key.
    BackendUnavailable,
    /// 503: as many handlers run as the service allows. This attempt did not run; an earlier one may have. Try again later, under
    /// the same key.
    TooBusy,
    /// 500 or 503: the handler ran, and everything that it did in its transaction was rolled back. Try again later where it
    /// may pass; it is refused again otherwise.
    RolledBack {
        /// Whether the same may succeed the next time: 503 then.
        may_pass: bool,
    },
    /// 503: the handler ran, and whether what it did in its transaction was committed is not known. Under the same key, a
    /// retry finds out.
    NotCommitted,
    /// 500: the handler is annotated, but the service is not set up for it; the log says what to add.
    NotConfigured,
}

impl IdempotencyProblem {
    /// Each of them.
    pub const ALL: &'static [Self] = &[
        Self::KeyMissing,
        Self::KeyInvalid,
        Self::TooLarge,
        Self::KeyReused,
        Self::InFlight,
        Self::OutcomeUnknown,
        Self::ResponseNotStored,
        Self::BackendUnavailable,
        Self::TooBusy,
        Self::RolledBack { may_pass: false },
        Self::RolledBack { may_pass: true },
        Self::NotCommitted,
        Self::NotConfigured,
    ];

    /// The stable word for the case, as in the member `code`.
    ///
    /// ```
    /// assert_eq!(idem_http::IdempotencyProblem::InFlight.code(), "in-flight");
    /// ```
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::KeyMissing => "key-missing",
            Self::KeyInvalid => "key-invalid",
            Self::TooLarge => "too-large",
            Self::KeyReused => "key-reused",
            Self::InFlight => "in-flight",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::ResponseNotStored => "response-not-stored",
            Self::BackendUnavailable => "backend-unavailable",
            Self::TooBusy => "too-busy",
            Self::RolledBack { .. } => "rolled-back",
            Self::NotCommitted => "not-committed",
            Self::NotConfigured => "not-configured",
        }
    }

    /// The status of the answer, unless the application gives it another one.
    ///
    /// ```
    /// assert_eq!(idem_http::IdempotencyProblem::InFlight.status(), 409);
    /// ```
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::KeyMissing | Self::KeyInvalid => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InFlight | Self::OutcomeUnknown | Self::ResponseNotStored => StatusCode::CONFLICT,
            Self::BackendUnavailable | Self::TooBusy | Self::RolledBack { may_pass: true } | Self::NotCommitted => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::RolledBack { may_pass: false } | Self::NotConfigured => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::KeyMissing => "Idempotency key missing",
            Self::KeyInvalid => "Idempotency key invalid",
            Self::TooLarge => "Request too large",
            Self::KeyReused => "Idempotency key reused",
            Self::InFlight => "Request in flight",
            Self::OutcomeUnknown => "Outcome unknown",
            Self::ResponseNotStored => "Response not stored",
            Self::BackendUnavailable => "Idempotency backend unavailable",
            Self::TooBusy => "Too busy",
            Self::RolledBack { .. } => "Rolled back",
            Self::NotCommitted => "Commit unknown",
            Self::NotConfigured => "Idempotency not configured",
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            Self::KeyMissing => "This operation needs an idempotency key.",
            Self::KeyInvalid => "The idempotency key is not well-formed.",
            Self::TooLarge => "The body of the request is larger than this operation accepts.",
            Self::KeyReused => "This idempotency key was used for another request; use a new key for a new request.",
            Self::InFlight => "An equal request with this idempotency key is still running; try again later.",
            Self::OutcomeUnknown => {
                "An equal request with this idempotency key was started, and what became of it is not known."
            }
            Self::ResponseNotStored => {
                "An equal request with this idempotency key has run, but its response was not stored."
            }
            Self::BackendUnavailable => {
                "This attempt did not run because its key could not be checked; send it again with the same idempotency key."
            }
            Self::TooBusy => {
                "This attempt did not run because the service is busy; send it again with the same idempotency key."
            }
            Self::RolledBack { may_pass: true } => {
                "The request ran, and everything it did in the database was undone; try again later."
            }
            Self::RolledBack { may_pass: false } => {
                "The request ran, and everything it did in the database was undone. The same request will be refused again."
            }
            Self::NotCommitted => {
                "The request ran, and whether it took effect is not known; send it again with the same idempotency key to \
                 find out."
            }
            Self::NotConfigured => "The service is not set up to run this operation.",
        }
    }

    /// When trying again may help, where nothing more is known. A first answer is usually on its way, and an outage short,
    /// so the shortest that the header can say.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::InFlight
            | Self::BackendUnavailable
            | Self::TooBusy
            | Self::RolledBack { may_pass: true }
            | Self::NotCommitted => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// One refused request, as its client is told of it (RFC 9457).
///
/// [`into_response`](Self::into_response) makes `application/problem+json` of it, with the members `type`, `title`, `status`,
/// `detail` and `code`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProblemDetails {
    /// Which case it is; says status and code.
    pub problem: IdempotencyProblem,
    /// The case in a few words, the same for each occurrence.
    pub title: &'static str,
    /// What is wrong with this request and what to do, in one or two sentences.
    pub detail: Cow<'static, str>,
    /// The address of the documentation of this case, where the settings have a base.
    pub documentation: Option<String>,
    /// When trying again may help, where it may; `Retry-After` has it in seconds, rounded up.
    pub retry_after: Option<Duration>,
}

impl ProblemDetails {
    /// A problem; `documentation` is the page of the API that explains problems.
    #[must_use]
    pub fn new(problem: IdempotencyProblem, documentation: Option<&str>) -> Self {
        Self {
            problem,
            title: problem.title(),
            detail: Cow::Borrowed(problem.detail()),
            documentation: documentation.map(|base| format!("{base}#{}", problem.code())),
            retry_after: problem.retry_after(),
        }
    }

    /// Sets when trying again may help.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Sets what is wrong with this very request.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The same for a request that ran without a claim. Nothing invites a second run, because nothing would tell it from the first.
    #[must_use]
    pub fn of_unprotected(mut self) -> Self {
        self.retry_after = None;
        self.with_detail(
            "The request ran, and whether it took effect is not known. It was not protected, so sending it again may carry it out \
             twice.",
        )
    }

    /// Its response: `application/problem+json`.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        self.shaped_by(|details| json(details.problem.status(), &details.body()))
    }

    /// Its response by `shape`, and what that left unset.
    pub fn shaped_by(self, shape: impl FnOnce(Self) -> Response<Body>) -> Response<Body> {
        let (problem, headers) = (self.problem, self.headers());
        let mut response = shape(self);
        if response.status() == StatusCode::OK {
            *response.status_mut() = problem.status();
        }
        // The markers are not the shape's to set.
        markers::remove(response.headers_mut());
        for (name, value) in headers {
            if let Some(name) = name {
                response.headers_mut().entry(name).or_insert(value);
            }
        }
        response.extensions_mut().insert(problem);
        response
    }

    /// What its response says in its body.
    #[must_use]
    pub fn body(&self) -> serde_json::Value {
        serde_json::json!({
            "type": self.documentation.as_deref().unwrap_or("about:blank"),
            "title": self.title,
            "status": self.problem.status().as_u16(),
            "detail": self.detail,
            "code": self.problem.code(),
        })
    }

    /// What its response says outside its body.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(markers::CODE, HeaderValue::from_static(self.problem.code()));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds(wait));
        }
        let link = self
            .documentation
            .as_ref()
            .map(|page| format!("<{page}>; rel=\"describedby\""));
        // A base that is no header value is still in the body.
        if let Some(link) = link.and_then(|link| link.try_into().ok()) {
            headers.insert(LINK, link);
        }
        headers
    }
}

/// In the extensions of the 202 that tells a duplicate that the first one is on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted;

/// The 202 that tells a duplicate that the first one is on its way, and when to ask again.
#[must_use]
pub fn accepted(retry_after: Duration) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, seconds(retry_after));
    headers.insert(markers::CODE, markers::ACCEPTED);
    response.extensions_mut().insert(Accepted);
    response
}

/// The 400 to a request whose body broke off before it could be compared.
#[must_use]
pub fn body_failed() -> Response<Body> {
    let detail = "The body of the request broke off.";
    without_code(StatusCode::BAD_REQUEST, markers::BODY_FAILED, Some(detail))
}

/// The 503 to a request whose handler did not run, because the service that runs it was not ready in time.
#[must_use]
pub fn not_ready() -> Response<Body> {
    let detail = "The service is busy, and the request did not run; try again later.";
    let mut response = without_code(StatusCode::SERVICE_UNAVAILABLE, markers::NOT_READY, Some(detail));
    let soon = seconds(Duration::from_secs(1));
    response.headers_mut().insert(RETRY_AFTER, soon);
    response
}

/// The 500 that stands for a panic of the handler.
#[must_use]
pub fn panicked() -> Response<Body> {
    without_code(StatusCode::INTERNAL_SERVER_ERROR, markers::PANICKED, None)
}

/// An answer that is no problem of idempotency, so that its body has no `code`.
fn without_code(status: StatusCode, marker: HeaderValue, detail: Option<&str>) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or_default();
    let mut body = serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16() });
    if let Some(detail) = detail {
        body["detail"] = detail.into();
    }
    let mut response = json(status, &body);
    response.headers_mut().insert(markers::CODE, marker);
    response
}

/// As `Retry-After` says it: whole seconds, and a part of one counts as one.
fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    whole.max(1).into()
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}
