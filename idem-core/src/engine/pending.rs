//! A request's own claim, from the first look at the record until it is decided who runs.
//!
//! Owns what a look comes to, and how a request looks: by itself, with others, or again after a wait. Its token is asked for
//! by one look at a time, and is drawn anew where an earlier call may still be on its way.

use std::future::{Future, Ready, ready};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::looks::{Looks, Member, Role, Wakeup};
use super::{Duplicate, Engine, Parts};
use crate::observe::{self, Call, Waiting};
use crate::{Acquisition, BackendError, Claim, ClaimPolicy, Decision, Fenced, Record, RecordKey, decide};

/// How often a claim may find the record changed under its hands before it settles for "in flight". Every round means
/// that somebody else got on.
const ROUNDS: usize = 4;

/// For how many deadlines a request waits to be told by another one's look.
const PATIENCE: u32 = 2;

/// When to ask again for the answer of an owner that is at work.
const SOON: Duration = Duration::from_secs(1);

/// How long a waiter that cannot be told, or cannot look, looks away at least.
const PAUSE: Duration = Duration::from_secs(1);

/// How much longer it looks away at most, so that not all who failed together come back together.
const PAUSE_SPREAD: u64 = 250;

/// What one look at the record came to.
pub(super) enum Look {
    Claimed(Instant),
    Duplicate(Duplicate),
    InFlight(InFlightClaim),
    /// The backend could not say.
    Failed,
}

/// What a look came to, if it came to anything.
pub(super) type Looked = Result<Look, BackendError>;

/// A claim that another request holds.
#[derive(Clone, Copy)]
pub(super) struct InFlightClaim {
    /// The lease lapses in so long if it is not renewed.
    remaining: Duration,
    /// How long the whole lease is.
    lease: Duration,
}

impl InFlightClaim {
    /// Nothing is known of it but that it is there.
    pub(super) const UNKNOWN: Self = Self {
        remaining: PAUSE,
        lease: PAUSE,
    };

    /// When asking again makes sense.
    ///
    /// A lease is renewed when a third of it has passed, so less than two thirds are left only if its owner does not renew
    /// it. A twelfth more is granted: so long the owner pauses after a renewal that failed.
    pub(super) fn retry_after(self) -> Duration {
        if self.remaining < self.lease * 7 / 12 {
            self.remaining.max(SOON)
        } else {
            SOON
        }
    }
}

/// What a record that is there comes to.
enum Found {
    Look(Look),
    /// It is this request's own claim, of a call whose answer was lost.
    Own,
    /// Its owner is gone, and it may be taken over.
    Lapsed(Claim),
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
    /// Since when it may be there.
    written: Option<Instant>,
    /// Whether it was asked for under this token.
    has_asked: bool,
}

