//! What an author chooses for one handler; the attribute's options as a value.

use std::time::Duration;

use axum::http::StatusCode;
use idem_core::AfterCrash;

/// The header that carries the key where nothing else is set, in lower case as HTTP/2 has it.
const DEFAULT_HEADER: &str = "idempotency-key";

/// The options of one `#[idempotent]` handler, by the names the attribute has for them, and as it has checked them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    durations: idem_core::Policy,
    header: &'static str,
    required: bool,
    name: Option<&'static str>,
    accept: bool,
    run_in_outage: bool,
    stored: StoredAnswers,
    max_response: usize,
}

/// Which answers are stored (IDEM-11). The others release their key, so that a retry runs again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoredAnswers {
    /// Every answer except 408, 425, 429 and 5xx.
    #[default]
    Final,
    /// 2xx and 3xx.
    Success,
    /// Every answer, 5xx included.
    All,
}

impl StoredAnswers {
    pub(crate) fn include(self, status: StatusCode) -> bool {
        let passing = [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        match self {
            // What is left out says that the operation could not be carried out this time.
            Self::Final => !status.is_server_error() && !passing.contains(&status),
            Self::Success => status.is_success() || status.is_redirection(),
            Self::All => true,
        }
    }
}

impl Policy {
    /// The largest body that is stored where nothing is set, in bytes.
    pub const DEFAULT_MAX_RESPONSE: usize = 1024 * 1024;
    /// The most that can be set. An answer is held in memory while it is copied, and in the backend until its ttl.
    pub const LARGEST_MAX_RESPONSE: usize = 64 * 1024 * 1024;

    /// Completed answers are replayed for `ttl`; everything else is as the attribute's defaults.
    ///
    /// # Panics
    ///
    /// When `ttl` is below 100 milliseconds or above ten years; at compile time in a `const`.
    #[must_use]
    pub const fn new(ttl: Duration) -> Self {
        Self {
            durations: idem_core::Policy::new(ttl),
            header: DEFAULT_HEADER,
            required: true,
            name: None,
            accept: false,
            run_in_outage: false,
            stored: StoredAnswers::Final,
            max_response: Self::DEFAULT_MAX_RESPONSE,
        }
    }

    /// Lets a duplicate wait for the first one's answer; where nothing is set it is refused.
    #[must_use]
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        self.durations = self.durations.with_wait(wait);
        self
    }

    /// Answers a duplicate in flight with 202 in place of 409.
    #[must_use]
    pub const fn with_accept(mut self) -> Self {
        self.accept = true;
        self
    }

    /// Sets what becomes of a request whose owner died.
    #[must_use]
    pub const fn with_after_crash(mut self, after_crash: AfterCrash) -> Self {
        self.durations = self.durations.with_after_crash(after_crash);
        self
    }

    /// Lets the handler run unprotected where the backend cannot be asked.
    #[must_use]
    pub const fn with_run_in_outage(mut self) -> Self {
        self.run_in_outage = true;
        self
    }

    /// Sets which answers are stored; all but 408, 425, 429 and 5xx where nothing is set.
    #[must_use]
    pub const fn with_stored(mut self, stored: StoredAnswers) -> Self {
        self.stored = stored;
        self
    }

    /// Sets how many bytes the body of a stored answer may have (IDEM-12); 1 MiB where nothing is set.
    ///
    /// # Panics
    ///
    /// When `bytes` is zero or above 64 MiB; at compile time in a `const`.
    #[must_use]
    pub const fn with_max_response(mut self, bytes: usize) -> Self {
        assert!(bytes > 0, "max_response is zero");
        assert!(
            bytes <= Self::LARGEST_MAX_RESPONSE,
            "max_response is larger than 64 MiB"
        );
        self.max_response = bytes;
        self
    }

    pub(crate) fn stored(&self) -> StoredAnswers {
        self.stored
    }

    pub(crate) fn max_response(&self) -> usize {
        self.max_response
    }

    pub(crate) fn accepts(&self) -> bool {
        self.accept
    }

    pub(crate) fn runs_in_outage(&self) -> bool {
        self.run_in_outage
    }

    /// Sets how long a claim holds without being renewed; 30 seconds where nothing is set.
    ///
    /// # Panics
    ///
    /// When `lease` is below 100 milliseconds or above 24 hours; at compile time in a `const`.
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.durations = self.durations.with_lease(lease);
        self
    }

    /// Sets the name of the header that carries the key; `Idempotency-Key` where nothing is set.
    #[must_use]
    pub const fn with_header(mut self, header: &'static str) -> Self {
        self.header = header;
        self
    }

    /// Sets whether a request must carry a key; `true` where nothing is set.
    ///
    /// A request without a key then runs unprotected. A malformed key is refused all the same.
    #[must_use]
    pub const fn with_required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// Sets the operation's identity in stored keys; the method and the matched route where nothing is set.
    ///
    /// With a name, records survive a change of the route.
    #[must_use]
    pub const fn with_name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    pub(crate) fn durations(&self) -> &idem_core::Policy {
        &self.durations
    }

    pub(crate) fn header(&self) -> &'static str {
        self.header
    }

    pub(crate) fn required(&self) -> bool {
        self.required
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_stored_or_released_by_the_word_for_it() {
        let stored = |stored: StoredAnswers| {
            let statuses = (100..=999).filter_map(|status| StatusCode::from_u16(status).ok());
            let stored = statuses.filter(move |status| stored.include(*status));
            stored.map(|status| status.as_u16()).collect::<Vec<_>>()
        };
        assert_eq!(stored(StoredAnswers::All), (100..=999).collect::<Vec<_>>());
        assert_eq!(stored(StoredAnswers::Success), (200..400).collect::<Vec<_>>());
        let released = [408, 425, 429];
        let is_final = |status: &u16| !released.contains(status) && !(500..600).contains(status);
        assert_eq!(
            stored(StoredAnswers::Final),
            (100..=999).filter(is_final).collect::<Vec<_>>()
        );
    }
}
