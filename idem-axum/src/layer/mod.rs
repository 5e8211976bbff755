//! The layer form: idempotency for a whole service, without an attribute.
//!
//! Owns the configuration. Scopes are in [`scope`], the way of a request in [`service`], and the call of the inner service in
//! [`handler`].

mod handler;
mod remembered;
mod scope;
mod service;

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::http::Method;
use axum::http::request::Parts;
use idem_http::{Operation, Policy, StoredAnswers};
use tower_layer::Layer;

pub use self::scope::{NoScope, RequestScope, Scoped};
pub use self::service::IdempotencyService;
pub(crate) use self::service::LayerRun;
use self::service::Shared;
use crate::Idempotency;

/// Makes a whole service safe to retry: an axum router, a hyper service, a proxy; any tower service of HTTP.
///
/// Everything inside of the layer is one handler to it. What inner layers add (a session's cookie, the commit of a unit of
/// work, an error's body) is part of the recorded answer, and runs to its end when the client leaves.
///
/// ```
/// use std::time::Duration;
///
/// use axum::extract::Request;
/// use axum::http::StatusCode;
/// use axum::middleware::{Next, from_fn};
/// use axum::response::Response;
/// use axum::{Router, routing::post};
/// use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend};
///
/// #[derive(Clone)]
/// struct CurrentUser {
///     tenant: String,
/// }
///
/// async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
///     let user = request.headers().get("authorization").ok_or(StatusCode::UNAUTHORIZED)?;
///     let tenant = user.to_str().map_err(|_| StatusCode::UNAUTHORIZED)?.to_owned();
///     request.extensions_mut().insert(CurrentUser { tenant });
///     Ok(next.run(request).await)
/// }
///
/// let idempotency = Idempotency::new(MemoryBackend::new());
/// let layer = IdempotencyLayer::new(idempotency, Duration::from_hours(24))
///     .scope_extension(|user: &CurrentUser| user.tenant.clone());
/// let app: Router = Router::new()
///     .route("/orders", post(|| async { "placed" }))
///     .layer(layer)
///     .layer(from_fn(authenticate)); // outermost: it says who calls
/// ```
///
/// Without a scope it is no layer, and does not compile:
///
/// ```compile_fail,E0277
/// # use std::time::Duration;
/// # use axum::{Router, routing::post};
/// # use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend};
/// let layer = IdempotencyLayer::new(Idempotency::new(MemoryBackend::new()), Duration::from_hours(24));
/// let app: Router = Router::new().route("/orders", post(|| async {})).layer(layer);
/// ```
///
/// | | the layer | the attribute |
/// |---|---|---|
/// | which requests | POST and PATCH, or those that [`when`](Self::when) chooses; the others pass and need no key | those to the handler |
/// | `scope` | what a layer outside has found out: [`scope_extension`](Self::scope_extension), [`scope`](Self::scope) | an argument of the handler |
/// | `key` | the header | the header, or an expression |
/// | `fingerprint` | the request, or nothing | the request, an expression, or nothing |
/// | default of `store`, which a [`Verdict`](crate::Verdict) in the extensions of an answer beats | `success`, because extractors run after the claim and a 4xx of theirs would be kept | `final` |
/// | the request's body | is read before the claim, up to [`with_body_limit`](Self::with_body_limit); none is read where nothing is compared | is read by the handler's last argument |
/// | `Transaction` | is not given to handlers inside | is |
/// | `OpenAPI` | is not described | is described |
///
/// An annotated handler inside of the layer has a record of its own, with its own scope and options, and works as it does
/// without the layer. Each of its requests then costs two records; the log says so once.
///
/// The layer keeps its records under the name `layer METHOD /route`, or [`with_name`](Self::with_name).
#[derive(Clone)]
pub struct IdempotencyLayer<S = NoScope> {
    idempotency: Idempotency,
    operation: Operation,
    when: Arc<When>,
    body_limit: u64,
    /// The log has said that an annotated handler is inside.
    has_warned: Arc<AtomicBool>,
    scope: S,
}

/// Chooses requests.
type When = dyn Fn(&Parts) -> bool + Send + Sync;

impl IdempotencyLayer {
    /// The largest request body, in bytes, where nothing is set: 2 MiB, as in axum.
    pub const DEFAULT_BODY_LIMIT: u64 = 2 * 1024 * 1024;

