//! The extractor that stands in for a handler's last argument.
//!
//! Owns the request up to the claim: it finds the layer, where the attribute names no engine, and lets the argument extract
//! itself from a request whose body tells us what is read of it. A request that an extractor refuses has claimed nothing
//! (IDEM-10).

use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::marker::PhantomData;
use std::sync::Arc;

use axum::RequestExt as _;
use axum::body::Body;
use axum::extract::{FromRequest, MatchedPath, OriginalUri, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use http_body::Body as _;

use crate::fingerprint::RequestHash;
use crate::policy::Compared;
use crate::problem::{IdempotencyProblem, ProblemDetails};
use crate::request_body::{self, Passing, RequestBody};
use crate::{Execution, Idempotency, markers};

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

/// Where a handler's [`Idempotency`] comes from, and what else is known of the handler while its arguments are extracted.
pub trait EngineSource {
    /// The engine, as far as it is known while the arguments are extracted.
    type Engine: Send;

    /// What its attribute compares, where it says so.
    const COMPARES: Compares = Compares::AsDefault;

    /// Whether the scope is made of the last argument.
    const IS_SCOPED_BY_LAST: bool = false;

    /// Finds it, or answers in the handler's place.
    ///
    /// # Errors
    ///
    /// The response that says that there is none.
    #[expect(clippy::result_large_err, reason = "axum's rejections are responses")]
    fn find(request: &Request) -> Result<Self::Engine, Response>;

    /// The header that carries the key, where that is known already.
    fn header(engine: &Self::Engine) -> Option<&'static str>;

    /// What the layer's defaults compare, if the layer is known already. Used where the attribute does not say.
    fn compared(engine: &Self::Engine) -> Option<Compared>;
}

/// What the attribute of a handler compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compares {
    /// The attribute does not say.
    AsDefault,
    /// The request with its body.
    Request,
    /// The value of an expression, beside the request's method, path parameters and query.
    Value,
    /// Nothing.
    Nothing,
}

/// Declares what says more of a handler than where its engine comes from.
macro_rules! known {
    ($($(#[$doc:meta])* $name:ident: $constant:ident: $ty:ty = $value:expr, $other:ident: $other_ty:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name<E = FromLayer>(PhantomData<E>);

            impl<E: EngineSource> EngineSource for $name<E> {
                type Engine = E::Engine;

                const $constant: $ty = $value;
                const $other: $other_ty = E::$other;

                fn find(request: &Request) -> Result<E::Engine, Response> {
                    E::find(request)
                }

                fn header(engine: &E::Engine) -> Option<&'static str> {
                    E::header(engine)
                }

                fn compared(engine: &E::Engine) -> Option<Compared> {
                    E::compared(engine)
                }
            }
        )*
    };
}

