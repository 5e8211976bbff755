//! What an author chooses for one handler, or an application for all of them; the attribute's options as a value.
//!
//! Owns the options that can have a default: their values, their bounds, and what holds where nothing is set. What
//! belongs to one handler alone (its `ttl`, `name`, `scope`, `key` and `engine`) is the
//! [`Operation`](crate::operation::Operation)'s.

use std::time::Duration;

use axum::http::StatusCode;
use idem_core::AfterCrash;

/// Options of `#[idempotent]` by the same names and with the same meanings, each of them set or left open.
///
/// As [`Idempotency::with_defaults`](crate::Idempotency::with_defaults) it holds for all handlers whose attributes leave
/// an option open. What belongs to one handler (`ttl`, `scope`, `key`, `name`, `engine`) is in its attribute and has no
/// default.
///
/// ```
/// use std::time::Duration;
///
/// use idem_axum::{Idempotency, InFlight, MemoryBackend, Policy};
///
/// const DEFAULTS: Policy = Policy::new()
///     .with_in_flight(InFlight::Wait)
///     .with_wait(Duration::from_secs(3))
///     .with_max_response(64 * 1024);
///
/// let idempotency = Idempotency::new(MemoryBackend::new()).with_defaults(DEFAULTS);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub(crate) header: Option<&'static str>,
    pub(crate) required: Option<bool>,
    lease: Option<Duration>,
    pub(crate) in_flight: Option<InFlight>,
    wait: Option<Duration>,
    pub(crate) after_crash: Option<AfterCrash>,
    pub(crate) store: Option<StoredAnswers>,
    fingerprint: Option<Compared>,
    on_outage: Option<OnOutage>,
    max_response: Option<usize>,
}

/// What a duplicate gets while the first one runs (IDEM-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InFlight {
    /// 409 with `Retry-After`.
    #[default]
    Reject,
    /// The first one's answer, or 409 when that takes longer than `wait`.
    Wait,
    /// 202 with `Retry-After`.
    Accept,
}

/// What tells an equal request from another one under its key (IDEM-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compared {
    /// Method, path with query, media type, content encoding and body; `fingerprint = "request"`.
    #[default]
    Request,
    /// Nothing: all requests under a key are equal; `fingerprint = "none"`.
    Nothing,
}

/// What becomes of a request whose key cannot be checked, since the backend is away (IDEM-13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnOutage {
    /// 503, and the handler does not run.
    #[default]
    Refuse,
    /// The handler runs unprotected.
    Run,
}