    /// A layer that keeps records by `idempotency`, and replays completed answers for `ttl`. It still needs a scope.
    ///
    /// # Panics
    ///
    /// When `ttl` is below 100 milliseconds or above ten years.
    #[must_use]
    pub fn new(idempotency: Idempotency, ttl: Duration) -> Self {
        let _checked = idem_core::ClaimPolicy::new(ttl);
        let operation = Operation {
            ttl,
            name: None,
            policy: Policy::new(),
        };
        Self {
            idempotency,
            operation,
            when: Arc::new(|head| matches!(head.method, Method::POST | Method::PATCH)),
            body_limit: Self::DEFAULT_BODY_LIMIT,
            has_warned: Arc::default(),
            scope: NoScope,
        }
    }

    /// Takes the scope from an extension of the request, which a layer outside has set.
    ///
    /// A request without the extension is answered with 500 `not-configured`, and nothing runs.
    #[must_use]
    pub fn scope_extension<T, D>(self, scope: impl Fn(&T) -> D + Send + Sync + 'static) -> IdempotencyLayer<Scoped>
    where
        T: Send + Sync + 'static,
        D: Display,
    {
        self.scope(move |head| head.extensions.get::<T>().map(&scope))
    }

    /// Takes the scope from the head of the request.
    ///
    /// A request for which there is none is answered with 500 `not-configured`, and nothing runs. Take what has been
    /// authenticated: a scope that a client can choose keeps no clients apart.
    #[must_use]
    pub fn scope<D: Display>(
        self,
        scope: impl Fn(&Parts) -> Option<D> + Send + Sync + 'static,
    ) -> IdempotencyLayer<Scoped> {
        self.scoped(Scoped::by(move |head| {
            scope(head).map(|scope| idem_core::Scope::of(&scope))
        }))
    }

    /// Lets all callers share one key space, as in a service with one trusted caller.
    #[must_use]
    pub fn scope_global(self) -> IdempotencyLayer<Scoped> {
        self.scoped(Scoped::by(|_| Some(idem_core::Scope::global())))
    }

    fn scoped(self, scope: Scoped) -> IdempotencyLayer<Scoped> {
        let Self {
            idempotency,
            operation,
            when,
            body_limit,
            has_warned,
            scope: NoScope,
        } = self;
        IdempotencyLayer {
            idempotency,
            operation,
            when,
            body_limit,
            has_warned,
            scope,
        }
    }
}

impl<S> IdempotencyLayer<S> {
    /// Sets which requests are guarded; POST and PATCH where nothing is set. The others pass untouched.
    ///
    /// A GET with an `Upgrade` header, and CONNECT, pass in any case. The path is the one that the client asked for, also inside of
    /// a nested router.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend};
    ///
    /// let layer = IdempotencyLayer::new(Idempotency::new(MemoryBackend::new()), Duration::from_hours(24))
    ///     .when(|request| request.method == "POST" && request.uri.path().starts_with("/orders"))
    ///     .scope_global();
    /// ```
    #[must_use]
    pub fn when(mut self, when: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.when = Arc::new(when);
        self
    }

    /// Sets the options, by the same names as in the attribute.
    ///
    /// What is left open is as the [defaults](Idempotency::with_defaults) of the application say; `store` is `success` where
    /// they do not say either.
    #[must_use]
    pub const fn with_policy(mut self, policy: Policy) -> Self {
        self.operation.policy = policy;
        self
    }

    /// Sets the name of the operation in stored keys, for all requests to the layer; `layer METHOD /route` where nothing is
    /// set.
    ///
    /// Requests to different routes are then one operation: a key may be used for one of them. Method, path and query are
    /// compared also with `fingerprint = "none"`.
    #[must_use]
    pub const fn with_name(mut self, name: &'static str) -> Self {
        self.operation.name = Some(name);
        self
    }

    /// Sets the largest request body, in bytes. A larger one is answered with 413 `too-large`, and nothing runs.
    ///
    /// It holds where the body is compared, so that it is read before the claim.
    #[must_use]
    pub const fn with_body_limit(mut self, bytes: u64) -> Self {
        self.body_limit = bytes;
        self
    }
}

impl<S, K: RequestScope> Layer<S> for IdempotencyLayer<K> {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let defaults = self.idempotency.settings().defaults;
        let built_in = Policy::new().with_store(StoredAnswers::Success);
        let policy = self.operation.policy.or(defaults).or(built_in);
        let operation = Operation {
            policy,
            ..self.operation
        };
        IdempotencyService::new(
            inner,
            Shared {
                idempotency: self.idempotency.clone(),
                operation: Arc::new(operation),
                when: self.when.clone(),
                body_limit: self.body_limit,
                scope: self.scope.scoped().clone(),
                has_warned: self.has_warned.clone(),
            },
        )
    }
}

impl<S> fmt::Debug for IdempotencyLayer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyLayer")
            .field("operation", &self.operation)
            .field("body_limit", &self.body_limit)
            .finish_non_exhaustive()
    }
}
