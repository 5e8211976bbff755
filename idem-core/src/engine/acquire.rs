//! From a request to the right to run it, or to what a duplicate gets.

use std::future::{Future, ready};
use std::time::Duration;

use futures_util::{FutureExt as _, TryFutureExt as _};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::Instrument as _;

use super::{Claimed, Duplicate, Engine, Run};
use crate::observe::{self, Call, Waiting};
use crate::{
    Acquisition, BackendError, BackendErrorKind, Changed, Claim, Decision, Fenced, Fingerprint, Policy, Record,
    RecordKey, decide,
};

/// How often a claim may find the record changed under its hands before it settles for "in flight". Every round means
/// that somebody else got on.
const ROUNDS: usize = 4;

/// How often a claim that was given up is tried to be released. Its lease ends it otherwise.
const RELEASES: u32 = 4;

/// When to ask again for the answer of an owner that is at work.
const SOON: Duration = Duration::from_secs(1);

/// How long a waiter that cannot be told looks away.
const BLIND: Duration = Duration::from_secs(1);

/// What one look at the record came to.
enum Look {
    Claimed(Instant),
    Duplicate(Duplicate),
    InFlight(Held),
}

/// A claim that another request holds.
#[derive(Clone, Copy)]
struct Held {
    /// The lease lapses in so long if it is not renewed.
    remaining: Duration,
    /// How long the whole lease is.
    lease: Duration,
}

impl Held {
    /// Nothing is known of it but that it is there.
    const UNSEEN: Self = Self {
        remaining: BLIND,
        lease: BLIND,
    };

    /// When asking again makes sense.
    ///
    /// A lease is renewed when a third of it has passed, so less than two thirds are left only if its owner does not renew
    /// it. A twelfth more is granted: so long the owner pauses after a renewal that failed.
    fn retry_after(self) -> Duration {
        if self.remaining < self.lease * 7 / 12 {
            self.remaining.max(SOON)
        } else {
            SOON
        }
    }
}

/// What a record that is there comes to.
enum Seen {
    Look(Look),
    /// Its owner is gone, and it may be taken over.
    Lapsed(Claim),
}

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
        policy: &'a Policy,
    ) -> impl Future<Output = Result<Claimed, BackendError>> + Send + use<'a> {
        let mut pending = Pending::new(self, key, Claim::first(fingerprint, policy));
        async move {
            let give_up = policy.wait().map(|wait| Instant::now() + wait);
            let mut look = pending.look(policy).await?;
            let mut waited = false;
            if let (Look::InFlight(_), Some(give_up)) = (&look, give_up.filter(|give_up| *give_up > Instant::now())) {
                waited = true;
                look = Box::pin(pending.wait(look, give_up, policy)).await?;
            }
            Ok(match look {
                Look::Claimed(asked) => Claimed::Run(Run {
                    after_crash: policy.after_crash(),
                    pending,
                    asked,
                }),
                Look::Duplicate(duplicate) => Claimed::Duplicate { duplicate, waited },
                Look::InFlight(held) => Claimed::Duplicate {
                    duplicate: Duplicate::InFlight(held.retry_after()),
                    waited,
                },
            })
        }
    }

    /// Listens for a change; where the backend cannot, for some time.
    async fn listen(&self, key: &RecordKey, policy: &Policy) -> Changed {
        match self
            .within_deadline(Call::Listen, policy.lease(), self.0.backend.changed(key))
            .await
        {
            Ok(changed) => changed,
            Err(error) => {
                tracing::debug!(key = %key.shown(), %error, "a waiter cannot be told; it looks again by itself");
                Changed::new(sleep(BLIND))
            }
        }
    }

    /// A claiming call, repeated once if the connection fails it: its token makes that safe, and mostly the connection
    /// broke while it was idle.
    fn ask<'a, F>(
        &self,
        call: Call,
        lease: Duration,
        ask: impl Fn() -> F + 'a,
    ) -> impl Future<Output = Result<Acquisition, BackendError>> + 'a
    where
        F: Future<Output = Result<Acquisition, BackendError>> + 'a,
    {
        let calls = ask().or_else(move |error| match error.kind() {
            BackendErrorKind::Unavailable => ask().left_future(),
            _ => ready(Err(error)).right_future(),
        });
        self.within_deadline(call, lease, calls)
    }
}

/// A claim that may or may not have been written yet.
///
/// Dropped undecided, because the client left or the backend failed, it is released in the background: its handler
/// never started, so nobody else would end it before its lease (IDEM-6 is about started handlers).
#[derive(Debug)]
pub(super) struct Pending {
    engine: Engine,
    key: RecordKey,
    claim: Claim,
    may_be_written: bool,
}

