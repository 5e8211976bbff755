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

    /// Whether the backend keeps durable steps.
    pub(crate) fn keeps_steps(&self) -> bool {
        self.0.engine.keeps_steps()
    }

    /// Says in the log that a handler takes `Steps` and that the backend keeps none; [`check`](Self::check) fails from then on.
    pub(crate) fn note_lack_of_steps(&self) {
        tracing::error!(
            "a handler takes Steps, and its backend keeps none; give it an `idem_axum::Idempotency` over one that does"
        );
        self.0.lacks_steps.store(true, Ordering::Relaxed);
    }
}
