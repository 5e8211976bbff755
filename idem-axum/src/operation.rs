//! What the attribute says of one handler, as a constant of the expansion.
//!
//! Owns what belongs to a handler alone and has no default, beside the policy of its other options.

use std::time::Duration;

use crate::policy::Policy;

/// One `#[idempotent]` handler: how long its answers are replayed, its name, and its other options.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub(crate) ttl: Duration,
    pub(crate) name: Option<&'static str>,
    pub(crate) policy: Policy,
}

impl Operation {
    /// Completed answers are replayed for so many milliseconds.
    ///
    /// # Panics
    ///
    /// When that is below 100 milliseconds or above ten years, which the attribute has checked; at compile time in a
    /// `const`.
    #[must_use]
    pub const fn new(ttl: u64) -> Self {
        let ttl = Duration::from_millis(ttl);
        let _checked = idem_core::Policy::new(ttl);
        Self {
            ttl,
            name: None,
            policy: Policy::new(),
        }
    }

    /// Sets the operation's identity in stored keys; the method and the matched route where nothing is set.
    ///
    /// With a name, records survive a change of the route.
    #[must_use]
    pub const fn with_name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets the options that the attribute does not leave open.
    #[must_use]
    pub const fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }
}
