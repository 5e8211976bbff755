//! The identity of a record: operation, scope and idempotency key.
//!
//! Owns the encoding of the three parts into one string and its injectivity (IDEM-9): two requests share a record
//! only if all three parts are equal, whatever bytes the parts contain. Does not own where the parts come from: the
//! integration reads the header.

mod downstream;
mod draft;
mod encoded;
mod escape;
mod hash;
mod shown;

use std::cmp::Ordering;
use std::fmt::{self, Display};
use std::sync::Arc;

pub use self::downstream::unrepeatable_key;
pub(crate) use self::encoded::encoded;
use self::escape::escape;
pub(crate) use self::hash::ByRecord;
pub use self::shown::Shown;

/// The maximum length of an operation, of a value in a scope or of a value in a key, in bytes before encoding.
///
/// The limit protects the store: most backends hold keys in memory, and a client may control each of the three parts. The
/// operation of a fallback, for example, is the path of the request.
pub const MAX_PART_LEN: usize = 1024;

/// The owner of a key space: a tenant, a user, or a tuple of both; or one key space for all callers ([`Scope::global`]).
///
/// ```
/// use idem_core::Scope;
///
/// let tenant = Scope::of(&"acme");
/// let nested = Scope::tuple([Scope::of(&"acme"), Scope::of(&7)]);
/// assert_eq!(tenant.to_string(), "acme");
/// assert_eq!(nested.to_string(), "(acme,7)");
/// assert_ne!(nested, Scope::of(&"(acme,7)"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(Encoded);

impl Scope {
    /// The scope of one value.
    ///
    /// If the value is empty, longer than [`MAX_PART_LEN`] or fails to display, [`RecordKey::new`] returns the error: a
    /// missing tenant must never become a key space that all callers share.
    #[must_use]
    pub fn of<T: Display + ?Sized>(value: &T) -> Self {
        Self(Encoded::of(value, Part::Scope))
    }

    /// The scope of several values together; distinct from the scope of any single value.
    #[must_use]
    pub fn tuple<const N: usize>(parts: [Self; N]) -> Self {
        Self(Encoded::tuple(parts.map(|part| part.0)))
    }

    /// One key space for all callers.
    #[must_use]
    pub fn global() -> Self {
        // An `@` is escaped in values, so no value encodes to this.
        Self(Encoded {
            text: "@global".into(),
            error: None,
        })
    }

    pub(crate) fn text(&self) -> Result<&str, KeyError> {
        self.0.text()
    }
}

impl Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// The name of one request, given by the client or by the business.
///
/// Like a [`Scope`], it is made of a value or of a tuple of values. If a value is empty, longer than [`MAX_PART_LEN`] or
/// fails to display, [`RecordKey::new`] returns the error: a missing key must never become a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Encoded);

impl IdempotencyKey {
    /// The key of one value.
    #[must_use]
    pub fn of<T: Display + ?Sized>(value: &T) -> Self {
        Self(Encoded::of(value, Part::Key))
    }

    /// The key of several values together; distinct from the key of any single value.
    #[must_use]
    pub fn tuple<const N: usize>(parts: [Self; N]) -> Self {
        Self(Encoded::tuple(parts.map(|part| part.0)))
    }

    pub(crate) fn text(&self) -> Result<&str, KeyError> {
        self.0.text()
    }
}

impl Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// A part of a record key in its escaped form, or the error that the value caused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Encoded {
    text: std::borrow::Cow<'static, str>,
    error: Option<KeyError>,
}

impl Encoded {
    fn of(value: &(impl Display + ?Sized), part: Part) -> Self {
        let mut text = String::with_capacity(64);
        let error = escape(value, part, &mut text).err();
        let text = text.into();
        Self { text, error }
    }

    fn tuple<const N: usize>(parts: [Self; N]) -> Self {
        let mut text = String::from("(");
        let mut error = None;
        for (index, part) in parts.into_iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&part.text);
            error = error.or(part.error);
        }
        text.push(')');
        let text = text.into();
        Self { text, error }
    }

    /// What was encoded before.
    fn of_text(text: &str) -> Self {
        let text = text.to_owned().into();
        Self { text, error: None }
    }

    fn text(&self) -> Result<&str, KeyError> {
        self.error.clone().map_or(Ok(&*self.text), Err)
    }
}

