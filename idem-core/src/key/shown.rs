//! The form of record keys in logs and traces.
//!
//! Owns the choice between a key and its hash. The stored form never depends on that choice.

use std::fmt::{self, Display};

use sha2::{Digest as _, Sha256};

use super::RecordKey;

/// A scope or an idempotency key as it is logged: escaped, or hashed where [`RecordKey::hashed`] says so.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    part: &'a str,
    hashed: bool,
}

impl RecordKey {
    /// The same key, with its scope and idempotency key hashed in logs.
    ///
    /// The hash is the first 16 hexadecimal digits of the SHA-256 of the encoded part. If a key contains no escaped
    /// characters, `printf %s "$key" | sha256sum` prints the hash to search the logs for.
    ///
    /// ```
    /// use idem_core::{IdempotencyKey, RecordKey, Scope};
    ///
    /// let key = RecordKey::new("orders", &Scope::of("acme"), &IdempotencyKey::of("k-1"))?.hashed();
    /// assert_eq!(key.shown().to_string(), "orders:822b33ad87c148a0:7c35c5a1785d2070");
    /// assert_eq!(key.as_str(), "orders:acme:k-1");
    /// assert_eq!(format!("{:?}", key.shown_key()), "7c35c5a1785d2070");
    /// # Ok::<(), idem_core::KeyError>(())
    /// ```
    #[must_use]
    pub fn hashed(mut self) -> Self {
        self.hashed = true;
        self
    }

    /// The whole key, as it is logged.
    #[must_use]
    pub fn shown(&self) -> impl Display + '_ {
        let (operation, _, _) = self.parts();
        fmt::from_fn(move |f| write!(f, "{operation}:{}:{}", self.shown_scope(), self.shown_key()))
    }

    /// The scope, as it is logged.
    #[must_use]
    pub fn shown_scope(&self) -> Shown<'_> {
        let (_, scope, _) = self.parts();
        self.part(scope)
    }

    /// The idempotency key, as it is logged.
    #[must_use]
    pub fn shown_key(&self) -> Shown<'_> {
        let (_, _, key) = self.parts();
        self.part(key)
    }

    fn part<'a>(&self, part: &'a str) -> Shown<'a> {
        let hashed = self.hashed;
        Shown { part, hashed }
    }

    /// Operation, scope and key, encoded. No part contains a colon.
    pub(crate) fn parts(&self) -> (&str, &str, &str) {
        let (operation, rest) = self.text.split_once(':').unwrap_or_default();
        let (scope, key) = rest.split_once(':').unwrap_or_default();
        (operation, scope, key)
    }
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.hashed {
            return f.write_str(self.part);
        }
        let digest: [u8; 32] = Sha256::digest(self.part).into();
        digest.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The same as its `Display`, so that `?` and `%` log the same text.
impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// Shows the key as [`RecordKey::shown`] does.
impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({})", self.shown())
    }
}