impl Pending {
    fn new(engine: &Engine, key: &RecordKey, claim: Claim) -> Self {
        Self {
            engine: engine.clone(),
            key: key.clone(),
            claim,
            may_be_written: false,
        }
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn key(&self) -> &RecordKey {
        &self.key
    }

    /// The claim is about to be run under, and ends as a run does.
    pub(super) fn start(&mut self) {
        self.may_be_written = false;
    }

    /// Waits for the end of what was in flight, until `give_up`; then it still is.
    async fn wait(&mut self, mut look: Look, give_up: Instant, policy: &Policy) -> Result<Look, BackendError> {
        let _waiting = Waiting::start();
        while matches!(look, Look::InFlight(_)) && Instant::now() < give_up {
            // Whoever looked before listening would miss what happens in between.
            let changed = timeout_at(give_up, self.engine.listen(&self.key, policy)).await;
            look = self.look_again(policy).await?;
            if let (Look::InFlight(held), Ok(changed)) = (&look, changed) {
                let lapses = Instant::now() + held.remaining;
                // Told, too late, or about a lease that should have been renewed by now: the next look will say.
                let _woken = timeout_at(give_up.min(lapses), changed).await;
                look = self.look_again(policy).await?;
            }
        }
        Ok(look)
    }

    /// Looks at what was in flight. While the backend cannot say otherwise it still is: an equal request is known to
    /// have been first.
    async fn look_again(&mut self, policy: &Policy) -> Result<Look, BackendError> {
        match self.look(policy).await {
            Err(error) if error.is_transient() => {
                tracing::debug!(key = %self.key.shown(), %error, "a waiter could not look; it waits on");
                // What was asked for may have been written, so this claim is given up and the next look asks anew.
                *self = Self::new(&self.engine, &self.key, Claim::first(self.claim.fingerprint, policy));
                Ok(Look::InFlight(Held::UNSEEN))
            }
            looked => looked,
        }
    }

    /// Claims the key, or takes a lapsed claim over, or says what is there.
    async fn look(&mut self, policy: &Policy) -> Result<Look, BackendError> {
        self.claim.attempt = 1;
        self.may_be_written = true;
        let asked = Instant::now();
        let Self { engine, key, claim, .. } = &*self;
        let claiming = engine.ask(Call::Claim, claim.lease, || engine.0.backend.claim(key, claim));
        let found = claiming.await;
        // Put together before it is awaited, so that what was found needs no room meanwhile.
        let taking_over = match found? {
            Acquisition::Acquired => return Ok(Look::Claimed(asked)),
            Acquisition::Existing(record) => match self.seen(record, policy) {
                Seen::Look(look) => return Ok(look),
                Seen::Lapsed(lapsed) => Box::pin(self.take_over(lapsed, policy)),
            },
        };
        taking_over.await
    }

    /// What a record that is there comes to.
    fn seen(&mut self, record: Record, policy: &Policy) -> Seen {
        self.may_be_written = false;
        let lease = match &record {
            Record::Claimed { claim, .. } => claim.lease,
            Record::Completed { .. } => Duration::ZERO,
        };
        Seen::Look(match decide(record, &self.claim.fingerprint, policy.after_crash()) {
            Decision::TakeOver(lapsed) => return Seen::Lapsed(lapsed),
            Decision::InFlight(remaining) => Look::InFlight(Held { remaining, lease }),
            Decision::Replay(payload) => Look::Duplicate(Duplicate::Replay(payload)),
            Decision::NotStored => Look::Duplicate(Duplicate::NotStored),
            Decision::Mismatch => Look::Duplicate(Duplicate::Mismatch),
            Decision::OutcomeUnknown => Look::Duplicate(Duplicate::OutcomeUnknown),
        })
    }

    /// Takes a lapsed claim over, or says what is there in its place.
    async fn take_over(&mut self, mut lapsed: Claim, policy: &Policy) -> Result<Look, BackendError> {
        for _ in 0..ROUNDS {
            self.claim.attempt = lapsed.attempt.saturating_add(1);
            self.may_be_written = true;
            let asked = Instant::now();
            let Self { engine, key, claim, .. } = &*self;
            let take_over = || engine.0.backend.take_over(key, &lapsed, claim);
            match engine.ask(Call::TakeOver, claim.lease, take_over).await? {
                Acquisition::Acquired => {
                    observe::takeover();
                    tracing::warn!(
                        key = %key.shown(),
                        attempt = claim.attempt,
                        "the owner of this claim let its lease lapse; running again in its place. Look whether its \
                         process died, or stalled for longer than a lease"
                    );
                    return Ok(Look::Claimed(asked));
                }
                Acquisition::Existing(record) => match self.seen(record, policy) {
                    Seen::Look(look) => return Ok(look),
                    Seen::Lapsed(again) => lapsed = again,
                },
            }
        }
        Ok(Look::InFlight(Held::UNSEEN))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a crash, a release would make the key forget that there was an attempt before; the lease ends it then,
        // and where there is no runtime to release it.
        if self.may_be_written
            && self.claim.attempt == 1
            && let Ok(runtime) = Handle::try_current()
        {
            let release = release(self.engine.clone(), self.key.clone(), self.claim.clone());
            self.engine.0.running.spawn_on(release.in_current_span(), &runtime);
        }
    }
}

/// Releases a claim that was given up.
async fn release(engine: Engine, key: RecordKey, claim: Claim) {
    let mut pause = Duration::from_millis(50);
    for _ in 0..RELEASES {
        match engine
            .within_deadline(Call::Release, claim.lease, engine.0.backend.release(&key, &claim))
            .await
        {
            Ok(Fenced::Applied) => return,
            // The claim may still be on its way, and arrive after this.
            Ok(Fenced::Superseded) => {}
            Err(error) => tracing::debug!(key = %key.shown(), %error, "could not release a claim that was given up"),
        }
        sleep(pause).await;
        pause *= 4;
    }
}
