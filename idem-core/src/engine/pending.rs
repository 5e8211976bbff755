//! A request's own claim, from the first look at the record until it is decided which request runs.
//!
//! Owns how a request looks at the record: by its own call, by a shared call, or again after a wait. Owns also the claim's
//! token: only one look at a time uses it, and a new token is drawn if an earlier call may still be on its way. Does not own which request makes a shared call: [`looks`](super::looks).

use std::future::{Future, Ready, ready};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::look::{Found, InFlightClaim, Look, Looked, Ownerless, PAUSE};
use super::looks::{Looks, Member, Role, Wakeup};
use super::permits::Permit;
use super::{Duplicate, Engine, Parts};
use crate::claim::wall_clock;
use crate::observe::{Call, Waiting};
use crate::{Acquisition, BackendError, Claim, ClaimPolicy, Decision, Fenced, Fingerprint, Record, RecordKey, decide};

/// How often a request tries again if the record changes during its calls. After that, the answer is "in flight". Each change
/// means that another request made progress.
const ROUNDS: usize = 4;

/// How long a request waits for another request's look, in multiples of the deadline.
const PATIENCE: u32 = 2;

/// The most milliseconds that are added to [`PAUSE`], so that waiters that failed together do not retry together.
const PAUSE_SPREAD: u64 = 250;

/// A request's own claim, which may or may not have been written yet.
///
/// If it is dropped before the handler starts, because the client hung up or the backend failed, the claim is given up in the
/// background. Otherwise the key would be blocked for the rest of the lease. IDEM-6 allows the release, because it is about
/// started handlers only.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) engine: Engine,
    pub(super) key: RecordKey,
    pub(super) claim: Claim,
    /// The time since which the claim may be stored; `None` if it is certainly not stored.
    written: Option<Instant>,
    /// Whether a claiming call was made with this token.
    has_asked: bool,
    /// Whether the claim, if it is written, has replaced a parked one.
    was_parked: bool,
    /// Held during a call that may claim, and after one that did. Always `None` if the engine has no limit.
    pub(super) permit: Option<Box<Permit>>,
}

impl Pending {
    pub(super) fn new(engine: &Engine, key: &RecordKey, fingerprint: Fingerprint, policy: &ClaimPolicy) -> Self {
        Self {
            engine: engine.clone(),
            key: key.clone(),
            claim: engine.first_claim(fingerprint, policy),
            written: None,
            has_asked: false,
            was_parked: false,
            permit: None,
        }
    }

