//! The settings that keep keys and bodies from being read in logs and records.

use idem_http::fingerprint::FingerprintKey;

use super::Idempotency;

impl Idempotency {
    /// Shows scopes and idempotency keys as hashes in logs, spans and figures: the first 16 hexadecimal digits of the
    /// SHA-256 of each.
    ///
    /// `printf %s "$key" | sha256sum` finds the lines of a key (of one with other characters than ASCII letters, digits and
    /// `-_.~/`, in its escaped form). Whoever can guess a key can check the guess, so it hides UUIDs well and e-mail
    /// addresses badly. The records have the plain keys. The operation is shown as it is: where no route has matched (in a
    /// fallback), it is the path of the request, so give such a handler a `name`.
    #[must_use]
    pub fn with_hashed_keys(mut self) -> Self {
        self.settings_mut().hashed_keys = true;
        self
    }

    /// Makes fingerprints with `key`, so that nobody who reads the stored records can check a guess at a request without it.
    ///
    /// Without it, a fingerprint is a plain SHA-256. If the body has a password in it, whoever reads the records can try
    /// passwords until the digest is the same. With it, a fingerprint is an HMAC-SHA-256. All processes of a service need the same
    /// key. Use 32 random bytes, and keep them where the service's other secrets are, apart from the records.
    ///
    /// Records that were made with another key, or without one, are replayed without being compared until they expire. So a
    /// changed key refuses no honest retry. One change in 128 is an exception: there the old and the new records look alike, and
    /// retries of requests before the change get 422 `key-reused`. `docs/formats.md` has it in full.
    ///
    /// ```no_run
    /// use idem_axum::{Idempotency, MemoryBackend};
    ///
    /// let key = std::fs::read("/run/secrets/fingerprint-key").expect("the secret is mounted");
    /// let idempotency = Idempotency::new(MemoryBackend::new()).with_fingerprint_key(key);
    /// ```
    ///
    /// # Panics
    ///
    /// When `key` is empty.
    #[must_use]
    pub fn with_fingerprint_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.settings_mut().fingerprint_key = Some(FingerprintKey::new(key.as_ref()));
        self
    }
}
