//! Whatever operation, scope and key are made of, their record key has no syntax but its own and can be read back.
#![no_main]

use idem_core::{IdempotencyKey, RecordKey, Scope};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str, &str)| {
    let (operation, tenant, user, key) = input;
    let scope = Scope::tuple([Scope::of(tenant), Scope::of(user)]);
    let Ok(record) = RecordKey::new(operation, &scope, &IdempotencyKey::of(key)) else {
        return;
    };
    let encoded = record.as_str();
    let is_harmless = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\"'\\".contains(&byte);
    assert!(encoded.bytes().all(is_harmless), "{encoded}");
    let parts: Vec<_> = encoded.split([':', '(', ',', ')']).map(unescaped).collect();
    assert_eq!(parts, [operation, "", tenant, user, "", key], "{encoded}");
});

fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).expect("as it was")
}
