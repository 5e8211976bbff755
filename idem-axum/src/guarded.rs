//! The extractor that stands in for a handler's last argument.
//!
//! Owns the request up to the claim: it finds the layer, where the attribute names no engine, buffers the body within axum's limit, and lets the argument
//! extract itself from what was buffered. A request that an extractor refuses has claimed nothing (IDEM-10).

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use axum::RequestExt as _;
use axum::body::Body;
use axum::extract::{FromRequest, MatchedPath, OriginalUri, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use crate::pieces::Pieces;
use crate::problem::{IdempotencyProblem, ProblemDetails};
use crate::{Execution, Idempotency};

/// A handler's last argument together with what guards the handler.
///
/// Only the expansion of `#[idempotent]` names this type. A direct call of an annotated function passes
/// [`unguarded(argument)`](unguarded), and its handler runs unguarded.
pub struct Guarded<T, E: EngineSource = FromLayer> {
    guard: Guard<E::Engine>,
    argument: T,
}

/// As the argument that it stands for.
impl<T: fmt::Debug, E: EngineSource> fmt::Debug for Guarded<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.argument.fmt(f)
    }
}

impl<T, E: EngineSource> Guarded<T, E> {
    /// The argument.
    #[cfg(feature = "typed-routing")]
    pub(crate) fn argument(&self) -> &T {
        &self.argument
    }

    /// Takes the two apart.
    pub fn split(self) -> (Guard<E::Engine>, T) {
        (self.guard, self.argument)
    }
}

/// The last argument of an annotated function, for a direct call of it: the handler then runs **unguarded**.
///
/// Nothing is claimed, stored or replayed, and no layer is needed. That is what a unit test of the handler wants. A handler
/// that calls another one this way runs it once for each of its own runs; annotate the outer one if it may be retried.
///
/// A handler without arguments takes `unguarded(())`.
///
/// ```
/// # use idem_axum::idempotent;
/// use idem_axum::unguarded;
///
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn place_order(item: String) -> String {
///     format!("{item} is on its way")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let answer = place_order(unguarded("a pump".to_owned())).await;
/// assert_eq!(answer.status(), 200);
/// # }
/// ```
#[doc(alias = "Guarded")]
pub fn unguarded<T, E: EngineSource>(argument: T) -> Guarded<T, E> {
    let guard = Guard(None);
    Guarded { guard, argument }
}

/// Where a handler's [`Idempotency`] comes from.
pub trait EngineSource {
    /// What is known of it while the arguments are extracted.
    type Engine: Send;

    /// Finds it, or answers in the handler's place.
    ///
    /// # Errors
    ///
    /// The response that says that there is none.
    #[expect(clippy::result_large_err, reason = "axum's rejections are responses")]
    fn find(request: &Request) -> Result<Self::Engine, Response>;

    /// The header that carries the key, where that is known already.
    fn header(engine: &Self::Engine) -> Option<&'static str>;
}

/// From the layer around the route.
#[derive(Debug)]
pub struct FromLayer;

impl EngineSource for FromLayer {
    type Engine = Idempotency;

    fn find(request: &Request) -> Result<Idempotency, Response> {
        let found = request.extensions().get::<Idempotency>().cloned();
        found.ok_or_else(|| {
            tracing::error!(
                method = %request.method(),
                path = request.uri().path(),
                "an #[idempotent] handler was reached without its layer; add `.layer(idempotency.clone())`, with an \
                 `idem_axum::Idempotency`, to the router, after the route"
            );
            ProblemDetails::new(IdempotencyProblem::NotConfigured, None).into_response()
        })
    }

    fn header(engine: &Idempotency) -> Option<&'static str> {
        Some(engine.settings().defaults.header())
    }
}

/// From the layer around the route, for a handler that names a header of its own.
#[derive(Debug)]
pub struct FromLayerByHeader;

impl EngineSource for FromLayerByHeader {
    type Engine = Idempotency;

    fn find(request: &Request) -> Result<Idempotency, Response> {
        FromLayer::find(request)
    }

    fn header(_: &Idempotency) -> Option<&'static str> {
        None
    }
}

/// From an argument of the handler, by the option `engine`.
#[derive(Debug)]
pub struct FromArgument;

impl EngineSource for FromArgument {
    type Engine = ();

    fn find(_: &Request) -> Result<(), Response> {
        Ok(())
    }

    fn header((): &()) -> Option<&'static str> {
        None
    }
}

/// Says in our own words what the expression behind `engine` has to be.
#[diagnostic::on_unimplemented(
    message = "`engine` takes an `Idempotency`, and this is `{Self}`",
    label = "this is no `idem_axum::Idempotency`",
    note = "name the field that has it, such as `engine = app.idempotency`, or leave `engine` out and layer the router"
)]
pub trait GivesEngine {
    /// The engine itself.
    fn engine(&self) -> &Idempotency;
}

