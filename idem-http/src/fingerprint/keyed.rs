//! Fingerprints that only the holder of a key can make.
//!
//! Owns how a key changes a fingerprint and its scheme. `docs/formats.md` says what changing the key means.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use idem_core::Fingerprint;
use sha2::Sha256;

/// Before the scheme, in what the number of a keyed scheme is made of. A fingerprint is longer, so no fingerprint is hashed as
/// the name of a scheme.
const SCHEME: &[u8] = b"idem fingerprint key id";

/// The bit that the schemes of keyed fingerprints have, and others do not.
const KEYED: u8 = 0x80;

/// The key of an application's fingerprints.
///
/// Its `Debug` does not show it.
#[derive(Clone)]
pub struct FingerprintKey(Hmac<Sha256>);

impl FingerprintKey {
    /// A key of any length but zero. Use 32 random bytes.
    ///
    /// # Panics
    ///
    /// When `key` is empty.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        assert!(!key.is_empty(), "the fingerprint key is empty");
        let Ok(hmac) = Hmac::new_from_slice(key) else {
            unreachable!("HMAC takes keys of any length");
        };
        Self(hmac)
    }

    /// The keyed form of `fingerprint`. [`Fingerprint::NONE`] stays what it is.
    #[must_use]
    pub fn keyed(&self, fingerprint: Fingerprint) -> Fingerprint {
        if fingerprint == Fingerprint::NONE {
            return fingerprint;
        }
        let bytes = fingerprint.to_bytes();
        let [scheme, ..] = bytes;
        let [number, ..] = self.hmac(&[SCHEME, &[scheme]]);
        Fingerprint::new(KEYED | number, self.hmac(&[&bytes]))
    }

    fn hmac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hmac = self.0.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FingerprintKey").finish_non_exhaustive()
    }
}
