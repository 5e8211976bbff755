//! From a request to the right to run it, or to what is in the way.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Engine;
use crate::{Acquisition, BackendError, Claim, Decision, Fingerprint, Policy, RecordKey, decide};

/// How often a claim may find the record changed under its hands before it settles for "in flight". Every round means
/// that somebody else got on.
const ROUNDS: usize = 4;

/// What the engine does next.
pub(super) enum Step {
    Run(Claim),
    Replay(Bytes),
    NotStored,
    Mismatch,
    InFlight,
}

impl Engine {
    pub(super) async fn acquire(
        &self,
        key: &RecordKey,
        fingerprint: Fingerprint,
        policy: &Policy,
    ) -> Result<Step, BackendError> {
        let mut pending = Pending::new(self, key, Claim::first(fingerprint, policy));
        let mut found = self.within_deadline(self.backend.claim(key, pending.claim())).await?;
        for _ in 0..ROUNDS {
            let record = match found {
                Acquisition::Acquired => return Ok(Step::Run(pending.keep())),
                Acquisition::Existing(record) => record,
            };
            let lapsed = match decide(record, &fingerprint) {
                Decision::TakeOver(lapsed) => lapsed,
                decided => {
                    pending.forget();
                    return Ok(decided.into());
                }
            };
            pending.succeed(&lapsed);
            tracing::warn!(
                %key,
                attempt = pending.claim().attempt,
                "the owner of this claim let its lease lapse; running again in its place"
            );
            let take_over = self.backend.take_over(key, &lapsed, pending.claim());
            found = self.within_deadline(take_over).await?;
        }
        match found {
            Acquisition::Acquired => Ok(Step::Run(pending.keep())),
            Acquisition::Existing(_) => {
                pending.forget();
                Ok(Step::InFlight)
            }
        }
    }
}

impl From<Decision> for Step {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Replay(payload) => Self::Replay(payload),
            Decision::NotStored => Self::NotStored,
            Decision::Mismatch => Self::Mismatch,
            Decision::InFlight | Decision::TakeOver(_) => Self::InFlight,
        }
    }
}

/// A claim that may or may not have been written yet.
///
/// Dropped undecided, because the client left or the backend failed, it is released in the background: its handler
/// never started, so nobody else would end it before its lease (IDEM-6 is about started handlers).
struct Pending<'a> {
    engine: &'a Engine,
    key: &'a RecordKey,
    claim: Claim,
    undecided: bool,
}

impl<'a> Pending<'a> {
    fn new(engine: &'a Engine, key: &'a RecordKey, claim: Claim) -> Self {
        Self {
            engine,
            key,
            claim,
            undecided: true,
        }
    }

    fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Becomes the attempt after `lapsed`.
    fn succeed(&mut self, lapsed: &Claim) {
        self.claim.attempt = lapsed.attempt.saturating_add(1);
    }

    fn keep(mut self) -> Claim {
        self.undecided = false;
        self.claim.clone()
    }

    fn forget(mut self) {
        self.undecided = false;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // Without a runtime there is nobody to release it; the lease ends it then.
        if self.undecided
            && let Ok(runtime) = Handle::try_current()
        {
            let release = release_until_lapsed(self.engine.clone(), self.key.clone(), self.claim.clone());
            self.engine.running.spawn_on(release.in_current_span(), &runtime);
        }
    }
}

/// Releases a claim that was given up, again and again until the backend has answered or the lease has lapsed anyway.
async fn release_until_lapsed(engine: Engine, key: RecordKey, claim: Claim) {
    let lapses = Instant::now() + claim.lease;
    let mut pause = Duration::from_millis(50);
    while Instant::now() < lapses {
        match engine.within_deadline(engine.backend.release(&key, &claim)).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%key, %error, "could not release a claim that was given up; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
