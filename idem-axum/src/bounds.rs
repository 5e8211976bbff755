//! What the values in an attribute, and the return type below it, have to be.
//!
//! The compiler names these traits where a value does not fit. They have no methods of their own that an application calls,
//! and are implemented for every type that fits.

use std::fmt::Display;
use std::sync::Arc;

use axum::response::IntoResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Idempotency, StepError};

/// A value that `fingerprint = …` compares. Implemented for everything that serde can serialize.
#[diagnostic::on_unimplemented(
    message = "`fingerprint` compares the serde form of a value, and `{Self}` has none",
    label = "this is not `serde::Serialize`",
    note = "derive `serde::Serialize` for it, or name the parts of it that tell one request from another, such as \
            `fingerprint = order.order_id`"
)]
pub trait FingerprintValue: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> FingerprintValue for T {}

/// A value that `scope = …` takes. Implemented for everything that is `Display`.
#[diagnostic::on_unimplemented(
    message = "`scope` takes values that are `Display`, and `{Self}` is not",
    label = "this is not `std::fmt::Display`",
    note = "name the part of it that tells one owner from another, such as `scope = tenant.id`",
    note = "for an `Option`, say who owns the request when it is `None`, such as `scope = user.org.unwrap_or(user.id)`, or \
            refuse that request in an extractor"
)]
pub trait ScopeValue: Display {}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> ScopeValue for T {}

/// A value that `key = …` takes. Implemented for everything that is `Display`.
#[diagnostic::on_unimplemented(
    message = "`key` takes values that are `Display`, and `{Self}` is not",
    label = "this is not `std::fmt::Display`",
    note = "name the part of it that tells one request from another, such as `key = order.order_id`",
    note = "for an `Option`, take the key from a part that is always there, or refuse a request without it in an extractor"
)]
pub trait KeyValue: Display {}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> KeyValue for T {}

/// What an annotated handler returns. Implemented for everything that is [`IntoResponse`].
#[diagnostic::on_unimplemented(
    message = "a handler answers with a response, and `{Self}` is none",
    label = "this is not `axum::response::IntoResponse`",
    note = "implement `IntoResponse` for it; a `Result` is a response if what is in its `Ok` and in its `Err` are",
    note = "a `Verdict` stands before a response, and is none itself: `(Verdict::Release, StatusCode::BAD_GATEWAY)`"
)]
pub trait HandlerAnswer: IntoResponse {}

#[diagnostic::do_not_recommend]
impl<R: IntoResponse> HandlerAnswer for R {}

/// A value that `engine = …` takes: an [`Idempotency`], or a pointer to one.
#[diagnostic::on_unimplemented(
    message = "`engine` takes an `Idempotency`, and this is `{Self}`",
    label = "this is no `idem_axum::Idempotency`",
    note = "name the field that has it, such as `engine = app.idempotency`, or leave `engine` out and layer the router"
)]
pub trait EngineValue {
    /// The engine itself.
    fn engine(&self) -> &Idempotency;
}

impl EngineValue for Idempotency {
    fn engine(&self) -> &Idempotency {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<T: EngineValue + ?Sized> EngineValue for &T {
    fn engine(&self) -> &Idempotency {
        T::engine(self)
    }
}

#[diagnostic::do_not_recommend]
impl<T: EngineValue + ?Sized> EngineValue for Arc<T> {
    fn engine(&self) -> &Idempotency {
        T::engine(self)
    }
}

/// What a step returns. Implemented for everything that serde can serialize and deserialize.
#[diagnostic::on_unimplemented(
    message = "the result of a step is recorded in its serde form, and `{Self}` has none",
    label = "its result is not `serde::Serialize` and `serde::de::DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or return the part that a later attempt needs, such as an id"
)]
pub trait StepResult: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> StepResult for T {}

/// What the body of a step may fail with. Implemented for everything that a [`StepError`] converts into.
#[diagnostic::on_unimplemented(
    message = "the error of a step also says why the step has no result, and `{Self}` cannot be made of a `StepError`",
    label = "its error is not `From<idem_axum::StepError>`",
    note = "implement `From<StepError>` for it, and answer with the response that a `StepError` is"
)]
pub trait StepFailure: From<StepError> {}

#[diagnostic::do_not_recommend]
impl<E: From<StepError>> StepFailure for E {}
