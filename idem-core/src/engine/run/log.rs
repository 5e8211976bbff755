//! The lines of the log about one run. Owns their words and fields, and does not own when they are written.

use std::error::Error;

use super::Work;
use crate::engine::RecordOutcome;
use crate::{BackendError, Completion};

impl Work {
    pub(in crate::engine) fn log_unknown(&self, outcome: &RecordOutcome) {
        if let RecordOutcome::Complete {
            completion: Completion::Unknown,
            ..
        } = outcome
        {
            tracing::warn!(
                key = %self.key.shown(),
                attempt = self.claim.attempt,
                "the handler's answer leaves open whether it had an effect; its outcome is unknown"
            );
        }
    }

    pub(in crate::engine) fn log_superseded(&self) {
        tracing::warn!(
            key = %self.key.shown(),
            attempt = self.claim.attempt,
            "the claim was superseded before its handler ended, so its outcome is not recorded; the lease is too short \
             for a stall this long, or the backend lost the claim"
        );
    }

    pub(in crate::engine) fn log_steps_lost(&self) {
        tracing::error!(
            key = %self.key.shown(),
            attempt = self.claim.attempt,
            "the record was gone when this attempt ended without an outcome, and its steps with it, unless another attempt has taken it \
             over; a retry may begin from the start. Look whether the backend evicts keys or was emptied"
        );
    }

    pub(in crate::engine) fn log_panic(&self, consequence: &str) {
        // The panic hook has reported the panic itself.
        tracing::error!(key = %self.key.shown(), attempt = self.claim.attempt, "the handler panicked; {consequence}");
    }

    pub(in crate::engine) fn log_long(&self, renewals: u32) {
        tracing::warn!(
            key = %self.key.shown(),
            attempt = self.claim.attempt,
            renewals,
            "the handler has been running for several leases; its key is held and `drain` waits for it until it ends. Give \
             the calls that it makes a deadline, or set `max_run`"
        );
    }

    pub(in crate::engine) fn log_too_long(&self) {
        tracing::error!(
            key = %self.key.shown(),
            attempt = self.claim.attempt,
            "the handler runs for longer than its `max_run`; its claim lapses within a lease, and a retry may then run beside \
             it, if `after_crash` says so. Give the calls that it makes a deadline"
        );
    }

    pub(in crate::engine) fn log_lost(&self) {
        tracing::warn!(
            key = %self.key.shown(),
            attempt = self.claim.attempt,
            "the lease was lost while the handler runs; it runs on, but another attempt may run beside it. Choose a \
             lease longer than any stall, and look whether the backend lost the record"
        );
    }

    pub(in crate::engine) fn log_not_renewed(&self, error: &BackendError) {
        tracing::warn!(
            key = %self.key.shown(),
            error = error as &dyn Error,
            "the lease could not be renewed; trying again. It lapses if the backend stays away"
        );
    }
}
