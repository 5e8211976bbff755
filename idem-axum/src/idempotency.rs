//! What an application sets up once: a backend, and the layer that gives it to annotated handlers.

mod observing;
mod operating;
mod privacy;
mod running;
mod steps;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Extension;
use axum::http::header::HeaderName;
use axum::middleware::AddExtension;
use axum::response::IntoResponse;
use idem_core::{Backend, Engine, Owner};
use idem_http::settings::{KeyFormat, ProblemResponse};
use idem_http::{Body, Policy, Settings, Setup};
use tower_layer::Layer;

use crate::memory_notice::MemoryNotice;
use crate::problem::ProblemDetails;

/// Makes annotated handlers of a router safe to retry.
///
/// Layer it over the routes whose handlers carry `#[idempotent]`, and [`drain`](Idempotency::drain) it when the server
/// has stopped. Clones share the backend and the running handlers.
///
/// ```
/// use axum::{Router, routing::post};
/// use idem_axum::{Idempotency, MemoryBackend, idempotent};
///
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn place_order() -> &'static str {
///     "placed"
/// }
///
/// # #[tokio::main]
/// # async fn main() {
/// let idempotency = Idempotency::new(MemoryBackend::new());
/// let app: Router = Router::new()
///     .route("/orders", post(place_order))
///     .layer(idempotency.clone());
/// // axum::serve(listener, app).with_graceful_shutdown(signal).await?;
/// idempotency.drain().await;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Idempotency(Arc<Parts>);

/// Behind one pointer: every request has a clone.
#[derive(Clone, Debug)]
struct Parts {
    engine: Engine,
    settings: Arc<Settings>,
    memory_notice: Arc<MemoryNotice>,
    /// A handler takes a `Transaction` or a `Joint` that it cannot be given, as a request has shown.
    #[cfg(feature = "transaction")]
    has_unfit_handler: Arc<AtomicBool>,
    /// A handler takes `Steps` that this backend does not keep, as a request has shown.
    lacks_steps: Arc<AtomicBool>,
}

impl AsRef<Engine> for Idempotency {
    /// The engine, for tasks beside the handlers (`idem-task`).
    fn as_ref(&self) -> &Engine {
        &self.0.engine
    }
}

impl Idempotency {
    /// Keeps records in `backend`.
    ///
    /// With the feature `metrics`, install the recorder before: the figures are described to it here.
    ///
    /// The first handler that runs starts a thread, `idem-leases`. If handlers block all threads of a runtime, its timers do not
    /// fire; the thread then wakes that runtime, so that leases are renewed all the same. The thread sleeps while no renewal is
    /// due. It ends when the last clone is dropped and the last outcome is recorded.
    pub fn new(backend: impl Backend) -> Self {
        idem_http::observe::describe();
        let engine = Engine::new(backend);
        Self(Arc::new(Parts {
            #[cfg(feature = "transaction")]
            has_unfit_handler: Arc::default(),
            lacks_steps: Arc::default(),
            memory_notice: Arc::new(MemoryNotice::new(engine.is_in_process())),
            engine,
            settings: Arc::default(),
        }))
    }

    /// Sets the options that handlers have whose attributes leave them open, in place of those set before.
    ///
    /// The attribute beats them, and they beat what is built in. They are read by each request, so one handler may be
    /// below two layers whose defaults differ.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use idem_axum::{Idempotency, InFlight, MemoryBackend, Policy, idempotent};
    ///
    /// /// A duplicate waits, as all of this application do.
    /// #[idempotent(ttl = "24h", scope = global)]
    /// async fn place_order() {}
    ///
    /// /// A duplicate is refused, as the attribute says.
    /// #[idempotent(ttl = "24h", scope = global, in_flight = "reject")]
    /// async fn cancel_order() {}
    ///
    /// let defaults = Policy::new().with_in_flight(InFlight::Wait);
    /// let app: Router = Router::new()
    ///     .route("/orders", post(place_order).delete(cancel_order))
    ///     .layer(Idempotency::new(MemoryBackend::new()).with_defaults(defaults));
    /// ```
    #[must_use]
    pub fn with_defaults(mut self, defaults: Policy) -> Self {
        self.settings_mut().defaults = defaults;
        self
    }