/// Which answers are stored (IDEM-11). The others release their key, so that a retry runs again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoredAnswers {
    /// Every answer except 408, 425, 429, 5xx, and a 4xx with `Retry-After`.
    #[default]
    Final,
    /// 2xx and 3xx.
    Success,
    /// Every answer, 5xx included. What an idem service behind the handler has answered in place of its own is not stored
    /// all the same, for that is never final (IDEM-18).
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
    /// The header that carries the key where nothing else is set, in lower case as HTTP/2 has it.
    pub const DEFAULT_HEADER: &'static str = "idempotency-key";
    /// How long a duplicate waits where it does and nothing else is set.
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);
    /// The longest that can be set; longer than any client waits for an answer.
    pub const LONGEST_WAIT: Duration = Duration::from_hours(1);
    /// The largest body that is stored where nothing is set, in bytes.
    pub const DEFAULT_MAX_RESPONSE: usize = 1024 * 1024;
    /// The most that can be set. An answer is held in memory while it is copied, and in the backend until its ttl.
    pub const LARGEST_MAX_RESPONSE: usize = 64 * 1024 * 1024;

    /// Leaves every option open.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            header: None,
            required: None,
            lease: None,
            in_flight: None,
            wait: None,
            after_crash: None,
            store: None,
            fingerprint: None,
            on_outage: None,
            max_response: None,
        }
    }

    /// Sets the name of the header that carries the key; [`Policy::DEFAULT_HEADER`] where nothing is set.
    ///
    /// # Panics
    ///
    /// When `header` is empty or has a character that header names cannot have; at compile time in a `const`.
    #[must_use]
    pub const fn with_header(mut self, header: &'static str) -> Self {
        assert!(is_token(header), "`header` is no name of a header");
        self.header = Some(header);
        self
    }

    /// Sets whether a request must carry a key; `true` where nothing is set.
    ///
    /// A request without a key then runs unprotected. A malformed key is refused all the same.
    #[must_use]
    pub const fn with_required(mut self, required: bool) -> Self {
        self.required = Some(required);
        self
    }

    /// Sets how long a claim holds without being renewed; 30 seconds where nothing is set.
    ///
    /// # Panics
    ///
    /// When `lease` is below 100 milliseconds or above 24 hours; at compile time in a `const`.
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        let _checked = idem_core::ClaimPolicy::new(idem_core::ClaimPolicy::MIN).with_lease(lease);
        self.lease = Some(lease);
        self
    }

    /// Sets what a duplicate gets while the first one runs; a refusal where nothing is set.
    #[must_use]
    pub const fn with_in_flight(mut self, in_flight: InFlight) -> Self {
        self.in_flight = Some(in_flight);
        self
    }

    /// Sets the longest a duplicate waits, where it does; [`Policy::DEFAULT_WAIT`] where nothing is set.
    ///
    /// # Panics
    ///
    /// When `wait` is below 100 milliseconds or above [`Policy::LONGEST_WAIT`]; at compile time in a `const`.
    #[must_use]
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        assert!(
            wait.as_millis() >= idem_core::ClaimPolicy::MIN.as_millis(),
            "`wait` is shorter than 100 milliseconds"
        );
        assert!(
            wait.as_millis() <= Self::LONGEST_WAIT.as_millis(),
            "`wait` is longer than one hour"
        );
        self.wait = Some(wait);
        self
    }

    /// Sets what becomes of a request whose owner died; it is run again where nothing is set.
    #[must_use]
    pub const fn with_after_crash(mut self, after_crash: AfterCrash) -> Self {
        self.after_crash = Some(after_crash);
        self
    }

    /// Sets which answers are stored; all but 408, 425, 429 and 5xx where nothing is set.
    #[must_use]
    pub const fn with_store(mut self, store: StoredAnswers) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets what tells an equal request from another one, where its handler names no value; the request itself where
    /// nothing is set.
    #[must_use]
    pub const fn with_fingerprint(mut self, fingerprint: Compared) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// Sets whether handlers run unprotected while the backend is away; they do not where nothing is set.
    #[must_use]
    pub const fn with_on_outage(mut self, on_outage: OnOutage) -> Self {
        self.on_outage = Some(on_outage);
        self
    }

    /// Sets how many bytes the body of a stored answer may have (IDEM-12); 1 MiB where nothing is set.
    ///
    /// # Panics
    ///
    /// When `bytes` is zero or above 64 MiB; at compile time in a `const`.
    #[must_use]
    pub const fn with_max_response(mut self, bytes: usize) -> Self {
        assert!(bytes > 0, "`max_response` is zero");
        assert!(
            bytes <= Self::LARGEST_MAX_RESPONSE,
            "`max_response` is larger than 64 MiB"
        );
        self.max_response = Some(bytes);
        self
    }

    /// This policy, and `defaults` where it leaves an option open.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self {
            header: self.header.or(defaults.header),
            required: self.required.or(defaults.required),
            lease: self.lease.or(defaults.lease),
            in_flight: self.in_flight.or(defaults.in_flight),
            wait: self.wait.or(defaults.wait),
            after_crash: self.after_crash.or(defaults.after_crash),
            store: self.store.or(defaults.store),
            fingerprint: self.fingerprint.or(defaults.fingerprint),
            on_outage: self.on_outage.or(defaults.on_outage),
            max_response: self.max_response.or(defaults.max_response),
        }
    }

    /// What the engine works by.
    pub(crate) fn durations(&self, ttl: Duration) -> idem_core::ClaimPolicy {
        let mut durations = idem_core::ClaimPolicy::new(ttl).with_after_crash(self.after_crash.unwrap_or_default());
        if let Some(lease) = self.lease {
            durations = durations.with_lease(lease);
        }
        if self.in_flight() == InFlight::Wait {
            durations = durations.with_wait(self.wait.unwrap_or(Self::DEFAULT_WAIT));
        }
        durations
    }

    pub(crate) fn header(&self) -> &'static str {
        self.header.unwrap_or(Self::DEFAULT_HEADER)
    }

    pub(crate) fn required(&self) -> bool {
        self.required.unwrap_or(true)
    }

    pub(crate) fn in_flight(&self) -> InFlight {
        self.in_flight.unwrap_or_default()
    }

    pub(crate) fn store(&self) -> StoredAnswers {
        self.store.unwrap_or_default()
    }

    pub(crate) fn fingerprint(&self) -> Compared {
        self.fingerprint.unwrap_or_default()
    }

    pub(crate) fn on_outage(&self) -> OnOutage {
        self.on_outage.unwrap_or_default()
    }

    pub(crate) fn max_response(&self) -> usize {
        self.max_response.unwrap_or(Self::DEFAULT_MAX_RESPONSE)
    }
}

