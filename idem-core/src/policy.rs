//! Time to live, lease, waiting, and the reaction to a crash.
//!
//! Owns these choices of an operation's author, and their bounds. Does not own choices about HTTP (header names, statuses,
//! sizes): those belong to the integration's own policy.

use std::time::Duration;

/// The settings of one operation that the engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPolicy {
    ttl: Duration,
    lease: Duration,
    wait: Option<Duration>,
    after_crash: AfterCrash,
    rerun_within: Option<Duration>,
    max_attempts: Option<u32>,
    max_run: Option<Duration>,
}

/// What happens to a request whose process died, or stalled longer than its lease (IDEM-7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AfterCrash {
    /// The next equal request runs the handler again, as the next attempt. The handler runs at least once.
    #[default]
    Rerun,
    /// The outcome is unknown until `ttl` has passed, and the handler does not run again. The handler runs at most once.
    Refuse,
}

impl ClaimPolicy {
    /// The shortest time to live and the shortest lease; backends count in milliseconds.
    pub const MIN: Duration = Duration::from_millis(100);
    /// The longest time to live, ten years of 365 days.
    pub const MAX_TTL: Duration = Duration::from_hours(24 * 3650);
    /// The longest lease. After a crash, the key is blocked for one lease. A running handler's lease is renewed.
    pub const MAX_LEASE: Duration = Duration::from_hours(24);
    /// The default lease.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(30);

    /// A policy that replays completed answers for `ttl`, with [`ClaimPolicy::DEFAULT_LEASE`].
    ///
    /// # Panics
    ///
    /// When `ttl` is below [`ClaimPolicy::MIN`] or above [`ClaimPolicy::MAX_TTL`]; at compile time in a `const`.
    #[must_use]
    pub const fn new(ttl: Duration) -> Self {
        assert!(
            ttl.as_millis() >= Self::MIN.as_millis(),
            "`ttl` is shorter than 100 milliseconds"
        );
        assert!(
            ttl.as_millis() <= Self::MAX_TTL.as_millis(),
            "`ttl` is longer than ten years"
        );
        Self {
            ttl,
            lease: Self::DEFAULT_LEASE,
            wait: None,
            after_crash: AfterCrash::Rerun,
            rerun_within: None,
            max_attempts: None,
            max_run: None,
        }
    }

    /// Sets how long a claim holds without being renewed.
    ///
    /// # Panics
    ///
    /// When `lease` is below [`ClaimPolicy::MIN`] or above [`ClaimPolicy::MAX_LEASE`]; at compile time in a `const`.
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        assert!(
            lease.as_millis() >= Self::MIN.as_millis(),
            "`lease` is shorter than 100 milliseconds"
        );
        assert!(
            lease.as_millis() <= Self::MAX_LEASE.as_millis(),
            "`lease` is longer than 24 hours"
        );
        self.lease = lease;
        self
    }

    /// Lets a duplicate wait for the outcome of the request in flight, for `wait` at most (IDEM-4). By default, a duplicate
    /// does not wait.
    #[must_use]
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Sets what happens to a request whose process died. The default is [`AfterCrash::Rerun`].
    #[must_use]
    pub const fn with_after_crash(mut self, after_crash: AfterCrash) -> Self {
        self.after_crash = after_crash;
        self
    }

    /// Limits the time in which a request is run again: once its first attempt began more than `within` ago, the outcome is
    /// unknown. By default, there is no limit.
    ///
    /// Choose a time shorter than the one for which the services that the handler calls remember their own idempotency keys.
    /// The times are those of the processes' clocks.
    ///
    /// # Panics
    ///
    /// When `within` is below [`ClaimPolicy::MIN`] or above [`ClaimPolicy::MAX_TTL`]; at compile time in a `const`.
    #[must_use]
    pub const fn with_rerun_within(mut self, within: Duration) -> Self {
        assert!(
            within.as_millis() >= Self::MIN.as_millis(),
            "`rerun_within` is shorter than 100 milliseconds"
        );
        assert!(
            within.as_millis() <= Self::MAX_TTL.as_millis(),
            "`rerun_within` is longer than ten years"
        );
        self.rerun_within = Some(within);
        self
    }

    /// Limits the attempts of a request: after `most` attempts whose process died, the outcome is unknown. By default, there is
    /// no limit.
    ///
    /// # Panics
    ///
    /// When `most` is zero; at compile time in a `const`.
    #[must_use]
    pub const fn with_max_attempts(mut self, most: u32) -> Self {
        assert!(most > 0, "`max_attempts` is zero");
        self.max_attempts = Some(most);
        self
    }

    /// Limits how long a handler's claim is renewed. A handler that runs for longer loses its claim within a lease, and
    /// [`Engine::drain`](crate::Engine::drain) does not wait for it any longer. By default, there is no limit.
    ///
    /// # Panics
    ///
    /// When `longest` is below [`ClaimPolicy::MIN`]; at compile time in a `const`.
    #[must_use]
    pub const fn with_max_run(mut self, longest: Duration) -> Self {
        assert!(
            longest.as_millis() >= Self::MIN.as_millis(),
            "`max_run` is shorter than 100 milliseconds"
        );
        self.max_run = Some(longest);
        self
    }

    /// How long after the beginning of its first attempt a request may be run again; `None` if there is no limit.
    #[must_use]
    pub const fn rerun_within(&self) -> Option<Duration> {
        self.rerun_within
    }

    /// How many attempts a request may have; `None` if there is no limit.
    #[must_use]
    pub const fn max_attempts(&self) -> Option<u32> {
        self.max_attempts
    }

    /// How long a handler's claim is renewed; `None` if there is no limit.
    #[must_use]
    pub const fn max_run(&self) -> Option<Duration> {
        self.max_run
    }

    /// How long a duplicate waits; `None` if it does not wait.
    #[must_use]
    pub const fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// What happens to a request whose process died.
    #[must_use]
    pub const fn after_crash(&self) -> AfterCrash {
        self.after_crash
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