    /// Sets how long a single backend call may take; one second where nothing is set.
    ///
    /// A request whose claim takes longer is answered with 503 and its handler does not run (IDEM-13).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        let parts = Arc::make_mut(&mut self.0);
        parts.engine = parts.engine.clone().with_deadline(deadline);
        self
    }

    /// Sets how many handlers may run at once, of all operations together. Without it, there is no limit.
    ///
    /// A request that would run and finds as many running gets 503 `too-busy` with `Retry-After`. It has claimed nothing, so its
    /// retry may run anywhere. It may itself be a retry whose earlier attempt died. Replays, and refusals of duplicates, never
    /// count.
    ///
    /// A handler counts until it ends, although its client has left. That is the difference from a concurrency limit in a layer
    /// outside, which ends with the client: 1,000 clients that give up and call again would be 1,000 handlers. Handlers that run
    /// without a claim end with their client, so bound these by such a layer.
    ///
    /// ```
    /// use idem_axum::{Idempotency, MemoryBackend};
    ///
    /// let idempotency = Idempotency::new(MemoryBackend::new()).with_max_in_flight(64);
    /// ```
    ///
    /// # Panics
    ///
    /// When `most` is zero.
    #[must_use]
    pub fn with_max_in_flight(mut self, most: usize) -> Self {
        let parts = Arc::make_mut(&mut self.0);
        parts.engine = parts.engine.clone().with_max_in_flight(most);
        self
    }

    /// Sets the name of this process in its records, for logs and operators. Without it, that is the host's name and the
    /// process's number.
    ///
    /// A name of more than 32 bytes is cut at its start. A control character, such as a line break, becomes `_`.
    #[must_use]
    pub fn with_owner(mut self, owner: impl AsRef<str>) -> Self {
        let parts = Arc::make_mut(&mut self.0);
        parts.engine = parts.engine.clone().with_owner(Owner::new(owner.as_ref()));
        self
    }

    /// Sets the page that documents the API's use of idempotency keys.
    ///
    /// Problem responses then point at it: `type` becomes `base#code`, and a `Link` header with `rel="describedby"`
    /// says the same. Without it `type` is `about:blank`.
    #[must_use]
    pub fn with_documentation(mut self, base: impl Into<String>) -> Self {
        self.settings_mut().documentation = Some(base.into().into());
        self
    }

    /// Refuses keys that are not RFC 9651 Strings, as the draft for the `Idempotency-Key` header wants them: `"k-1"`, in
    /// quotation marks.
    ///
    /// Without it a bare value is accepted too, and `k-1` and `"k-1"` are one key.
    ///
    /// ```
    /// use idem_axum::{Idempotency, MemoryBackend};
    ///
    /// let idempotency = Idempotency::new(MemoryBackend::new()).with_strict_keys();
    /// ```
    #[must_use]
    pub fn with_strict_keys(mut self) -> Self {
        self.settings_mut().strict_keys = true;
        self
    }

    /// Sets what a key looks like, beyond 1 to 255 printable ASCII characters.
    ///
    /// `check` gets each key without its quotation marks. What it refuses is answered with 400 `key-invalid`, whose
    /// `detail` is the error; an error without a word leaves the usual one. Natural keys (`key = …`) are the handler's own
    /// and not checked.
    ///
    /// ```
    /// use idem_axum::{Idempotency, MemoryBackend};
    ///
    /// fn is_uuid(key: &str) -> Result<(), &'static str> {
    ///     let is_digit = |(at, byte): (usize, u8)| match at {
    ///         8 | 13 | 18 | 23 => byte == b'-',
    ///         _ => byte.is_ascii_hexdigit(),
    ///     };
    ///     if key.len() == 36 && key.bytes().enumerate().all(is_digit) {
    ///         return Ok(());
    ///     }
    ///     Err("The idempotency key is not a UUID.")
    /// }
    ///
    /// let idempotency = Idempotency::new(MemoryBackend::new()).with_key_format(is_uuid);
    /// ```
    #[must_use]
    pub fn with_key_format<F, E>(mut self, check: F) -> Self
    where
        F: Fn(&str) -> Result<(), E> + Send + Sync + 'static,
        E: Display,
    {
        self.settings_mut().key_format = Some(KeyFormat::new(check));
        self
    }

    /// Sets the headers of answers that are not stored, in place of those set before.
    ///
    /// The client of the first request gets them, and a replay lacks them. Those of the connection, and `Date`, are
    /// never stored.
    ///
    /// ```
    /// use axum::http::header::{HeaderName, SET_COOKIE};
    /// use idem_axum::{Idempotency, MemoryBackend};
    ///
    /// let idempotency = Idempotency::new(MemoryBackend::new())
    ///     .with_unstored_headers([SET_COOKIE, HeaderName::from_static("x-trace-id")]);
    /// ```
    #[must_use]
    pub fn with_unstored_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.settings_mut().unstored_headers = names.into_iter().collect();
        self
    }

    /// Sets what problem responses look like, for an API with an error format of its own.
    ///
    /// `shape` makes the response of one refused request. If it leaves the status at 200, the problem's own status is used,
    /// so that a refusal never looks like a success; `Retry-After` and `Link` are added where it does not set them. The header
    /// `Idempotency-Code` is set in any case, and the [`IdempotencyProblem`](crate::IdempotencyProblem) is in the response's
    /// extensions. As a response, [`ProblemDetails`] is what would have been sent.
    ///
    /// It is not asked about the 202 of `in_flight = "accept"`, which has no body, nor about the 500 of a panic, nor where
    /// the layer itself is missing.
    ///
    /// `docs/layers.md` says what a layer that writes the bodies of errors loses on a replay, and what to do in place of it.
    ///
    /// ```
    /// use axum::Json;
    /// use idem_axum::{Idempotency, MemoryBackend};
    ///
    /// let idempotency = Idempotency::new(MemoryBackend::new()).with_problem_response(|details| {
    ///     let error = serde_json::json!({ "code": details.problem.code(), "message": details.detail });
    ///     Json(serde_json::json!({ "errors": [error] }))
    /// });
    /// ```
    #[must_use]
    pub fn with_problem_response<F, R>(mut self, shape: F) -> Self
    where
        F: Fn(ProblemDetails) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.settings_mut().problem_response = Some(ProblemResponse::new(move |details| {
            shape(ProblemDetails(details)).into_response().map(Body::new)
        }));
        self
    }

    /// Adds the idempotency key as the label `key` to the figure `idem_requests_total`.
    ///
    /// Every key is a time series of its own then, and stays one in this process until it ends: millions of keys fill the
    /// memory of the process and of the server that collects the figures. It is for a test environment, or for hours in
    /// which an incident is looked into; spans and log lines have the key in any case.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn with_key_label(mut self) -> Self {
        self.settings_mut().key_label = true;
        self
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.0.settings
    }

    pub(crate) fn memory_notice(&self) -> &MemoryNotice {
        &self.0.memory_notice
    }

    fn settings_mut(&mut self) -> &mut Settings {
        Arc::make_mut(&mut Arc::make_mut(&mut self.0).settings)
    }
}

impl Setup for Idempotency {
    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn settings(&self) -> &Arc<Settings> {
        &self.0.settings
    }
}

impl<S> Layer<S> for Idempotency {
    type Service = AddExtension<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Extension(self.clone()).layer(inner)
    }
}
