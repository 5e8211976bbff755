//! What an author chooses for one handler, or an application for all of them; the attribute's options as a value.
//!
//! Owns the options that can have a default: their values, their bounds, and what holds where nothing is set. What
//! belongs to one handler alone (its `ttl`, `name`, `scope`, `key` and `engine`) is the
//! [`Operation`](crate::operation::Operation)'s.

mod choices;

use std::time::Duration;

use idem_core::AfterCrash;

pub use self::choices::{Compared, InFlight, OnOutage, StoredAnswers};

/// Options of `#[idempotent]` by the same names and with the same meanings, each of them set or left open.
///
/// An application's defaults hold for each handler whose attribute leaves an option open. The options that belong to one
/// handler (`ttl`, `scope`, `key`, `name`, `engine`) are in its attribute, and have no default.
///
/// ```
/// use std::time::Duration;
///
/// use idem_http::{InFlight, Policy};
///
/// const DEFAULTS: Policy = Policy::new()
///     .with_in_flight(InFlight::Wait)
///     .with_wait(Duration::from_secs(3))
///     .with_max_response(64 * 1024);
///
/// assert_eq!(DEFAULTS.in_flight(), InFlight::Wait);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    header: Option<&'static str>,
    required: Option<bool>,
    lease: Option<Duration>,
    in_flight: Option<InFlight>,
    wait: Option<Duration>,
    after_crash: Option<AfterCrash>,
    rerun_within: Option<Duration>,
    max_attempts: Option<u32>,
    max_run: Option<Duration>,
    store: Option<StoredAnswers>,
    fingerprint: Option<Compared>,
    on_outage: Option<OnOutage>,
    max_response: Option<usize>,
}

/// Options of a [`Policy`] as they were set; an option that was left open is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetOptions {
    /// The header that carries the key.
    pub header: Option<&'static str>,
    /// Whether a request must carry a key.
    pub required: Option<bool>,
    /// What a duplicate gets while the first one runs.
    pub in_flight: Option<InFlight>,
    /// What becomes of a request whose owner died.
    pub after_crash: Option<AfterCrash>,
    /// Which answers are stored.
    pub store: Option<StoredAnswers>,
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
            rerun_within: None,
            max_attempts: None,
            max_run: None,
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

    /// Sets for how long after the beginning of its first attempt a request may be run again; there is no limit where nothing is
    /// set.
    ///
    /// # Panics
    ///
    /// When `within` is below 100 milliseconds or above ten years; at compile time in a `const`.
    #[must_use]
    pub const fn with_rerun_within(mut self, within: Duration) -> Self {
        let _checked = idem_core::ClaimPolicy::new(idem_core::ClaimPolicy::MIN).with_rerun_within(within);
        self.rerun_within = Some(within);
        self
    }

    /// Sets how many attempts a request may have whose process dies each time; there is no limit where nothing is set.
    ///
    /// # Panics
    ///
    /// When `most` is zero; at compile time in a `const`.
    #[must_use]
    pub const fn with_max_attempts(mut self, most: u32) -> Self {
        let _checked = idem_core::ClaimPolicy::new(idem_core::ClaimPolicy::MIN).with_max_attempts(most);
        self.max_attempts = Some(most);
        self
    }

    /// Sets for how long a handler's claim is renewed; there is no limit where nothing is set.
    ///
    /// # Panics
    ///
    /// When `longest` is below 100 milliseconds; at compile time in a `const`.
    #[must_use]
    pub const fn with_max_run(mut self, longest: Duration) -> Self {
        let _checked = idem_core::ClaimPolicy::new(idem_core::ClaimPolicy::MIN).with_max_run(longest);
        self.max_run = Some(longest);
        self
    }

    /// Sets which answers are stored, if the answer has no [`Verdict`](crate::Verdict); all but 408, 425, 429 and 5xx where nothing
    /// is set.
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

    /// Those of its options that a description of the API shows, as they are set here.
    #[must_use]
    pub const fn set_options(&self) -> SetOptions {
        SetOptions {
            header: self.header,
            required: self.required,
            in_flight: self.in_flight,
            after_crash: self.after_crash,
            store: self.store,
        }
    }

    /// This policy, and `defaults` where it leaves an option open.
    #[must_use]
    pub fn or(self, defaults: Self) -> Self {
        Self {
            header: self.header.or(defaults.header),
            required: self.required.or(defaults.required),
            lease: self.lease.or(defaults.lease),
            in_flight: self.in_flight.or(defaults.in_flight),
            wait: self.wait.or(defaults.wait),
            after_crash: self.after_crash.or(defaults.after_crash),
            rerun_within: self.rerun_within.or(defaults.rerun_within),
            max_attempts: self.max_attempts.or(defaults.max_attempts),
            max_run: self.max_run.or(defaults.max_run),
            store: self.store.or(defaults.store),
            fingerprint: self.fingerprint.or(defaults.fingerprint),
            on_outage: self.on_outage.or(defaults.on_outage),
            max_response: self.max_response.or(defaults.max_response),
        }
    }

    /// What the engine works by.
    #[must_use]
    pub fn durations(&self, ttl: Duration) -> idem_core::ClaimPolicy {
        let mut durations = idem_core::ClaimPolicy::new(ttl).with_after_crash(self.after_crash.unwrap_or_default());
        if let Some(lease) = self.lease {
            durations = durations.with_lease(lease);
        }
        if let Some(within) = self.rerun_within {
            durations = durations.with_rerun_within(within);
        }
        if let Some(most) = self.max_attempts {
            durations = durations.with_max_attempts(most);
        }
        if let Some(longest) = self.max_run {
            durations = durations.with_max_run(longest);
        }
        if self.in_flight() == InFlight::Wait {
            durations = durations.with_wait(self.wait.unwrap_or(Self::DEFAULT_WAIT));
        }
        durations
    }

    /// The header that carries the key.
    #[must_use]
    pub fn header(&self) -> &'static str {
        self.header.unwrap_or(Self::DEFAULT_HEADER)
    }

    /// Whether a request must carry a key.
    #[must_use]
    pub fn required(&self) -> bool {
        self.required.unwrap_or(true)
    }

    /// What a duplicate gets while the first one runs.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.unwrap_or_default()
    }

    /// What becomes of a request whose owner died.
    #[must_use]
    pub fn after_crash(&self) -> AfterCrash {
        self.after_crash.unwrap_or_default()
    }

    /// For how long after the beginning of its first attempt a request may be run again; `None` where there is no limit.
    #[must_use]
    pub fn rerun_within(&self) -> Option<Duration> {
        self.rerun_within
    }

    /// How many attempts a request may have; `None` where there is no limit.
    #[must_use]
    pub fn max_attempts(&self) -> Option<u32> {
        self.max_attempts
    }

    /// For how long a handler's claim is renewed; `None` where there is no limit.
    #[must_use]
    pub fn max_run(&self) -> Option<Duration> {
        self.max_run
    }

    /// Which answers are stored.
    #[must_use]
    pub fn store(&self) -> StoredAnswers {
        self.store.unwrap_or_default()
    }

    /// What tells an equal request from another one.
    #[must_use]
    pub fn fingerprint(&self) -> Compared {
        self.fingerprint.unwrap_or_default()
    }

    /// Whether the handler runs while the backend is away.
    #[must_use]
    pub fn on_outage(&self) -> OnOutage {
        self.on_outage.unwrap_or_default()
    }

    /// The most bytes that the body of a stored answer may have.
    #[must_use]
    pub fn max_response(&self) -> usize {
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
mod tests;
