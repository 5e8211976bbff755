//! Whatever the parts are made of, the encoded key can be read back, so no two triples share one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A scope or a natural key, as an author writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Value(String),
    Tuple(Vec<Written>),
}

impl Written {
    fn scope(&self) -> Scope {
        match self {
            Self::Value(value) => Scope::of(value),
            Self::Tuple(parts) => match &parts[..] {
                [only] => Scope::tuple([only.scope()]),
                [one, other] => Scope::tuple([one.scope(), other.scope()]),
                [one, other, third, ..] => Scope::tuple([one.scope(), other.scope(), third.scope()]),
                [] => Scope::tuple([]),
            },
        }
    }
}

/// Reads an encoded part back, and what comes after it.
fn read(encoded: &str) -> (Written, &str) {
    if let Some(mut rest) = encoded.strip_prefix('(') {
        let mut parts = Vec::new();
        while !rest.starts_with(')') {
            let (part, after) = read(rest.strip_prefix(',').unwrap_or(rest));
            parts.push(part);
            rest = after;
        }
        return (Written::Tuple(parts), &rest[1..]);
    }
    let end = encoded.find([',', ')', ':']).unwrap_or(encoded.len());
    (Written::Value(unescape(&encoded[..end])), &encoded[end..])
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = str::from_utf8(&after[..2]).expect("ASCII");
            bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).expect("as it was")
}

/// Any text, and mostly what looks like syntax: the encoding's own, a store's, a path's or a terminal's.
fn text() -> impl Strategy<Value = String> {
    let syntax = prop::sample::select(
        ":%,()@{}*?[]\\\"'/.~ \r\n\u{1b}\u{9b}\u{202e}\0é3A"
            .chars()
            .collect::<Vec<_>>(),
    );
    let one = prop_oneof![3 => syntax, 1 => any::<char>()];
    vec(one, 1..12).prop_map(|chars| chars.into_iter().collect())
}

fn written() -> impl Strategy<Value = Written> {
    let value = text().prop_map(Written::Value);
    value.prop_recursive(3, 12, 3, |inner| vec(inner, 1..=3).prop_map(Written::Tuple))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_key_can_be_read_back_and_has_no_syntax_but_its_own(
        operation in text(),
        scope in written(),
        key in text(),
    ) {
        let record = RecordKey::new(&operation, &scope.scope(), &IdempotencyKey::of(&key)).expect("short parts");
        let same = RecordKey::of(&operation, &scope.scope(), &key);
        prop_assert_eq!(same, Ok(record.clone()));
        let encoded = record.as_str();
        let harmless = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\"'\\".contains(&byte);
        prop_assert!(encoded.bytes().all(harmless), "{}", encoded);
        prop_assert_eq!(encoded.matches(':').count(), 2);

        let (read_operation, rest) = read(encoded);
        let (read_scope, rest) = read(&rest[1..]);
        let (read_key, rest) = read(&rest[1..]);
        prop_assert_eq!(read_operation, Written::Value(operation));
        prop_assert_eq!(read_scope, scope);
        prop_assert_eq!(read_key, Written::Value(key));
        prop_assert_eq!(rest, "");
    }
}
