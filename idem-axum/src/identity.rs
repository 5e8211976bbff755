//! Who a request is, by the attribute's expressions.
//!
//! Owns the values that the expansion evaluates over the handler's arguments before the handler runs. Does not own how
//! they are encoded or hashed: that is the record key's and the fingerprint's.

use idem_core::{IdempotencyKey, Scope};
use serde::Serialize;
use serde_json::Value;

/// What the expansion of `#[idempotent]` knows of one request.
#[derive(Debug)]
pub struct Identity {
    /// Who owns the key space.
    pub scope: Scope,
    /// The natural key, where the attribute has one in place of the header.
    pub key: Option<IdempotencyKey>,
    /// What tells it from another request under its key.
    pub compared: Compared,
}

/// What of a request is compared with the first one under its key.
#[derive(Debug)]
pub enum Compared {
    /// Method, path with query, media type and body.
    Request,
    /// Nothing: all requests under a key are equal.
    Nothing,
    /// The attribute's expression.
    Value(SerdeForm),
}

/// A value as serde sees it, or why it has no such form.
#[derive(Debug)]
pub struct SerdeForm(pub(crate) Result<Value, serde_json::Error>);

impl SerdeForm {
    /// The form of one value.
    pub fn of<T: Comparable + ?Sized>(value: &T) -> Self {
        Self(serde_json::to_value(value))
    }

    /// The form of several values together, as that of a tuple.
    #[must_use]
    pub fn tuple<const N: usize>(parts: [Self; N]) -> Self {
        Self(parts.into_iter().map(|part| part.0).collect())
    }
}

/// Says in our own words what the expression behind `fingerprint` has to be.
#[diagnostic::on_unimplemented(
    message = "`fingerprint` compares the serde form of a value, and `{Self}` has none",
    label = "this is not `serde::Serialize`",
    note = "derive `serde::Serialize` for it, or name the parts of it that tell one request from another, such as \
            `fingerprint = order.order_id`"
)]
pub trait Comparable: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Comparable for T {}
