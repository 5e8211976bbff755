//! The digest by which two requests under one key are compared (IDEM-3).
//!
//! Owns the value and its comparison. Does not own how a request is hashed: the integration does that, and numbers its
//! hashing scheme, so that a changed scheme is not mistaken for another request.

use std::fmt;

/// The digest of a request, and the number of the scheme that made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    scheme: u8,
    digest: [u8; 32],
}

impl Fingerprint {
    /// The length of [`Fingerprint::to_bytes`].
    pub const LEN: usize = 33;

    /// The fingerprint of a request whose content is not compared.
    pub const NONE: Self = Self {
        scheme: 0,
        digest: [0; 32],
    };

    /// A digest made by the numbered `scheme`; 0 is reserved for [`Fingerprint::NONE`].
    #[must_use]
    pub const fn new(scheme: u8, digest: [u8; 32]) -> Self {
        Self { scheme, digest }
    }

    /// Whether the two fingerprints prove that the requests differ.
    ///
    /// Digests of different schemes cannot be compared, so they do not differ. A deployment that changes the scheme must
    /// not refuse the retries of requests that were made before it.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.digest != other.digest
    }

    /// The stored form: scheme, then digest.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = self.scheme;
        bytes[1..].copy_from_slice(&self.digest);
        bytes
    }

    /// Reads [`Fingerprint::to_bytes`] back.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [scheme, digest @ ..] = bytes;
        Self { scheme, digest }
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to compare two log lines by eye, too little to confirm a guessed body.
        let [first, second, ..] = self.digest;
        write!(f, "Fingerprint({}:{first:02x}{second:02x}..)", self.scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_fingerprints_are_frozen_and_come_back() {
        let fingerprint = Fingerprint::new(2, [7; 32]);
        let bytes = fingerprint.to_bytes();
        assert_eq!(bytes[0], 2);
        assert_eq!(bytes[1..], [7; 32]);
        assert_eq!(Fingerprint::from_bytes(bytes), fingerprint);
        assert_eq!(Fingerprint::NONE.to_bytes(), [0; Fingerprint::LEN]);
    }

    #[test]
    fn only_digests_of_one_scheme_differ() {
        let fingerprint = Fingerprint::new(1, [7; 32]);
        assert!(fingerprint.differs_from(&Fingerprint::new(1, [8; 32])));
        assert!(!fingerprint.differs_from(&Fingerprint::new(1, [7; 32])));
        assert!(!fingerprint.differs_from(&Fingerprint::new(2, [8; 32])));
        assert!(!fingerprint.differs_from(&Fingerprint::NONE));
    }
}
