//! Keys for the calls that a handler makes itself.
//!
//! Owns their derivation from the record's key, which is frozen: another derivation would make a retry call again under another
//! key.

use sha2::{Digest as _, Sha256};

use super::RecordKey;
use crate::Token;

impl RecordKey {
    /// A key for a call that the handler of this record makes itself, in the form of a UUID (version 8 of RFC 9562).
    ///
    /// It is the same for every attempt, and different for each label and each record.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        derive(self.as_str().as_bytes(), label)
    }
}

/// Such a key for a handler that runs without a claim. It is new each time, because nothing tells a retry from a first request.
#[must_use]
pub fn unrepeatable_key(label: &str) -> String {
    derive(&Token::random().to_bytes(), label)
}

fn derive(source: &[u8], label: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"idem downstream key 1");
    hash.update(source);
    // No record key contains a NUL.
    hash.update([0]);
    hash.update(label);
    uuid(hash.finalize().into())
}

/// The first 16 bytes, marked as a UUID of version 8.
fn uuid(digest: [u8; 32]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0F | 0x80;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