impl GivesEngine for Idempotency {
    fn engine(&self) -> &Idempotency {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<T: GivesEngine + ?Sized> GivesEngine for &T {
    fn engine(&self) -> &Idempotency {
        T::engine(self)
    }
}

#[diagnostic::do_not_recommend]
impl<T: GivesEngine + ?Sized> GivesEngine for Arc<T> {
    fn engine(&self) -> &Idempotency {
        T::engine(self)
    }
}

/// What the run needs of the request, or nothing where the function was called directly.
pub struct Guard<E = Idempotency>(pub(crate) Option<Guarding<E>>);

/// Says nothing of the request: its key and its body are not for the logs.
impl<E> fmt::Debug for Guard<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Guard<()> {
    /// Completes the guard of a handler that names its engine.
    #[must_use]
    pub fn with_engine<E: GivesEngine + ?Sized>(self, engine: &E) -> Guard {
        Guard(self.0.map(|guarding| Guarding {
            idempotency: engine.engine().clone(),
            kept: guarding.kept,
        }))
    }
}

pub(crate) struct Guarding<E = Idempotency> {
    pub(crate) idempotency: E,
    /// Boxed, for it is passed through futures that each have room for it.
    pub(crate) kept: Box<Kept>,
}

/// What is known of a request besides what its extractors made of it.
pub(crate) struct Kept {
    pub(crate) method: Method,
    /// As the client sent it, also inside nested routers.
    pub(crate) uri: Uri,
    pub(crate) matched_path: Option<MatchedPath>,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) key_lines: KeyLines,
    pub(crate) body: Bytes,
    /// To be filled in for an argument that asks for it.
    pub(crate) execution: Execution,
    #[cfg(feature = "postgres")]
    pub(crate) transaction: crate::transaction::Slot,
}

/// The header lines that carry the key. A copy of all headers costs more than anything else that is kept of a request.
pub(crate) enum KeyLines {
    /// The first two, for there must not be more than one.
    Known([Option<HeaderValue>; 2]),
    /// They are among these, where the name of the header comes with the operation.
    Among(HeaderMap),
}

impl KeyLines {
    fn of(headers: &HeaderMap, header: Option<&str>) -> Self {
        let Some(name) = header else {
            return Self::Among(headers.clone());
        };
        let mut lines = headers.get_all(name).iter().cloned();
        Self::Known([lines.next(), lines.next()])
    }

    /// Those of the header called `name`.
    pub(crate) fn named(&self, name: &str) -> [Option<&HeaderValue>; 2] {
        match self {
            Self::Known([first, second]) => [first.as_ref(), second.as_ref()],
            Self::Among(headers) => {
                let mut lines = headers.get_all(name).iter();
                [lines.next(), lines.next()]
            }
        }
    }
}

/// Tells axum's inference through which of its own markers `T` extracts.
#[derive(Debug)]
pub struct ViaGuard<M>(std::marker::PhantomData<M>);

impl<S, T, E, M> FromRequest<S, ViaGuard<M>> for Guarded<T, E>
where
    S: Send + Sync,
    T: FromRequest<S, M>,
    E: EngineSource,
{
    type Rejection = Response;

    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for the request twice")]
    fn from_request(mut request: Request, state: &S) -> impl Future<Output = Result<Self, Response>> + Send {
        async move {
            let idempotency = E::find(&request)?;
            let kept = keep(&mut request, E::header(&idempotency)).await?;
            let argument = T::from_request(request, state)
                .await
                .map_err(IntoResponse::into_response)?;
            let guard = Guard(Some(Guarding { idempotency, kept }));
            Ok(Self { guard, argument })
        }
    }
}

/// What does not depend on the argument, compiled once: keeps what the guard needs of a request, and leaves it as its
/// extractor wants to find it.
async fn keep(request: &mut Request, header: Option<&str>) -> Result<Box<Kept>, Response> {
    *request = std::mem::take(request).with_limited_body();
    let body = match collect(std::mem::take(request.body_mut())).await {
        Ok(body) => body,
        Err(error) => return Err(refusal(error).boxed().await),
    };
    // The one that an argument has, or the last one will find.
    let execution = Execution::of(request.extensions_mut());
    #[cfg(feature = "postgres")]
    let transaction = crate::transaction::Slot::of(request.extensions_mut());
    let original = request.extensions().get::<OriginalUri>();
    let kept = Box::new(Kept {
        method: request.method().clone(),
        uri: original.map_or_else(|| request.uri().clone(), |original| original.0.clone()),
        matched_path: request.extensions().get::<MatchedPath>().cloned(),
        content_type: request.headers().get(CONTENT_TYPE).cloned(),
        key_lines: KeyLines::of(request.headers(), header),
        body: body.clone(),
        execution,
        #[cfg(feature = "postgres")]
        transaction,
    });
    *request.body_mut() = Body::from(body);
    Ok(kept)
}

/// All of a body.
async fn collect(mut body: Body) -> Result<Bytes, axum::Error> {
    let mut pieces = Pieces::default();
    while let Some(frame) = body.frame().await {
        // Trailers are not part of it.
        let _trailers = frame?.into_data().map(|data| pieces.push(data));
    }
    Ok(pieces.into())
}

/// axum's own answer to a body that is too large or fails half-way.
async fn refusal(error: axum::Error) -> Response {
    // Limits nest errors in errors, and axum's extractor tells them apart only a few layers deep.
    let mut error = error.into_inner();
    loop {
        match error.downcast::<axum::Error>() {
            Ok(nested) => error = nested.into_inner(),
            Err(cause) => break error = cause,
        }
    }
    let failing = Body::new(StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(error)])));
    match Bytes::from_request(Request::new(failing), &()).await {
        Ok(_empty) => StatusCode::BAD_REQUEST.into_response(),
        Err(rejection) => rejection.into_response(),
    }
}
