//! Who a request is, by the attribute's expressions.
//!
//! Owns the values that the expansion evaluates over the handler's arguments before the handler runs. Does not own how
//! they are encoded or hashed: that is the record key's and the fingerprint's.

use idem_core::{IdempotencyKey, Scope};
use serde_json::Value;

/// What the expansion of `#[idempotent]` knows of one request.
#[derive(Debug)]
pub struct Identity {
    /// Who owns the key space.
    pub(crate) scope: Scope,
    /// The natural key, where the attribute has one in place of the header.
    pub(crate) key: Option<IdempotencyKey>,
    /// The attribute's expression for what tells it from another request under its key, where it has one.
    pub(crate) compared: Option<SerdeForm>,
}

impl From<Scope> for Identity {
    fn from(scope: Scope) -> Self {
        Self::new(scope)
    }
}

impl Identity {
    /// A request whose key is in the header, and which is compared as the policy says.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            key: None,
            compared: None,
        }
    }

    /// Sets the key, in place of the header's.
    #[must_use]
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the value that is compared, beside the request's method, path parameters and query.
    #[must_use]
    pub fn with_compared(mut self, compared: SerdeForm) -> Self {
        self.compared = Some(compared);
        self
    }
}

/// A value as serde sees it, or why it has no such form.
#[derive(Debug)]
pub struct SerdeForm(pub(crate) Result<Value, serde_json::Error>);

/// What `scope` is made of.
pub mod scope {
    use super::Scope;
    use crate::bounds::ScopeValue;

    /// The scope of one value.
    pub fn of<T: ScopeValue + ?Sized>(value: &T) -> Scope {
        Scope::of(value)
    }

    /// The scope of several values together.
    #[must_use]
    pub fn tuple<const N: usize>(parts: [Scope; N]) -> Scope {
        Scope::tuple(parts)
    }

    /// One key space for all callers.
    #[must_use]
    pub fn global() -> Scope {
        Scope::global()
    }
}

/// What `key` is made of.
pub mod key {
    use super::IdempotencyKey;
    use crate::bounds::KeyValue;

    /// The key of one value.
    pub fn of<T: KeyValue + ?Sized>(value: &T) -> IdempotencyKey {
        IdempotencyKey::of(value)
    }

    /// The key of several values together.
    #[must_use]
    pub fn tuple<const N: usize>(parts: [IdempotencyKey; N]) -> IdempotencyKey {
        IdempotencyKey::tuple(parts)
    }
}

/// What `fingerprint` is made of.
pub mod fingerprint {
    use super::SerdeForm;
    use crate::bounds::FingerprintValue;

    /// The form of one value.
    pub fn of<T: FingerprintValue + ?Sized>(value: &T) -> SerdeForm {
        SerdeForm(idem_http::fingerprint::check_numbers(value).and_then(|()| serde_json::to_value(value)))
    }

    /// The form of several values together, as that of a tuple.
    #[must_use]
    pub fn tuple<const N: usize>(parts: [SerdeForm; N]) -> SerdeForm {
        SerdeForm(parts.into_iter().map(|part| part.0).collect())
    }
}
