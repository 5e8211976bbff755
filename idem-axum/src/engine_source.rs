//! Where a handler's engine comes from, and what else is known of the handler while its arguments are extracted.
//!
//! Owns the marker types that the expansion names behind a handler's last argument.

use std::marker::PhantomData;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use idem_http::{Compared, IdempotencyProblem};

use crate::Idempotency;
use crate::problem::ProblemDetails;

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

    /// Whether the log may have to say that the request came over a connection, as far as that is known already.
    fn watches_for_connections(engine: &Self::Engine) -> bool;

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

                fn watches_for_connections(engine: &E::Engine) -> bool {
                    E::watches_for_connections(engine)
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
            ProblemDetails::undocumented(IdempotencyProblem::NotConfigured).into_response()
        })
    }

    fn header(engine: &Idempotency) -> Option<&'static str> {
        Some(engine.settings().defaults.header())
    }

    fn watches_for_connections(engine: &Idempotency) -> bool {
        engine.memory_notice().is_due()
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

    fn watches_for_connections(engine: &Idempotency) -> bool {
        FromLayer::watches_for_connections(engine)
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

    fn watches_for_connections((): &()) -> bool {
        true
    }

    fn compared((): &()) -> Option<Compared> {
        None
    }
}
