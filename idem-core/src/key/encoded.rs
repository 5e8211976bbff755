//! Record keys and their parts from the encoded form back.
//!
//! Owns which texts are encoded keys: exactly those that [`RecordKey::new`] makes. Does not own the encoding: [`escape`](mod@super::escape).

use std::borrow::Cow;

use super::escape::{escape, is_plain};
use super::{Encoded, IdempotencyKey, KeyError, MAX_PART_LEN, Part, RecordKey, Scope};

/// One value in its encoded form.
pub(crate) fn encoded(value: &str, part: Part) -> Result<String, KeyError> {
    let mut text = String::new();
    escape(value, part, &mut text)?;
    Ok(text)
}

impl RecordKey {
    /// Reads [`as_str`](Self::as_str) back; `None` if no record has this key.
    ///
    /// ```
    /// use idem_core::RecordKey;
    ///
    /// let key = RecordKey::from_encoded("POST%20/orders:(acme,7):k%3A1").ok_or("a key")?;
    /// assert_eq!(key.operation(), "POST /orders");
    /// assert!(RecordKey::from_encoded("POST /orders:acme:k-1").is_none());
    /// # Ok::<(), &str>(())
    /// ```
    #[must_use]
    pub fn from_encoded(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let operation = parts.next().filter(|operation| is_value(operation));
        let scope = parts.next().filter(|scope| *scope == "@global" || is_values(scope));
        let key = parts.next().filter(|key| is_values(key));
        let is_whole = operation.is_some() && scope.is_some() && key.is_some() && parts.next().is_none();
        is_whole.then(|| Self::of_text(text.into()))
    }

    /// Whose key space the record is in.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let (_, scope, _) = self.parts();
        Scope(Encoded::of_text(scope))
    }

    /// The idempotency key of the record.
    #[must_use]
    pub fn idempotency_key(&self) -> IdempotencyKey {
        let (_, _, key) = self.parts();
        IdempotencyKey(Encoded::of_text(key))
    }

    /// The operation as it was before it was encoded, such as `POST /orders`. It may contain any character.
    #[must_use]
    pub fn operation(&self) -> Cow<'_, str> {
        let (operation, _, _) = self.parts();
        if !operation.contains('%') {
            return Cow::Borrowed(operation);
        }
        let decoded = decode(operation).and_then(|decoded| String::from_utf8(decoded).ok());
        decoded.map_or(Cow::Borrowed(operation), Cow::Owned)
    }
}

impl Scope {
    /// Reads the displayed form back; `None` if no scope has this form.
    ///
    /// ```
    /// use idem_core::Scope;
    ///
    /// let pair = Scope::tuple([Scope::of("acme"), Scope::of("7")]);
    /// assert_eq!(Scope::from_encoded("(acme,7)"), Some(pair));
    /// assert_eq!(Scope::from_encoded("@global"), Some(Scope::global()));
    /// assert_eq!(Scope::from_encoded("a b"), None);
    /// ```
    #[must_use]
    pub fn from_encoded(text: &str) -> Option<Self> {
        let is_scope = text == "@global" || is_values(text);
        is_scope.then(|| Self(Encoded::of_text(text)))
    }
}

impl IdempotencyKey {
    /// Reads the displayed form back; `None` if no idempotency key has this form.
    #[must_use]
    pub fn from_encoded(text: &str) -> Option<Self> {
        is_values(text).then(|| Self(Encoded::of_text(text)))
    }
}

/// Whether `text` is a value or a tuple of values; tuples may contain tuples.
fn is_values(text: &str) -> bool {
    rest_of_values(text, 0).is_some_and(str::is_empty)
}

/// How deep tuples may be in each other. No application goes near it, and the check is recursive.
const MAX_DEPTH: usize = 32;

/// What follows the value, or the tuple of values, at the beginning of `text`.
fn rest_of_values(text: &str, depth: usize) -> Option<&str> {
    let Some(mut rest) = text.strip_prefix('(') else {
        let end = text.find(['(', ')', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end)?;
        return is_value(value).then_some(rest);
    };
    if depth == MAX_DEPTH {
        return None;
    }
    if let Some(rest) = rest.strip_prefix(')') {
        return Some(rest);
    }
    loop {
        rest = rest_of_values(rest, depth + 1)?;
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return rest.strip_prefix(')'),
        }
    }
}

/// Whether `text` is a value in the form in which it is escaped, and no other form of the same value.
fn is_value(text: &str) -> bool {
    let Some(decoded) = decode(text) else {
        return false;
    };
    let Ok(value) = String::from_utf8(decoded) else {
        return false;
    };
    let mut again = String::with_capacity(text.len());
    value.len() <= MAX_PART_LEN && write_escaped(&value, &mut again) && again == text
}

fn write_escaped(value: &str, out: &mut String) -> bool {
    escape(value, Part::Key, out).is_ok()
}

/// The bytes that `%XX` stand for; `None` if a character is neither plain nor the beginning of `%XX`.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            plain if is_plain(plain) => plain,
            _ => return None,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_other_text_is_a_record_key() {
        for text in [
            "",
            "a",
            "a:b",
            "a:b:",
            ":b:c",
            "a::c",
            "a:b:c:d",
            "a:b:c d",
            "a:b:%4",
            "a:b:%zz",
            "a:b:%41",
            "a:b:%2d",
            "a:b:%FF",
            "a:@other:c",
            "a:b:@global",
            "a:(b:c",
            "a:b):c",
            "a:(b,):c",
            "(a):b:c",
            "a:b:c*",
            "a:b:\u{1b}[2J",
            &format!("a:b:{}", "x".repeat(MAX_PART_LEN + 1)),
            &format!("a:{}b{}:c", "(".repeat(40), ")".repeat(40)),
        ] {
            assert!(RecordKey::from_encoded(text).is_none(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_record_key_comes_back(operation in ".{1,20}", scope in ".{1,20}", key in ".{1,20}", shape in 0..4) {
            let (value, other) = (Scope::of(&scope), Scope::of(&"7"));
            let scope = match shape {
                0 => value,
                1 => Scope::global(),
                2 => Scope::tuple([value, other]),
                _ => Scope::tuple([Scope::tuple([value]), other]),
            };
            let made = RecordKey::new(&operation, &scope, &IdempotencyKey::of(&key)).expect("a key");
            let read = RecordKey::from_encoded(made.as_str()).expect("it was made");
            prop_assert_eq!(&read, &made);
            prop_assert_eq!(read.operation(), operation);
            prop_assert_eq!(read.scope(), scope);
            prop_assert_eq!(read.idempotency_key(), IdempotencyKey::of(&key));
        }
    }
}