/// The key of one record: `operation:scope:key`, each part percent-escaped.
///
/// Cheap to clone. The encoded form is part of the stored format: equal strings identify the same record, in every
/// process and version.
///
/// ```
/// use idem_core::{IdempotencyKey, RecordKey, Scope};
///
/// let key = RecordKey::new("POST /orders/{id}", &Scope::of(&"acme"), &IdempotencyKey::of("k:1"))?;
/// assert_eq!(key.as_str(), "POST%20/orders/%7Bid%7D:acme:k%3A1");
/// # Ok::<(), idem_core::KeyError>(())
/// ```
#[derive(Clone)]
pub struct RecordKey {
    text: Arc<str>,
    /// The hash of `text`; valid in this process only.
    hash: u64,
    /// Whether logs show hashes of the scope and the key.
    hashed: bool,
}

impl RecordKey {
    /// Joins the three parts.
    ///
    /// # Errors
    ///
    /// When a part is empty, when the operation or a value in the scope or the key is longer than [`MAX_PART_LEN`], or when
    /// the `Display` implementation of a value failed. [`KeyError::part`] names the part at fault.
    pub fn new<O: Display + ?Sized>(operation: &O, scope: &Scope, key: &IdempotencyKey) -> Result<Self, KeyError> {
        Self::joined(operation, scope, |text| {
            text.push_str(key.text()?);
            Ok(())
        })
    }

    /// Does the same as [`new`](Self::new) with [`IdempotencyKey::of`] the value `key`, and saves the allocation of that key.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of<O, K>(operation: &O, scope: &Scope, key: &K) -> Result<Self, KeyError>
    where
        O: Display + ?Sized,
        K: Display + ?Sized,
    {
        Self::joined(operation, scope, |text| escape(key, Part::Key, text))
    }

    fn joined<O: Display + ?Sized>(
        operation: &O,
        scope: &Scope,
        key: impl FnOnce(&mut String) -> Result<(), KeyError>,
    ) -> Result<Self, KeyError> {
        let scope = scope.text()?;
        let text: Arc<str> = draft::drafted(|text| {
            escape(operation, Part::Operation, text)?;
            text.push(':');
            text.push_str(scope);
            text.push(':');
            key(text)
        })?;
        Ok(Self::of_text(text))
    }

    fn of_text(text: Arc<str>) -> Self {
        let hash = hash::hash(&text);
        let hashed = false;
        Self { text, hash, hashed }
    }

    /// The encoded form: visible ASCII without `{`, `}`, `*`, quotes, backslashes or white space.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The form that backends store. For logs, use [`RecordKey::shown`].
impl Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for RecordKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for RecordKey {}

impl PartialOrd for RecordKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RecordKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

/// A part of a [`RecordKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The operation: which handler.
    Operation,
    /// The scope: the owner of the key space.
    Scope,
    /// The idempotency key itself.
    Key,
}

/// Why a [`RecordKey`] could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyError {
    part: Part,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    Empty,
    TooLong,
    Unprintable,
}

impl KeyError {
    /// The part at fault. The author of the service chooses the operation and the scope; the client usually sends the key.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }

    /// Whether the part is empty. A client can cause this, if it sends the value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fault == Fault::Empty
    }

    /// Whether the part is longer than [`MAX_PART_LEN`]. A client can cause this, if it sends the value.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.fault == Fault::TooLong
    }
}

impl Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Operation => "operation",
            Part::Scope => "scope",
            Part::Key => "idempotency key",
        };
        match self.fault {
            Fault::Empty => write!(f, "the {part} is empty"),
            Fault::TooLong => write!(f, "the {part} is longer than {MAX_PART_LEN} bytes"),
            Fault::Unprintable => write!(f, "the {part}'s `Display` implementation returned an error"),
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
