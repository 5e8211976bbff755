//! Durable steps: how many there may be, and whether the backend keeps them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use idem_core::StepLimits;

use super::Idempotency;

impl Idempotency {
    /// Sets how many durable steps an attempt may have, and how large their results may be. The default is
    /// [`StepLimits::default`].
    #[must_use]
    pub fn with_step_limits(mut self, limits: StepLimits) -> Self {
        let parts = Arc::make_mut(&mut self.0);
        parts.engine = parts.engine.clone().with_step_limits(limits);
        self
    }

    /// Whether the backend keeps durable steps. If it does not, a handler that takes `Steps` is refused, and
    /// [`check`](Self::check) fails from then on.
    pub(crate) fn keeps_steps(&self) -> bool {
        self.0.engine.keeps_steps() || {
            self.0.lacks_steps.store(true, Ordering::Relaxed);
            false
        }
    }
}
