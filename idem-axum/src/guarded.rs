//! The extractor that stands in for a handler's last argument.
//!
//! Owns the request up to the claim: it finds the layer, where the attribute names no engine, and lets the argument extract
//! itself from a request whose body tells us what is read of it. A request that an extractor refuses has claimed nothing
//! (IDEM-10).

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse as _, Response};
use idem_http::{Compared, answer};

use crate::Idempotency;
use crate::bounds::EngineValue;
use crate::captured::{CapturedRequest, HandlerFacts, capture, path_parameters};
use crate::engine_source::{Compares, EngineSource, FromLayer};

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
/// Nothing is claimed, stored or replayed, and no layer is needed. Use it in unit tests of a handler, and where one handler
/// calls another. There the inner handler runs each time the outer one does: if clients may retry the outer one, annotate it
/// as well.
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

/// What the run needs of the request, or nothing where the function was called directly.
pub struct Guard<E = Idempotency>(pub(crate) Option<GuardParts<E>>);

/// Says nothing of the request: its key and its body are not for the logs.
impl<E> fmt::Debug for Guard<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Guard<()> {
    /// Completes the guard of a handler that names its engine.
    #[must_use]
    pub fn with_engine<E: EngineValue + ?Sized>(self, engine: &E) -> Guard {
        Guard(self.0.map(|parts| GuardParts {
            idempotency: engine.engine().clone(),
            request: parts.request,
        }))
    }
}

/// A captured request, and the engine that guards it.
pub(crate) struct GuardParts<E = Idempotency> {
    pub(crate) idempotency: E,
    /// Behind a pointer because the argument may hold the body, which is a part of it.
    pub(crate) request: Arc<CapturedRequest>,
}

/// Tells axum's inference through which of its own markers `T` extracts.
#[derive(Debug)]
pub struct ViaGuard<M>(PhantomData<M>);

impl<S, T, E, M> FromRequest<S, ViaGuard<M>> for Guarded<T, E>
where
    S: Send + Sync,
    T: FromRequest<S, M>,
    E: EngineSource,
{
    type Rejection = Response;

    #[expect(clippy::manual_async_fn, reason = "an `async fn` stores the request twice")]
    fn from_request(mut request: Request, state: &S) -> impl Future<Output = Result<Self, Response>> + Send {
        async move {
            let idempotency = E::find(&request)?;
            let is_body_compared = match E::COMPARES {
                Compares::Request => true,
                Compares::Value | Compares::Nothing => false,
                Compares::AsDefault => E::compared(&idempotency) != Some(Compared::Nothing),
            };
            let path_parameters = match E::COMPARES {
                Compares::Value => path_parameters(&mut request).await,
                _ => None,
            };
            let facts = HandlerFacts {
                header: E::header(&idempotency),
                is_body_compared,
                path_parameters,
                is_scoped_by_argument: E::IS_SCOPED_BY_LAST,
                watches_for_connections: E::watches_for_connections(&idempotency),
            };
            let captured = capture(&mut request, facts);
            let argument = match T::from_request(request, state).await {
                Ok(argument) => argument,
                Err(rejection) => return Err(answer::unrecorded(rejection.into_response())),
            };
            let guard = Guard(Some(GuardParts {
                idempotency,
                request: captured,
            }));
            Ok(Self { guard, argument })
        }
    }
}