known! {
    /// For a handler that compares requests with their bodies, whatever the default.
    ComparesRequest: COMPARES: Compares = Compares::Request, IS_SCOPED_BY_LAST: bool;
    /// For a handler that compares the value of an expression.
    ComparesValue: COMPARES: Compares = Compares::Value, IS_SCOPED_BY_LAST: bool;
    /// For a handler that compares nothing.
    ComparesNothing: COMPARES: Compares = Compares::Nothing, IS_SCOPED_BY_LAST: bool;
    /// For a handler whose scope is made of its last argument.
    ScopedByLast: IS_SCOPED_BY_LAST: bool = true, COMPARES: Compares;
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

    fn compared(engine: &Idempotency) -> Option<Compared> {
        Some(engine.settings().defaults.fingerprint())
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

    fn compared(engine: &Idempotency) -> Option<Compared> {
        FromLayer::compared(engine)
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

    fn compared((): &()) -> Option<Compared> {
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
    /// Behind a pointer because the argument may hold the body, which is a part of it.
    pub(crate) kept: Arc<Kept>,
}

/// What is known of a request besides what its extractors made of it.
pub(crate) struct Kept {
    pub(crate) method: Method,
    /// As the client sent it, also inside nested routers.
    pub(crate) uri: Uri,
    pub(crate) matched_path: Option<MatchedPath>,
    /// Where a route matched and an expression is compared.
    pub(crate) path_parameters: Option<RawPathParams>,
    pub(crate) key_lines: KeyLines,
    pub(crate) body: RequestBody,
    /// Whether the scope is made of the argument.
    pub(crate) is_scoped_by_argument: bool,
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
pub struct ViaGuard<M>(PhantomData<M>);

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
            let is_body_compared = match E::COMPARES {
                Compares::Request => true,
                Compares::Value | Compares::Nothing => false,
                Compares::AsDefault => E::compared(&idempotency) != Some(Compared::Nothing),
            };
            let path_parameters = match E::COMPARES {
                Compares::Value => path_parameters(&mut request).await,
                _ => None,
            };
            let known = Known {
                header: E::header(&idempotency),
                is_body_compared,
                path_parameters,
                is_scoped_by_argument: E::IS_SCOPED_BY_LAST,
            };
            let kept = keep(&mut request, known);
            let argument = match T::from_request(request, state).await {
                Ok(argument) => argument,
                Err(rejection) => return Err(markers::taken_off(rejection.into_response())),
            };
            let guard = Guard(Some(Guarding { idempotency, kept }));
            Ok(Self { guard, argument })
        }
    }
}

/// The values in the path, where a route has matched.
async fn path_parameters(request: &mut Request) -> Option<RawPathParams> {
    request.extensions().get::<MatchedPath>()?;
    request.extract_parts().await.ok()
}

/// The facts about a handler that its extraction needs.
struct Known {
    header: Option<&'static str>,
    is_body_compared: bool,
    path_parameters: Option<RawPathParams>,
    is_scoped_by_argument: bool,
}

/// A hash of what is known of a request before its body. Of requests that are alike, a large body is looked for once.
fn alike(method: &Method, uri: &Uri, key_lines: &KeyLines) -> u64 {
    let mut hash = DefaultHasher::new();
    method.hash(&mut hash);
    uri.hash(&mut hash);
    if let KeyLines::Known(lines) = key_lines {
        lines.hash(&mut hash);
    }
    hash.finish()
}

/// What does not depend on the argument, compiled once: keeps what the guard needs of a request, and puts itself between
/// the request's body and the argument.
fn keep(request: &mut Request, known: Known) -> Arc<Kept> {
    // The one that an argument has, or the last one will find.
    let execution = Execution::of(request.extensions_mut());
    #[cfg(feature = "postgres")]
    let transaction = crate::transaction::Slot::of(request.extensions_mut());
    let key_lines = KeyLines::of(request.headers(), known.header);
    let original = request.extensions().get::<OriginalUri>();
    let uri = original.map_or_else(|| request.uri().clone(), |original| original.0.clone());
    let hash = || RequestHash::new(request.method(), &uri, request.headers());
    let hash = known.is_body_compared.then(hash);
    // Whether an empty body is read makes a difference to the scope alone.
    let is_passed = known.is_scoped_by_argument || !request.body().is_end_stream();
    let body = if is_passed {
        let limit = hash.as_ref().and_then(|_| request_body::limit(request));
        let source = std::mem::take(request.body_mut());
        RequestBody::new(source, hash, limit, || alike(request.method(), &uri, &key_lines))
    } else {
        RequestBody::empty(hash)
    };
    let kept = Arc::new(Kept {
        method: request.method().clone(),
        uri,
        matched_path: request.extensions().get::<MatchedPath>().cloned(),
        path_parameters: known.path_parameters,
        key_lines,
        body,
        is_scoped_by_argument: known.is_scoped_by_argument,
        execution,
        #[cfg(feature = "postgres")]
        transaction,
    });
    if is_passed {
        *request.body_mut() = Body::new(Passing(kept.clone()));
    }
    kept
}
