//! Which records a scan returns, and where it goes on.
//!
//! Owns the parts of a record key that a store can select by itself. Does not own the other filters of a list, such as state and age:
//! the caller looks at each record.

use super::Listed;
use crate::key::{KeyError, Part};
use crate::{IdempotencyKey, RecordKey, Scope};

/// Which records a scan returns: those whose key has all of the parts that are set. By default, all records.
///
/// ```
/// use idem_core::inspect::Selection;
/// use idem_core::{IdempotencyKey, RecordKey, Scope};
///
/// let of_acme = Selection::all().with_scope(&Scope::of("acme"))?;
/// let key = |scope: &str| RecordKey::new("ship", &Scope::of(scope), &IdempotencyKey::of("o-1"));
/// assert!(of_acme.matches(&key("acme")?));
/// assert!(!of_acme.matches(&key("other")?));
/// # Ok::<(), idem_core::KeyError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    operation: Option<String>,
    scope: Option<String>,
    key: Option<String>,
}

impl Selection {
    /// All records.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only the record under this key.
    #[must_use]
    pub fn of_key(key: &RecordKey) -> Self {
        let (operation, scope, own) = key.parts();
        Self {
            operation: Some(operation.to_owned()),
            scope: Some(scope.to_owned()),
            key: Some(own.to_owned()),
        }
    }

    /// Only those of this operation, such as `POST /orders` or `task ship`.
    ///
    /// # Errors
    ///
    /// When no record can have this operation: it is empty or too long.
    pub fn with_operation(mut self, operation: &str) -> Result<Self, KeyError> {
        self.operation = Some(crate::key::encoded(operation, Part::Operation)?);
        Ok(self)
    }

    /// Only those of this scope.
    ///
    /// # Errors
    ///
    /// When no record can have this scope: a value is empty or too long.
    pub fn with_scope(mut self, scope: &Scope) -> Result<Self, KeyError> {
        self.scope = Some(scope.text()?.to_owned());
        Ok(self)
    }

    /// Only those of this idempotency key.
    ///
    /// # Errors
    ///
    /// When no record can have this key: a value is empty or too long.
    pub fn with_key(mut self, key: &IdempotencyKey) -> Result<Self, KeyError> {
        self.key = Some(key.text()?.to_owned());
        Ok(self)
    }

    /// The operation in its encoded form, if it is set.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.operation.as_deref()
    }

    /// The scope in its encoded form, if it is set.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The idempotency key in its encoded form, if it is set.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Whether `key` has all of the parts that are set.
    #[must_use]
    pub fn matches(&self, key: &RecordKey) -> bool {
        let (operation, scope, own) = key.parts();
        let is = |part: &Option<String>, own: &str| part.as_deref().is_none_or(|part| part == own);
        is(&self.operation, operation) && is(&self.scope, scope) && is(&self.key, own)
    }

    /// The record keys that match, with `any` in the place of each part that is not set. No part contains a colon, nor a
    /// character that is special in a glob or in `LIKE` other than `_` and `%`.
    #[must_use]
    pub fn pattern(&self, any: &str) -> String {
        let part = |part: &Option<String>| part.as_deref().unwrap_or(any).to_owned();
        [part(&self.operation), part(&self.scope), part(&self.key)].join(":")
    }
}

/// Where a scan goes on: opaque text, valid for the same store and the same selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// A cursor that a store has made, or that was printed.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Some records of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records. There may be none although the scan is not over.
    pub records: Vec<Listed>,
    /// Where the scan goes on; `None` if it is over.
    pub next: Option<Cursor>,
    /// How many records the store has looked at, those that do not match included, as far as it says so.
    pub looked_at: u64,
    /// How many commands or statements were sent to the store for this page.
    pub commands: u64,
    /// How much of the scan is done after this page, in percent, about; `None` if the store cannot tell.
    pub percent: Option<u8>,
}
