//! The recorded result of a task, as bytes.
//!
//! | bytes | meaning |
//! |---|---|
//! | 1 | the version of this layout, 1 |
//! | 1 | what follows: 1 for a result, 2 and 3 for a final error whose verdict was [`Verdict::SetAside`] or [`Verdict::Acknowledge`] |
//! | rest | the result as JSON, or the text of the error |
//!
//! A version that meets another number does not read the record, and does not run the task.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::refused::{Refused, RefusedKind, Verdict};

const VERSION: u8 = 1;
const RESULT: u8 = 1;
const SET_ASIDE: u8 = 2;
const ACKNOWLEDGED: u8 = 3;

/// The longest text of a final error that is kept, in bytes.
const MAX_TEXT: usize = 1024;

/// A result, as it is recorded.
pub(crate) fn result<T: Serialize>(value: &T) -> serde_json::Result<Bytes> {
    let mut bytes = vec![VERSION, RESULT];
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes.into())
}

/// A final error, as it is recorded.
pub(crate) fn failure(text: &str, verdict: Verdict) -> Bytes {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kind = match verdict {
        Verdict::Acknowledge => ACKNOWLEDGED,
        Verdict::SetAside | Verdict::Redeliver(_) => SET_ASIDE,
    };
    [&[VERSION, kind], &text.as_bytes()[..end]].concat().into()
}

/// What an earlier delivery came to.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let verdict = match bytes {
        [VERSION, RESULT, json @ ..] => {
            let unreadable = |error| Refused::new(RefusedKind::ResultUnreadable).with_source(error);
            return serde_json::from_slice(json).map_err(unreadable);
        }
        [VERSION, SET_ASIDE, ..] => Verdict::SetAside,
        [VERSION, ACKNOWLEDGED, ..] => Verdict::Acknowledge,
        // Of another version: it may be read once this process is of that version too.
        _ => return Err(Refused::new(RefusedKind::BackendUnavailable).with_source("the record is of another version")),
    };
    let text = String::from_utf8_lossy(bytes.get(2..).unwrap_or_default()).into_owned();
    Err(Refused::new(RefusedKind::Failed(verdict)).with_source(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_results_are_frozen_and_come_back() {
        let bytes = result(&("o-1", 7)).expect("it has a form");
        assert_eq!(&bytes[..], b"\x01\x01[\"o-1\",7]");
        assert_eq!(read::<(String, u32)>(&bytes).expect("readable"), ("o-1".to_owned(), 7));
        let other = read::<u32>(&bytes).expect_err("another type");
        assert_eq!(other.kind(), RefusedKind::ResultUnreadable);
    }

    #[test]
    fn recorded_errors_are_frozen_and_come_back() {
        for (verdict, kind) in [(Verdict::SetAside, 2), (Verdict::Acknowledge, 3)] {
            let bytes = failure("no such address", verdict);
            assert_eq!(&bytes[..2], [1, kind]);
            let failed = read::<u32>(&bytes).expect_err("it failed");
            assert_eq!(failed.kind(), RefusedKind::Failed(verdict));
            assert_eq!(failed.verdict(), verdict);
            assert!(std::error::Error::source(&failed).is_some_and(|text| text.to_string() == "no such address"));
        }
        assert_eq!(failure(&"ä".repeat(600), Verdict::SetAside).len(), 2 + MAX_TEXT);
    }

    #[test]
    fn what_is_not_known_is_neither_a_result_nor_absent() {
        for bytes in [&b""[..], b"\x01", b"\x01\x09x", b"\x02\x011", b"HTTP"] {
            let unknown = read::<u32>(bytes).expect_err("not known");
            assert_eq!(unknown.kind(), RefusedKind::BackendUnavailable, "{bytes:?}");
        }
    }
}
