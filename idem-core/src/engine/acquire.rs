//! From a request to the right to run it, or to what a duplicate gets.
//!
//! Owns the calls that claim, and what their answers mean for the request. What a request knows of its own claim while it
//! looks is [`Pending`]'s.

use std::future::{Future, ready};
use std::time::Duration;

use futures_util::{FutureExt as _, TryFutureExt as _};
use tokio::time::Instant;

use super::pending::{Held, Look, Pending};
use super::{ClaimResult, Duplicate, Engine, Run};
use crate::observe::Call;
use crate::{Acquisition, BackendError, BackendErrorKind, Changed, Claim, ClaimPolicy, Fingerprint, RecordKey};

/// For longer than this nobody waits: thirty years.
const FOREVER: Duration = Duration::from_hours(24 * 365 * 30);

impl Engine {
    /// Claims `key` for a request, or says what is in the way; where the policy says so, after having waited for it.
    ///
    /// # Errors
    ///
    /// When the backend failed before the claim was decided.
    ///
    /// # Cancel safety
    ///
    /// A claim whose future is dropped is released in the background.
    pub fn claim<'a>(
        &self,
        key: &RecordKey,
        fingerprint: Fingerprint,
        policy: &'a ClaimPolicy,
    ) -> impl Future<Output = Result<ClaimResult, BackendError>> + Send + use<'a> {
        let mut pending = Pending::new(self, key, Claim::first(fingerprint, policy));
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
                    pending,
                    asked,
                }),
                Look::Duplicate(duplicate) => ClaimResult::Duplicate { duplicate, waited },
                Look::InFlight(held) => in_flight(held, waited),
                Look::Failed => in_flight(Held::UNSEEN, waited),
            })
        }
    }

    /// Listens for a change; `None` where the backend cannot say.
    pub(super) async fn listen(&self, key: &RecordKey, policy: &ClaimPolicy) -> Option<Changed> {
        let listening = self.within_deadline(Call::Listen, policy.lease(), self.0.backend.changed(key));
        let changed = listening.await;
        if let Err(error) = &changed {
            tracing::debug!(key = %key.shown(), %error, "a waiter cannot be told; it looks again by itself");
        }
        changed.ok()
    }

    /// A claiming call, repeated once if the connection fails it on the way: its token makes that safe, and mostly the
    /// connection broke while it was idle.
    pub(super) fn ask<'a, F>(
        &self,
        call: Call,
        lease: Duration,
        ask: impl Fn() -> F + 'a,
    ) -> impl Future<Output = Result<Acquisition, BackendError>> + 'a
    where
        F: Future<Output = Result<Acquisition, BackendError>> + 'a,
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

fn in_flight(held: Held, waited: bool) -> ClaimResult {
    ClaimResult::Duplicate {
        duplicate: Duplicate::InFlight(held.retry_after()),
        waited,
    }
}
