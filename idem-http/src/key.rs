//! From header lines to an idempotency key.
//!
//! Owns the syntax: 1 to 255 printable ASCII characters, bare or as an RFC 9651 String, which are the same key; where
//! the application is strict, as a String only. What else a key has to look like is the application's to check. A key that is there but not well-formed is refused and never ignored: its sender believes to be protected.

use std::borrow::Cow;

use http::HeaderValue;

/// The longest key, in characters.
const MAX_LEN: usize = 255;

/// The longest String that is a key: in quotation marks, and each of its characters escaped.
pub const MAX_STRING_LEN: usize = 2 * MAX_LEN + 2;

/// Why the key header of a request cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// More than one header line.
    Repeated,
    /// No character.
    Empty,
    /// More than 255 characters.
    TooLong,
    /// A character other than printable ASCII.
    NotPrintableAscii,
    /// It begins with a quotation mark, and is no RFC 9651 String.
    NotAString,
    /// It is bare, and the application takes Strings only.
    NotQuoted,
    /// It has a comma outside of quotation marks.
    List,
}

impl Malformed {
    /// For the client: what is wrong and what to send.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Repeated => "The idempotency key was sent more than once; send one header line.",
            Self::Empty => "The idempotency key is empty; send 1 to 255 printable ASCII characters.",
            Self::TooLong => "The idempotency key is longer than 255 characters.",
            Self::NotPrintableAscii => "The idempotency key has a character other than printable ASCII.",
            Self::NotAString => {
                "The idempotency key begins with a quotation mark but is not an RFC 9651 String; close the quotation \
                 or leave it out."
            }
            Self::NotQuoted => "The idempotency key is not an RFC 9651 String; send it in quotation marks.",
            Self::List => "The idempotency key has a comma, so it may be several; quote it or send one.",
        }
    }
}

/// The key in the lines of its header, or `None` if the request has none. `strict` refuses bare ones.
///
/// # Errors
///
/// What is wrong with the key.
pub fn from_lines(lines: [Option<&HeaderValue>; 2], strict: bool) -> Result<Option<Cow<'_, str>>, Malformed> {
    match lines {
        [None, _] => Ok(None),
        [Some(line), None] => parse(line, strict).map(Some),
        [Some(_), Some(_)] => Err(Malformed::Repeated),
    }
}

fn parse(line: &HeaderValue, strict: bool) -> Result<Cow<'_, str>, Malformed> {
    let line = line.as_bytes().trim_ascii();
    let key = if line.starts_with(b"\"") {
        let item: sfv::Item = sfv::Parser::new(line).parse().map_err(|_| Malformed::NotAString)?;
        match item.bare_item {
            sfv::BareItem::String(key) => Cow::Owned(key.into()),
            _ => return Err(Malformed::NotAString),
        }
    } else if strict && !line.is_empty() {
        return Err(Malformed::NotQuoted);
    } else {
        Cow::Borrowed(bare(line)?)
    };
    match key.len() {
        0 => Err(Malformed::Empty),
        1..=MAX_LEN => Ok(key),
        _ => Err(Malformed::TooLong),
    }
}

