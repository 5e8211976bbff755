//! Whatever a header line is made of, it is a key of printable ASCII or refused; and each key comes back from its String.
#![no_main]

use idem_http::__fuzz::key;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (strict, line) = input;
    let Some(found) = key(line, strict) else { return };
    assert!((1..=255).contains(&found.len()), "{found:?}");
    assert!(found.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{found:?}");
    let quoted = format!("\"{}\"", found.replace('\\', "\\\\").replace('"', "\\\""));
    assert_eq!(key(quoted.as_bytes(), true), Some(found));
});