impl Pending {
    pub(super) fn new(engine: &Engine, key: &RecordKey, claim: Claim) -> Self {
        Self {
            engine: engine.clone(),
            key: key.clone(),
            claim,
            written: None,
            has_asked: false,
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
        self.written = None;
    }

    /// Waits for the end of what was in flight, until `give_up`; then it still is.
    pub(super) async fn wait(&mut self, mut look: Look, give_up: Instant, policy: &ClaimPolicy) -> Looked {
        let _waiting = Waiting::start();
        while matches!(look, Look::InFlight(_) | Look::Failed) && Instant::now() < give_up {
            // Whoever looked before listening would miss what happens in between.
            let changed = timeout_at(give_up, self.engine.listen(&self.key, policy)).await;
            look = self.look_again(policy).await?;
            match (&look, changed) {
                (Look::InFlight(held), Ok(Some(changed))) => {
                    let lapses = Instant::now() + held.remaining;
                    // Told, too late, or about a lease that should have been renewed by now: the next look will say.
                    let _woken = timeout_at(give_up.min(lapses), changed).await;
                    look = self.look_again(policy).await?;
                }
                (Look::InFlight(_), _) => pause(&self.key, give_up).await,
                _ => {}
            }
            // Whatever it is told: what failed a moment ago fails again, and being told may be part of it.
            if matches!(look, Look::Failed) {
                pause(&self.key, give_up).await;
            }
        }
        Ok(look)
    }

    /// Looks at what was in flight. While the backend cannot say otherwise it still is: an equal request is known to
    /// have been first.
    async fn look_again(&mut self, policy: &ClaimPolicy) -> Looked {
        match self.look(policy).await {
            Err(error) if error.is_transient() => {
                tracing::debug!(key = %self.key.shown(), %error, "a waiter could not look; it waits on");
                Ok(Look::Failed)
            }
            looked => looked,
        }
    }

    /// Claims the key, or takes a lapsed claim over, or says what is there: by a look of its own, or by one that it shares.
    pub(super) fn look(&mut self, policy: &ClaimPolicy) -> impl Future<Output = Looked> + Send {
        let Parts { backend, looks, .. } = &*self.engine.0;
        let role = (!backend.is_in_process()).then(|| Looks::join(looks, &self.key));
        let turn = match role {
            None => None,
            Some(Role::Turn(turn)) => Some(turn),
            // Boxed, so that a look of one's own needs no room for what this needs.
            Some(Role::Member(member)) => return Either::Right(Box::pin(self.look_together(member, policy))),
        };
        // Not an `async fn`, which has room for its arguments twice.
        Either::Left(async move {
            let looked = self.acquire(policy, None).await;
            if let Some(turn) = turn {
                turn.end();
            }
            looked
        })
    }

    /// A look that others share: that of somebody else, or of its own in their place.
    async fn look_together(&mut self, mut member: Member, policy: &ClaimPolicy) -> Looked {
        let patience = self.engine.deadline_of(policy.lease()) * PATIENCE;
        for _ in 0..ROUNDS {
            let Ok(wakeup) = timeout(patience, member.wait()).await else {
                // Whoever has the turn may be on a thread that is blocked.
                return self.acquire(policy, None).await;
            };
            let turn = match wakeup {
                Wakeup::Turn(turn) => turn,
                Wakeup::Answer(answer) => match self.interpret(answer?, policy) {
                    Found::Look(look) => return Ok(look),
                    // Whoever asked had no right to it; or it is this request's own. It has to ask by itself.
                    Found::Lapsed(_) | Found::Own => match Looks::join(&self.engine.0.looks, &self.key) {
                        Role::Turn(turn) => turn,
                        Role::Member(again) => {
                            member = again;
                            continue;
                        }
                    },
                },
            };
            let mut shown = None;
            let looked = self.acquire(policy, Some(&mut shown)).await;
            turn.tell(match (&looked, shown) {
                (Err(error), _) => Err(error.clone()),
                (Ok(Look::Claimed(_)), _) => Ok(Record::Claimed {
                    claim: self.claim.clone(),
                    remaining: self.claim.lease,
                }),
                // It was taken over, or has expired, a moment ago.
                (_, None) => Ok(Record::Claimed {
                    claim: self.claim.clone(),
                    remaining: PAUSE,
                }),
                (Ok(_), Some(record)) => Ok(record),
            });
            return looked;
        }
        Ok(Look::InFlight(InFlightClaim::UNKNOWN))
    }

    /// Claims the key, or takes a lapsed claim over, or says what is there, and shows it where somebody wants to see it.
    async fn acquire(&mut self, policy: &ClaimPolicy, shown: Option<&mut Option<Record>>) -> Looked {
        let before = self.written;
        if before.is_none() && self.has_asked {
            // So that a claim of an earlier look, wherever it may turn up, is never taken for that of this one.
            self.renounce(policy);
        }
        self.has_asked = true;
        self.claim.attempt = 1;
        let asked = Instant::now();
        self.written.get_or_insert(asked);
        let Self { engine, key, claim, .. } = &*self;
        let found = engine.ask(Call::Claim, claim.lease, || engine.0.backend.claim(key, claim));
        let found = found.await;
        if before.is_none() && matches!(found, Ok(Acquisition::Acquired)) {
            return Ok(Look::Claimed(asked));
        }
        self.act_on(found, before, policy, shown).await
    }

    /// What comes of what a claim has found.
    fn act_on<'a>(
        &'a mut self,
        found: Result<Acquisition, BackendError>,
        before: Option<Instant>,
        policy: &'a ClaimPolicy,
        shown: Option<&'a mut Option<Record>>,
    ) -> Either<Ready<Looked>, BoxFuture<'a, Looked>> {
        let mut shown = shown;
        let known = match found {
            Err(error) => {
                if error.is_not_written() {
                    self.written = before;
                }
                Err(error)
            }
            Ok(Acquisition::Acquired) => return Either::Right(Box::pin(self.hold(policy))),
            Ok(Acquisition::Existing(record)) => {
                // This call was answered; one before it may not have been.
                self.written = before;
                if let Some(shown) = &mut shown {
                    **shown = Some(record.clone());
                }
                match self.interpret(record, policy) {
                    Found::Look(look) => Ok(look),
                    Found::Own => return Either::Right(Box::pin(self.hold(policy))),
                    Found::Lapsed(lapsed) => return Either::Right(Box::pin(self.take_over(lapsed, policy, shown))),
                }
            }
        };
        Either::Left(ready(known))
    }

    /// What a record that is there comes to.
    fn interpret(&mut self, record: Record, policy: &ClaimPolicy) -> Found {
        let lease = match &record {
            Record::Claimed { claim, .. } if claim.token == self.claim.token => {
                self.claim.attempt = claim.attempt;
                return Found::Own;
            }
            Record::Claimed { claim, .. } => claim.lease,
            Record::Completed { .. } => Duration::ZERO,
        };
        if self.written.is_some() {
            // An earlier call may still be on its way. Under another token, it is never taken for a later one.
            self.renounce(policy);
        }
        Found::Look(match decide(record, &self.claim.fingerprint, policy.after_crash()) {
            Decision::TakeOver(lapsed) => return Found::Lapsed(lapsed),
            Decision::InFlight(remaining) => Look::InFlight(InFlightClaim { remaining, lease }),
            Decision::Replay(payload) => Look::Duplicate(Duplicate::Replay(payload)),
            Decision::NotStored => Look::Duplicate(Duplicate::NotStored),
            Decision::Mismatch => Look::Duplicate(Duplicate::Mismatch),
            Decision::OutcomeUnknown => Look::Duplicate(Duplicate::OutcomeUnknown),
        })
    }

    /// Holds a claim of an earlier call, whose answer was lost: before it is run under, its lease starts anew.
    async fn hold(&mut self, policy: &ClaimPolicy) -> Looked {
        let asked = Instant::now();
        self.written.get_or_insert(asked);
        let Self { engine, key, claim, .. } = &*self;
        let renewing = engine.within_deadline(Call::Renew, claim.lease, engine.0.backend.renew(key, claim));
        if renewing.await? == Fenced::Applied {
            self.written = Some(asked);
            return Ok(Look::Claimed(asked));
        }
        // It has just been taken over, or has expired.
        self.renounce(policy);
        Ok(Look::InFlight(InFlightClaim::UNKNOWN))
    }

    /// Asks under another token from now on.
    fn renounce(&mut self, policy: &ClaimPolicy) {
        self.written = None;
        self.has_asked = false;
        self.claim = Claim::first(self.claim.fingerprint, policy);
    }

    /// Takes a lapsed claim over, or says what is there in its place.
    async fn take_over(
        &mut self,
        mut lapsed: Claim,
        policy: &ClaimPolicy,
        mut shown: Option<&mut Option<Record>>,
    ) -> Looked {
        for _ in 0..ROUNDS {
            self.claim.attempt = lapsed.attempt.saturating_add(1);
            let asked = Instant::now();
            self.written = Some(asked);
            let Self { engine, key, claim, .. } = &*self;
            let take_over = || engine.0.backend.take_over(key, &lapsed, claim);
            let taken = engine.ask(Call::TakeOver, claim.lease, take_over).await;
            if taken.is_err() {
                // If it was written, it is left to its lease: a release would make the key forget the attempt before it.
                self.renounce(policy);
            }
            match taken? {
                Acquisition::Acquired => {
                    observe::takeover();
                    tracing::warn!(
                        key = %self.key.shown(),
                        attempt = self.claim.attempt,
                        "the owner of this claim let its lease lapse; running again in its place. Look whether its \
                         process died, or stalled for longer than a lease"
                    );
                    return Ok(Look::Claimed(asked));
                }
                Acquisition::Existing(record) => {
                    self.written = None;
                    if let Some(shown) = &mut shown {
                        **shown = Some(record.clone());
                    }
                    match self.interpret(record, policy) {
                        Found::Look(look) => return Ok(look),
                        Found::Own => return self.hold(policy).await,
                        Found::Lapsed(again) => lapsed = again,
                    }
                }
            }
        }
        Ok(Look::InFlight(InFlightClaim::UNKNOWN))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a crash, a release would make the key forget that there was an attempt before; the lease ends it then.
        if self.written.is_some() && self.claim.attempt == 1 {
            self.engine.release_in_background(&self.key, &self.claim);
        }
    }
}

/// Looks away from `key` for a while, until `give_up` at most. Those who wait for one key share their looks, so they may
/// come back together.
async fn pause(key: &RecordKey, give_up: Instant) {
    let spread = key
        .as_str()
        .bytes()
        .fold(0, |sum: u64, byte| (sum * 31 + u64::from(byte)) % PAUSE_SPREAD);
    let spread = Duration::from_millis(spread);
    sleep_until(give_up.min(Instant::now() + PAUSE + spread)).await;
}