fn bare(line: &[u8]) -> Result<&str, Malformed> {
    if line.contains(&b',') {
        return Err(Malformed::List);
    }
    match str::from_utf8(line) {
        Ok(key) if key.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Ok(key),
        _ => Err(Malformed::NotPrintableAscii),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(line: &[u8]) -> Result<String, Malformed> {
        parse(&HeaderValue::from_bytes(line).expect("a header value"), false).map(Cow::into_owned)
    }

    fn strictly_parsed(line: &[u8]) -> Result<String, Malformed> {
        parse(&HeaderValue::from_bytes(line).expect("a header value"), true).map(Cow::into_owned)
    }

    #[test]
    fn bare_and_quoted_keys_are_the_same_key() {
        let long = "k".repeat(MAX_LEN);
        let table: &[(&[u8], &str)] = &[
            (
                b"8e03978e-40d5-43dd-bc93-6894a57f9324",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            ),
            (
                b"\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            ),
            (b"  k\t", "k"),
            (b"\"k\" ", "k"),
            (b"\"k\";v=1;w", "k"),
            (br#""a\"b\\c""#, r#"a"b\c"#),
            (b"\"a,b\"", "a,b"),
            (b"a b", "a b"),
            (b"k\"", "k\""),
            (b"'k'", "'k'"),
            (b"{}:*%../", "{}:*%../"),
            (long.as_bytes(), &long),
        ];
        for (line, key) in table {
            assert_eq!(parsed(line), Ok((*key).to_owned()), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn malformed_keys_are_refused_by_what_is_wrong_with_them() {
        let long = "k".repeat(MAX_LEN + 1);
        let quoted_long = format!("\"{long}\"");
        let table: &[(&[u8], Malformed)] = &[
            (b"", Malformed::Empty),
            (b"  ", Malformed::Empty),
            (b"\"\"", Malformed::Empty),
            (b"a,b", Malformed::List),
            (b"\"k", Malformed::NotAString),
            (b"\"k\" x", Malformed::NotAString),
            (b"\"a\", \"b\"", Malformed::NotAString),
            (b"\"a\\b\"", Malformed::NotAString),
            (b"\"a\tb\"", Malformed::NotAString),
            (b"\"\xC3\xA9\"", Malformed::NotAString),
            (b"a\tb", Malformed::NotPrintableAscii),
            (b"\xC3\xA9", Malformed::NotPrintableAscii),
            (b"\xFF", Malformed::NotPrintableAscii),
            (long.as_bytes(), Malformed::TooLong),
            (quoted_long.as_bytes(), Malformed::TooLong),
        ];
        for (line, fault) in table {
            assert_eq!(parsed(line), Err(*fault), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn strictly_only_a_string_is_a_key() {
        for line in [b"\"k\"".as_slice(), b" \"k\";v=1 "] {
            assert_eq!(strictly_parsed(line), Ok("k".to_owned()), "{}", line.escape_ascii());
        }
        let table: &[(&[u8], Malformed)] = &[
            (b"k", Malformed::NotQuoted),
            (b"8e03978e", Malformed::NotQuoted),
            (b"?1", Malformed::NotQuoted),
            (b":aGVsbG8=:", Malformed::NotQuoted),
            (b"k, \"k\"", Malformed::NotQuoted),
            (b"\xFF", Malformed::NotQuoted),
            (b"", Malformed::Empty),
            (b"\"\"", Malformed::Empty),
            (b"\"k", Malformed::NotAString),
        ];
        for (line, fault) in table {
            assert_eq!(strictly_parsed(line), Err(*fault), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn no_line_is_no_key_and_two_lines_are_none_either() {
        let line = HeaderValue::from_static("k");
        assert_eq!(from_lines([None, None], false), Ok(None));
        assert_eq!(from_lines([Some(&line), None], false), Ok(Some("k".into())));
        assert_eq!(from_lines([Some(&line), Some(&line)], false), Err(Malformed::Repeated));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn every_line_is_a_key_of_printable_ascii_or_refused(line in line(), strict: bool) {
            let line = HeaderValue::from_bytes(&line).expect("a header value");
            if let Ok(key) = parse(&line, strict) {
                prop_assert!((1..=MAX_LEN).contains(&key.len()), "{:?}", key);
                prop_assert!(key.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", key);
            }
        }

        #[test]
        fn every_key_comes_back_from_its_string(key in "[ -~]{1,255}", strict: bool) {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            let line = HeaderValue::from_str(&quoted).expect("a header value");
            prop_assert_eq!(parse(&line, strict), Ok(key.into()));
        }
    }

    /// Whatever HTTP lets through, and mostly what looks like a key.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let syntax = prop::sample::select(b"\"\\,;= \tk1?:*".to_vec());
        let byte = prop_oneof![4 => syntax, 1 => Just(b'\t'), 2 => b' '..=b'~', 1 => 128_u8..];
        prop::collection::vec(byte, 0..300)
    }
}
