//! Which steps a record had.
//!
//! Owns what tells the steps of a record from its steps a moment later: their names, and the beginning of the bytes of each, which has
//! its state and the attempt that recorded it. The results are left out, because no attempt records a step twice.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// How many bytes of a step tell how far it has come: docs/formats.md, "A step".
pub const STEP_HEAD_LEN: usize = 7;

/// A digest of the steps that a record had when an operator saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StepsDigest(pub(super) u32);

impl StepsDigest {
    /// Of a record without steps.
    pub const NONE: Self = Self(0);

    /// Of these steps, in any order: names and bytes.
    #[must_use]
    pub fn of<'a>(steps: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        Self::of_signature(&signature(steps))
    }

    /// Of what [`signature`] says of the steps.
    #[must_use]
    pub fn of_signature(signature: &str) -> Self {
        if signature.is_empty() {
            return Self::NONE;
        }
        let digest: [u8; 32] = Sha256::digest(signature).into();
        let [a, b, c, d, ..] = digest;
        // Zero is no step at all.
        Self(u32::from_be_bytes([a, b, c, d]).max(1))
    }
}

/// The steps as text, in the order of their names: `name=` and the first [`STEP_HEAD_LEN`] bytes as hexadecimal digits, with commas
/// between the steps. Empty if there is none. A store compares it in the settlement itself.
#[must_use]
pub fn signature<'a>(steps: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut steps: Vec<_> = steps.into_iter().collect();
    steps.sort_unstable();
    let mut text = String::new();
    for (name, step) in steps {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push('=');
        for byte in step.iter().take(STEP_HEAD_LEN) {
            // Writing to a `String` does not fail.
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_goes_on_changes_the_digest_and_its_result_does_not() {
        let one = |step: &'static [u8]| StepsDigest::of([("charge", step)]);
        let started = b"\x01\x01\0\0\0\x01\0";
        assert_eq!(StepsDigest::of([]), StepsDigest::NONE);
        assert_ne!(one(started), StepsDigest::NONE);
        assert_ne!(one(started), one(b"\x01\x02\0\0\0\x01\x001"));
        assert_ne!(one(started), one(b"\x01\x01\0\0\0\x02\0"));
        assert_eq!(one(b"\x01\x02\0\0\0\x01\x001"), one(b"\x01\x02\0\0\0\x01\x002"));
        let both = [("charge", &started[..]), ("mail", started)];
        assert_eq!(StepsDigest::of(both), StepsDigest::of([both[1], both[0]]));
        assert_eq!(signature(both), "charge=01010000000100,mail=01010000000100");
    }
}
