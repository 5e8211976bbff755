//! What an author chooses for one handler; the attribute's options as a value.

use std::time::Duration;

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
}

impl Policy {
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
