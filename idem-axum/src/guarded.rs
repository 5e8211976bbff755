//! The extractor that stands in for a handler's last argument.
//!
//! Owns the request up to the claim: it finds the layer, buffers the body within axum's limit, and lets the argument
//! extract itself from what was buffered. A request that an extractor refuses has claimed nothing (IDEM-10).

use axum::RequestExt as _;
use axum::body::Body;
use axum::extract::{FromRequest, MatchedPath, OriginalUri, Request};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use crate::problem::{IdempotencyProblem, ProblemDetails};
use crate::{Execution, Idempotency};

/// A handler's last argument together with what guards the handler.
///
/// Only the expansion of `#[idempotent]` names this type. A direct call of an annotated function passes
/// `argument.into()`, and its handler runs unguarded.
#[derive(Debug)]
pub struct Guarded<T> {
    guard: Guard,
    argument: T,
}

impl<T> Guarded<T> {
    /// Takes the two apart.
    pub fn split(self) -> (Guard, T) {
        (self.guard, self.argument)
    }
}

impl<T> From<T> for Guarded<T> {
    fn from(argument: T) -> Self {
        let guard = Guard(None);
        Self { guard, argument }
    }
}

/// What the run needs of the request, or nothing where the function was called directly.
#[derive(Debug)]
pub struct Guard(pub(crate) Option<Guarding>);

#[derive(Debug)]
pub(crate) struct Guarding {
    pub(crate) idempotency: Idempotency,
    pub(crate) method: Method,
    /// As the client sent it, also inside nested routers.
    pub(crate) uri: Uri,
    pub(crate) matched_path: Option<MatchedPath>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// To be filled in for an argument that asks for it.
    pub(crate) execution: Execution,
    #[cfg(feature = "postgres")]
    pub(crate) transaction: crate::transaction::Slot,
}

/// Tells axum's inference through which of its own markers `T` extracts.
#[derive(Debug)]
pub struct ViaGuard<M>(std::marker::PhantomData<M>);

impl<S, T, M> FromRequest<S, ViaGuard<M>> for Guarded<T>
where
    S: Send + Sync,
    T: FromRequest<S, M>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let Some(idempotency) = request.extensions().get::<Idempotency>().cloned() else {
            tracing::error!(
                method = %request.method(),
                path = request.uri().path(),
                "an #[idempotent] handler was reached without its layer; add `.layer(idempotency.clone())`, with an \
                 `idem_axum::Idempotency`, to the router, after the route"
            );
            return Err(ProblemDetails::new(IdempotencyProblem::NotConfigured, None).into_response());
        };
        let mut request = request.with_limited_body();
        let body = buffer(std::mem::take(request.body_mut()), state).await?;
        // The one that an argument has, or the last one will find.
        let execution = Execution::of(request.extensions_mut());
        let original = request.extensions().get::<OriginalUri>().cloned();
        let guarding = Guarding {
            idempotency,
            method: request.method().clone(),
            uri: original.map_or_else(|| request.uri().clone(), |original| original.0),
            matched_path: request.extensions().get::<MatchedPath>().cloned(),
            headers: request.headers().clone(),
            body: body.clone(),
            execution,
            #[cfg(feature = "postgres")]
            transaction: crate::transaction::Slot::guarded(request.extensions_mut()),
        };
        *request.body_mut() = Body::from(body);
        let argument = T::from_request(request, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let guard = Guard(Some(guarding));
        Ok(Self { guard, argument })
    }
}

/// All of a body, or axum's own answer to one that is too large or fails half-way.
async fn buffer<S: Send + Sync>(body: Body, state: &S) -> Result<Bytes, Response> {
    let error = match body.collect().await {
        Ok(collected) => return Ok(collected.to_bytes()),
        Err(error) => error,
    };
    // Limits nest errors in errors, and axum's extractor tells them apart only a few layers deep.
    let mut error = error.into_inner();
    loop {
        match error.downcast::<axum::Error>() {
            Ok(nested) => error = nested.into_inner(),
            Err(cause) => break error = cause,
        }
    }
    let failing = Body::new(StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(error)])));
    Bytes::from_request(Request::new(failing), state)
        .await
        .map_err(IntoResponse::into_response)
}
