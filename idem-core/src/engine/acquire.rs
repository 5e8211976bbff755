//! Claiming a key for a request: the result is the right to run, or the answer to a duplicate.
//!
//! Owns the order of the steps: look at the record, wait if the policy says so, decide. Does not own a single look at the
//! record, nor the state of the request's own claim: [`Pending`].

use std::future::{Future, ready};
use std::time::Duration;

use futures_util::{FutureExt as _, TryFutureExt as _};
use tokio::time::Instant;

use super::look::{InFlightClaim, Look};
use super::pending::Pending;
use super::{ClaimResult, Duplicate, Engine, Run};
use crate::observe::Call;
use crate::{BackendError, BackendErrorKind, Changed, ClaimPolicy, Fingerprint, RecordKey};

/// Replaces a wait that is too long to be added to the current time: thirty years.
const FOREVER: Duration = Duration::from_hours(24 * 365 * 30);

impl Engine {
    /// Claims `key` for a request, or returns the answer to a duplicate. If the policy sets a wait, a duplicate first waits
    /// for the request in flight.
    ///
    /// # Errors
    ///
    /// When the backend failed before it was known whether the request may run.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a claim that it may have written is released in the background.
    pub fn claim<'a>(
        &self,
        key: &RecordKey,
        fingerprint: Fingerprint,
        policy: &'a ClaimPolicy,
    ) -> impl Future<Output = Result<ClaimResult, BackendError>> + Send + use<'a> {
        let mut pending = Pending::new(self, key, fingerprint, policy);
        async move {
            let now = Instant::now();
            let give_up = policy.wait().map(|wait| now.checked_add(wait).unwrap_or(now + FOREVER));
            let mut look = pending.look(policy).await?;
            let mut waited = false;
            if let (Look::InFlight(_), Some(give_up)) = (&look, give_up.filter(|give_up| *give_up > Instant::now())) {
                waited = true;
                look = Box::pin(pending.wait(look, give_up, policy)).await?;
            }
            Ok(match look {
                Look::Claimed(asked) => ClaimResult::Run(Run {
                    after_crash: policy.after_crash(),
                    renewal_limit: policy.max_run(),
                    pending,
                    asked,
                    steps: None,
                    on_renewal: None,
                }),
                Look::TooBusy => ClaimResult::TooBusy,
                Look::Duplicate(duplicate) => ClaimResult::Duplicate { duplicate, waited },
                Look::InFlight(held) => in_flight(held, waited),
                Look::Failed => in_flight(InFlightClaim::UNKNOWN, waited),
            })
        }
    }

    /// Subscribes to changes of the record under `key`; `None` if the backend failed.
    pub(super) async fn listen(&self, key: &RecordKey, policy: &ClaimPolicy) -> Option<Changed> {
        let listening = self.within_deadline(Call::Listen, policy.lease(), self.0.backend.changed(key));
        let changed = listening.await;
        if let Err(error) = &changed {
            tracing::debug!(key = %key.shown(), %error, "a waiter cannot be told; it looks again by itself");
        }
        changed.ok()
    }

    /// Makes a call that may be repeated, and repeats it once if the connection fails. The claim's token makes the repetition of
    /// a claim safe. The usual cause is a connection that broke while it was idle, and the next connection works.
    pub(crate) fn ask<'a, T: 'a, F>(
        &self,
        call: Call,
        lease: Duration,
        ask: impl Fn() -> F + 'a,
    ) -> impl Future<Output = Result<T, BackendError>> + 'a
    where
        F: Future<Output = Result<T, BackendError>> + 'a,
    {
        let calls = ask().or_else(move |error| {
            if error.kind() == BackendErrorKind::Unavailable && !error.is_not_written() {
                ask().map_err(BackendError::after_another).left_future()
            } else {
                ready(Err(error)).right_future()
            }
        });
        self.within_deadline(call, lease, calls)
    }
}

fn in_flight(held: InFlightClaim, waited: bool) -> ClaimResult {
    ClaimResult::Duplicate {
        duplicate: Duplicate::InFlight(held.retry_after()),
        waited,
    }
}
