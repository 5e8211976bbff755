//! How long answers and leases live.
//!
//! Owns the durations and their bounds. What is HTTP's (header names, statuses, sizes) belongs to the integration's
//! own policy.

use std::time::Duration;

/// The durations the engine works by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    ttl: Duration,
    lease: Duration,
}

impl Policy {
    /// The shortest time to live and the shortest lease; backends count in milliseconds.
    pub const MIN: Duration = Duration::from_millis(100);
    /// The longest time to live, ten years of 365 days.
    pub const MAX_TTL: Duration = Duration::from_hours(24 * 3650);
    /// The longest lease. A lease is how long a crash blocks a key; running handlers renew theirs.
    pub const MAX_LEASE: Duration = Duration::from_hours(24);
    /// The lease where none is set.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(30);

    /// Completed answers are replayed for `ttl`; the lease is [`Policy::DEFAULT_LEASE`].
    ///
    /// # Panics
    ///
    /// When `ttl` is below [`Policy::MIN`] or above [`Policy::MAX_TTL`]; at compile time in a `const`.
    #[must_use]
    pub const fn new(ttl: Duration) -> Self {
        assert!(
            ttl.as_millis() >= Self::MIN.as_millis(),
            "ttl is shorter than 100 milliseconds"
        );
        assert!(
            ttl.as_millis() <= Self::MAX_TTL.as_millis(),
            "ttl is longer than ten years"
        );
        Self {
            ttl,
            lease: Self::DEFAULT_LEASE,
        }
    }

    /// Sets how long a claim holds without being renewed.
    ///
    /// # Panics
    ///
    /// When `lease` is below [`Policy::MIN`] or above [`Policy::MAX_LEASE`]; at compile time in a `const`.
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        assert!(
            lease.as_millis() >= Self::MIN.as_millis(),
            "lease is shorter than 100 milliseconds"
        );
        assert!(
            lease.as_millis() <= Self::MAX_LEASE.as_millis(),
            "lease is longer than 24 hours"
        );
        self.lease = lease;
        self
    }

    /// How long a completed answer is replayed.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long a claim holds without being renewed.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }
}
