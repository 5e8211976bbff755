//! From a request to the right to run it, or to what is in the way.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::Engine;
use crate::{Acquisition, BackendError, BackendErrorKind, Claim, Decision, Fingerprint, Policy, RecordKey, decide};

/// How often a claim may find the record changed under its hands before it settles for "in flight". Every round means
/// that somebody else got on.
const ROUNDS: usize = 4;

/// How often a claim that was given up is tried to be released. Its lease ends it otherwise.
const RELEASES: u32 = 4;

/// What the engine does next.
pub(super) enum Step {
    /// Run, under a claim that was asked for at this moment.
    Run(Claim, Instant),
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
        let mut asked = Instant::now();
        let mut found = self
            .ask(&pending.claim, || self.backend.claim(key, &pending.claim))
            .await?;
        for _ in 0..ROUNDS {
            let record = match found {
                Acquisition::Acquired => return Ok(Step::Run(pending.keep(), asked)),
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
                attempt = pending.claim.attempt,
                "the owner of this claim let its lease lapse; running again in its place"
            );
            asked = Instant::now();
            let take_over = || self.backend.take_over(key, &lapsed, &pending.claim);
            found = self.ask(&pending.claim, take_over).await?;
        }
        match found {
            Acquisition::Acquired => Ok(Step::Run(pending.keep(), asked)),
            Acquisition::Existing(_) => {
                pending.forget();
                Ok(Step::InFlight)
            }
        }
    }

    /// A claiming call, repeated once if the connection fails it: its token makes that safe, and mostly the connection
    /// broke while it was idle.
    async fn ask<F>(&self, claim: &Claim, call: impl Fn() -> F) -> Result<Acquisition, BackendError>
    where
        F: Future<Output = Result<Acquisition, BackendError>>,
    {
        let calls = async {
            match call().await {
                Err(error) if error.kind() == BackendErrorKind::Unavailable => call().await,
                answered => answered,
            }
        };
        self.within_deadline(claim.lease, calls).await
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
        // After a crash, a release would make the key forget that there was an attempt before; the lease ends it then,
        // and where there is no runtime to release it.
        if self.undecided
            && self.claim.attempt == 1
            && let Ok(runtime) = Handle::try_current()
        {
            let release = release(self.engine.clone(), self.key.clone(), self.claim.clone());
            self.engine.running.spawn_on(release.in_current_span(), &runtime);
        }
    }
}

/// Releases a claim that was given up.
async fn release(engine: Engine, key: RecordKey, claim: Claim) {
    let mut pause = Duration::from_millis(50);
    for _ in 0..RELEASES {
        match engine
            .within_deadline(claim.lease, engine.backend.release(&key, &claim))
            .await
        {
            Ok(_) => return,
            Err(error) => tracing::debug!(%key, %error, "could not release a claim that was given up"),
        }
        sleep(pause).await;
        pause *= 4;
    }
}