/// Whether `name` can name a header.
const fn is_token(name: &str) -> bool {
    let mut rest = name.as_bytes();
    while let [byte, after @ ..] = rest {
        let others = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < others.len() && others[at] != *byte {
            at += 1;
        }
        if at == others.len() && !byte.is_ascii_alphanumeric() {
            return false;
        }
        rest = after;
    }
    !name.is_empty()
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

    #[test]
    fn what_is_set_beats_the_default_which_beats_what_is_built_in() {
        let ttl = Duration::from_mins(1);
        let defaults = Policy::new()
            .with_header("x-default")
            .with_required(false)
            .with_in_flight(InFlight::Wait)
            .with_store(StoredAnswers::All)
            .with_fingerprint(Compared::Nothing)
            .with_on_outage(OnOutage::Run)
            .with_max_response(7)
            .with_after_crash(AfterCrash::Refuse)
            .with_lease(Duration::from_secs(5))
            .with_wait(Duration::from_secs(2));
        let set = Policy::new()
            .with_header("x-set")
            .with_required(true)
            .with_in_flight(InFlight::Reject)
            .with_store(StoredAnswers::Success)
            .with_fingerprint(Compared::Request)
            .with_on_outage(OnOutage::Refuse)
            .with_max_response(9)
            .with_after_crash(AfterCrash::Rerun)
            .with_lease(Duration::from_secs(6))
            .with_wait(Duration::from_secs(3));
        assert_eq!(set.or(defaults), set);
        assert_eq!(Policy::new().or(defaults), defaults);
        assert_eq!(Policy::new().durations(ttl), idem_core::ClaimPolicy::new(ttl));
        assert_eq!(Policy::new().header(), "idempotency-key");
        let waiting = Policy::new().with_in_flight(InFlight::Wait);
        assert_eq!(waiting.or(defaults).durations(ttl).wait(), Some(Duration::from_secs(2)));
        assert_eq!(waiting.durations(ttl).wait(), Some(Policy::DEFAULT_WAIT));
        // Of no meaning where nobody waits.
        assert_eq!(set.or(defaults).durations(ttl).wait(), None);
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_when_it_is_set() {
        type Setting = (&'static str, fn() -> Policy);
        let refused: [Setting; 9] = [
            ("lease", || Policy::new().with_lease(Duration::from_millis(99))),
            ("lease", || {
                Policy::new().with_lease(Duration::from_hours(24) + Duration::from_millis(1))
            }),
            ("wait", || Policy::new().with_wait(Duration::ZERO)),
            ("wait", || {
                Policy::new().with_wait(Policy::LONGEST_WAIT + Duration::from_millis(1))
            }),
            ("max_response", || Policy::new().with_max_response(0)),
            ("max_response", || {
                Policy::new().with_max_response(Policy::LARGEST_MAX_RESPONSE + 1)
            }),
            ("header", || Policy::new().with_header("")),
            ("header", || Policy::new().with_header("a b")),
            ("header", || Policy::new().with_header("schlüssel")),
        ];
        for (option, set) in refused {
            let panic = std::panic::catch_unwind(set).expect_err(option);
            let message = panic.downcast_ref::<&str>().copied().expect("a message");
            assert!(message.contains(option), "{option}: {message}");
        }
    }
}