    pub(super) fn take_permit(&mut self) -> Option<Box<Permit>> {
        self.permit.take()
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

    /// Hands the claim over to a run, which ends it. Dropping `self` does not release it any more.
    pub(super) fn start(&mut self) {
        self.written = None;
    }

    /// Waits for the end of the claim in flight, until `give_up` at most.
    pub(super) async fn wait(&mut self, mut look: Look, give_up: Instant, policy: &ClaimPolicy) -> Looked {
        let _waiting = Waiting::start();
        while matches!(look, Look::InFlight(_) | Look::Failed) && Instant::now() < give_up {
            // Subscribe first and look second: a change between the two would be missed otherwise.
            let changed = timeout_at(give_up, self.engine.listen(&self.key, policy)).await;
            look = self.look_again(policy).await?;
            match (&look, changed) {
                (Look::InFlight(held), Ok(Some(changed))) => {
                    let lapses = Instant::now() + held.remaining;
                    // Woken by a message, by `give_up` or by the end of the lease. The next look tells which.
                    let _woken = timeout_at(give_up.min(lapses), changed).await;
                    look = self.look_again(policy).await?;
                }
                (Look::InFlight(_), _) => pause(&self.key, give_up).await,
                _ => {}
            }
            // Pause also if a message has arrived: a call that failed a moment ago is likely to fail again.
            if matches!(look, Look::Failed) {
                pause(&self.key, give_up).await;
            }
        }
        Ok(look)
    }

    /// Looks again at a claim that was in flight. A transient error is no reason to give up waiting, because the earlier look
    /// has shown that an equal request came first.
    async fn look_again(&mut self, policy: &ClaimPolicy) -> Looked {
        match self.look(policy).await {
            Err(error) if error.is_transient() => {
                tracing::debug!(key = %self.key.shown(), %error, "a waiter could not look; it waits on");
                Ok(Look::Failed)
            }
            looked => looked,
        }
    }

    /// Claims the key, takes a lapsed claim over, or reports the existing record; by the request's own call or by a shared
    /// one.
    pub(super) fn look(&mut self, policy: &ClaimPolicy) -> impl Future<Output = Looked> + Send {
        let Parts { backend, looks, .. } = &*self.engine.0;
        let role = (!backend.is_in_process()).then(|| Looks::join(looks, &self.key));
        let turn = match role {
            None => None,
            Some(Role::Turn(turn)) => Some(turn),
            // Boxed, so that the future of an own look does not have the size of this one.
            Some(Role::Member(member)) => return Either::Right(Box::pin(self.look_together(member, policy))),
        };
        // Not an `async fn`, which stores its arguments twice.
        Either::Left(async move {
            let looked = self.acquire(policy, None).await;
            if let Some(turn) = turn {
                turn.end();
            }
            looked
        })
    }

    /// A shared look. Another member of the round makes the call, or this request makes it for the round.
    async fn look_together(&mut self, mut member: Member, policy: &ClaimPolicy) -> Looked {
        let patience = self.engine.deadline_of(policy.lease()) * PATIENCE;
        for _ in 0..ROUNDS {
            let Ok(wakeup) = timeout(patience, member.wait()).await else {
                // The request that has the turn may be on a blocked thread.
                return self.acquire(policy, None).await;
            };
            let turn = match wakeup {
                Wakeup::Turn(turn) => turn,
                Wakeup::Answer(answer) => match self.interpret(answer?, policy) {
                    Found::Look(look) => return Ok(look),
                    // The shared answer does not decide this request: the other request was not allowed to take the lapsed
                    // claim over, or the record is this request's own claim. This request needs a call of its own.
                    Found::Ownerless(_) | Found::Own => match Looks::join(&self.engine.0.looks, &self.key) {
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
            if matches!(looked, Ok(Look::TooBusy)) {
                // The record does not answer the other members either. Each of them looks for a permit.
                turn.end();
                return looked;
            }
            turn.tell(match (&looked, shown) {
                (Err(error), _) => Err(error.clone()),
                (Ok(Look::Claimed(_)), _) => Ok(Record::Claimed {
                    claim: self.claim.clone(),
                    remaining: self.claim.lease,
                }),
                // The record changed during the call, so what is stored is not known. The members are told that a claim is
                // in flight.
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

    /// Claims the key, takes a lapsed claim over, or reports the existing record. The record is copied to `shown`, if given.
    pub(super) async fn claim_or_report(&mut self, policy: &ClaimPolicy, shown: Option<&mut Option<Record>>) -> Looked {
        let before = self.written;
        if before.is_none() && self.has_asked {
            // A claim that an earlier look has written late must not be taken for the claim of this look.
            self.renounce(policy);
        }
        if before.is_some() && self.claim.attempt > 1 {
            // This request has taken a lapsed claim over, and only its renewal has failed. A claim would be that of a first attempt.
            return Box::pin(self.hold(policy)).await;
        }
        self.has_asked = true;
        (self.claim.attempt, self.claim.has_steps, self.was_parked) = (1, false, false);
        let asked = Instant::now();
        self.written.get_or_insert(asked);
        let Self { engine, key, claim, .. } = &*self;
        let found = engine.ask(Call::Claim, claim.lease, || engine.0.backend.claim(key, claim));
        let found = found.await;
        if before.is_none() && matches!(found, Ok(Acquisition::Acquired)) && self.still_holds(asked) {
            return Ok(Look::Claimed(asked));
        }
        self.act_on(found, before, policy, shown).await
    }

    /// Acts on the answer to a claiming call. `before` is the value of `written` before that call.
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
                // This call has written nothing. An earlier call, if there was one, still may have.
                self.written = before;
                if let Some(shown) = &mut shown {
                    **shown = Some(record.clone());
                }
                match self.interpret(record, policy) {
                    Found::Look(look) => Ok(look),
                    Found::Own => return Either::Right(Box::pin(self.hold(policy))),
                    Found::Ownerless(ownerless) => {
                        return Either::Right(Box::pin(self.take_over(ownerless, policy, shown)));
                    }
                }
            }
        };
        Either::Left(ready(known))
    }

    /// Decides what an existing record means for this request.
    pub(super) fn interpret(&mut self, record: Record, policy: &ClaimPolicy) -> Found {
        let lease = match &record {
            Record::Claimed { claim, .. } if claim.token == self.claim.token => {
                self.claim = claim.clone();
                return Found::Own;
            }
            Record::Claimed { claim, .. } => claim.lease,
            Record::Parked { .. } | Record::Completed { .. } => Duration::ZERO,
        };
        if self.written.is_some() {
            // An earlier call may still be on its way. With a new token, its claim is never taken for a later one.
            self.renounce(policy);
        }
        Found::Look(match decide(record, &self.claim.fingerprint, policy, wall_clock) {
            Decision::TakeOver(lapsed) => return Found::Ownerless(Ownerless::Lapsed(lapsed)),
            Decision::Continue(parked) => return Found::Ownerless(Ownerless::Parked(parked)),
            Decision::InFlight(remaining) => Look::InFlight(InFlightClaim { remaining, lease }),
            Decision::Replay(payload) => Look::Duplicate(Duplicate::Replay(payload)),
            Decision::NotStored => Look::Duplicate(Duplicate::NotStored),
            Decision::Mismatch => Look::Duplicate(Duplicate::Mismatch),
            Decision::OutcomeUnknown => Look::Duplicate(Duplicate::OutcomeUnknown),
        })
    }

    /// Whether the lease of a call that was made at `asked` certainly holds. If the process has stalled meanwhile, the lease
    /// may have lapsed before its answer was looked at.
    fn still_holds(&self, asked: Instant) -> bool {
        asked.elapsed() < self.claim.lease
    }

    /// Renews the claim, so that the handler starts with a full lease: it is the claim of an earlier call whose answer was lost,
    /// or its lease may have lapsed.
    async fn hold(&mut self, policy: &ClaimPolicy) -> Looked {
        loop {
            let asked = Instant::now();
            self.written.get_or_insert(asked);
            let Self { engine, key, claim, .. } = &*self;
            let renewing = engine.within_deadline(Call::Renew, claim.lease, engine.0.backend.renew(key, claim));
            if renewing.await? == Fenced::Superseded {
                break;
            }
            self.written = Some(asked);
            if self.still_holds(asked) {
                return Ok(Look::Claimed(asked));
            }
        }
        // The claim was taken over, or has expired, a moment ago.
        self.renounce(policy);
        Ok(Look::InFlight(InFlightClaim::UNKNOWN))
    }

    /// Gives the claim up if it may be written: the handler does not start. A first claim is released, and one that has replaced a
    /// parked claim is parked again. One that has replaced a lapsed claim is left to its lease: the fact that its attempt did not end
    /// must stay.
    fn give_up(&self) {
        if self.written.is_some() && (self.claim.attempt == 1 || self.was_parked) {
            self.engine.give_up_in_background(&self.key, &self.claim);
        }
    }

    /// Draws a new token. The claim of the old token, if it was written, is not this request's any more.
    fn renounce(&mut self, policy: &ClaimPolicy) {
        self.written = None;
        (self.has_asked, self.was_parked) = (false, false);
        self.claim = self.engine.first_claim(self.claim.fingerprint, policy);
    }

    /// Takes over a claim without an owner, or reports the record that has replaced it.
    async fn take_over(
        &mut self,
        mut ownerless: Ownerless,
        policy: &ClaimPolicy,
        mut shown: Option<&mut Option<Record>>,
    ) -> Looked {
        for _ in 0..ROUNDS {
            let before = ownerless.claim();
            self.claim.attempt = before.attempt.saturating_add(1);
            self.claim.began_at = before.began_at;
            self.claim.has_steps = before.has_steps;
            self.was_parked = matches!(ownerless, Ownerless::Parked(_));
            let asked = Instant::now();
            self.written = Some(asked);
            let Self { engine, key, claim, .. } = &*self;
            let take_over = || engine.0.backend.take_over(key, before, claim);
            let taken = engine.ask(Call::TakeOver, claim.lease, take_over).await;
            let taken = taken.map_err(|error| {
                self.give_up();
                self.renounce(policy);
                if before.has_steps {
                    error.of_known_record()
                } else {
                    error
                }
            });
            match taken? {
                Acquisition::Acquired => {
                    ownerless.log(&self.key, self.claim.attempt);
                    if !self.still_holds(asked) {
                        return self.hold(policy).await;
                    }
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
                        Found::Ownerless(again) => ownerless = again,
                    }
                }
            }
        }
        Ok(Look::InFlight(InFlightClaim::UNKNOWN))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Pauses before the next look at `key`, until `give_up` at most. The pause depends on the key alone: waiters for one key
/// retry together, and then share a look.
async fn pause(key: &RecordKey, give_up: Instant) {
    let spread = key
        .as_str()
        .bytes()
        .fold(0, |sum: u64, byte| (sum * 31 + u64::from(byte)) % PAUSE_SPREAD);
    let spread = Duration::from_millis(spread);
    sleep_until(give_up.min(Instant::now() + PAUSE + spread)).await;
}
