//! The connection of one process to the shared store, with all the faults of a network.
//!
//! Owns whether and when a call arrives, and whether its answer arrives. Does not check rules: it reports every call that took
//! effect to the oracle.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::pending;
use tokio::time::{Instant, sleep, sleep_until};

use super::oracle::Oracle;
use super::{Random, key_at};
use crate::engine::RecordOutcome;
use crate::inspect::{Inspect as _, Inspector};
use crate::spec::{Call, Reply};
use crate::steps::{RecordedSteps, StepBackend, StepStore};
use crate::{
    Acquisition, Backend, BackendError, BackendErrorKind, Changed, Claim, Completion, Fenced, MemoryBackend, Record,
    RecordKey,
};

/// The network of one process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Weather {
    Clear,
    Flaky,
    /// Until this time, every call hangs.
    Stalled(Instant),
}

/// The state that the test and all processes share. The lock is never held across an await.
#[derive(Debug)]
pub(super) struct World {
    pub(super) random: Random,
    pub(super) oracle: Oracle,
    pub(super) weather: Vec<Weather>,
    /// The number of failed calls, by process.
    pub(super) faults: Vec<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Shared(pub(super) Arc<Mutex<World>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claim of an owner's call.
pub(super) fn claim_of(call: &Call) -> &Claim {
    call.claim().expect("every call but a read has a claim")
}

pub(super) fn name_of(call: &Call) -> &'static str {
    match call {
        Call::Claim(_) => "claim",
        Call::TakeOver { .. } => "take-over",
        Call::Renew(_) => "renewal",
        Call::Complete { .. } => "completion",
        Call::Release(_) => "release",
        Call::Read => "read",
        Call::RecordStep { .. } => "step",
        Call::ReadSteps(_) => "reading of steps",
        Call::Park(_) => "parking",
        Call::Settle { .. } => "settlement",
    }
}

/// The outcome that an owner's call records; `None` if the call does not end its claim.
pub(super) fn outcome_of(call: &Call) -> Option<RecordOutcome> {
    match call {
        Call::Complete { claim, completion, ttl } => Some(RecordOutcome::Complete {
            completion: completion.clone(),
            keep_for: (*ttl != claim.ttl).then_some(*ttl),
        }),
        Call::Release(_) | Call::Park(_) => Some(RecordOutcome::Release),
        _ => None,
    }
}

fn acquisition(acquired: Acquisition) -> Reply {
    match acquired {
        Acquisition::Acquired => Reply::Acquired,
        Acquisition::Existing(record) => Reply::Existing(record),
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Slow(Duration),
    ErrorBefore,
    ErrorAfter,
    HangBefore,
    HangAfter,
    /// Lets the call take effect later, when its caller may have given up.
    Late(Duration),
    /// Fails at once, as when a connection breaks, and lets the call take effect later.
    ErrorLate(Duration),
    Stall(Instant),
}

#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) process: usize,
    pub(super) store: MemoryBackend,
    pub(super) shared: Shared,
}

impl Door {
    /// Ends the calling task, without a panic message, if the process is dead: a dead process makes no calls.
    fn lives(&self) {
        let is_dead = self.shared.lock().oracle.is_dead(self.process);
        if is_dead {
            resume_unwind(Box::new("the process is dead"));
        }
    }

    fn draw(&self, call: Option<&Call>) -> Fault {
        self.lives();
        let world = &mut *self.shared.lock();
        let fault = match world.weather[self.process] {
            Weather::Stalled(until) if until > Instant::now() => Fault::Stall(until),
            // The lapsed claim may have been renewed meanwhile.
            _ if matches!(call, Some(Call::TakeOver { .. })) && world.random.below(3) == 0 => {
                match world.random.below(2) {
                    0 => Fault::Late(Duration::from_millis(world.random.below(4_000))),
                    _ => Fault::Slow(Duration::from_millis(world.random.below(1_000))),
                }
            }
            Weather::Flaky => match world.random.below(18) {
                0..=1 => Fault::ErrorBefore,
                2..=3 => Fault::ErrorAfter,
                4 => Fault::HangBefore,
                5 => Fault::HangAfter,
                6..=7 => Fault::Late(Duration::from_millis(world.random.below(4_000))),
                8..=9 => Fault::Slow(Duration::from_millis(world.random.below(1_200))),
                10..=11 => Fault::ErrorLate(Duration::from_millis(world.random.below(2_000))),
                _ => Fault::None,
            },
            _ => Fault::None,
        };
        if !matches!(fault, Fault::None) {
            world.faults[self.process] += 1;
        }
        fault
    }

    /// There is no await between the effect and the report to the oracle.
    async fn take_effect(&self, key: &RecordKey, call: &Call) -> Result<Reply, BackendError> {
        let Self { process, store, shared } = self;
        let reply = match call {
            Call::Claim(claim) => acquisition(store.claim(key, claim).await?),
            Call::TakeOver { lapsed, claim } => acquisition(store.take_over(key, lapsed, claim).await?),
            Call::Renew(claim) => Reply::Fenced(store.renew(key, claim).await?),
            Call::Complete { claim, completion, ttl } => {
                Reply::Fenced(store.complete(key, claim, completion, *ttl).await?)
            }
            Call::Release(claim) => Reply::Fenced(store.release(key, claim).await?),
            Call::Read => Reply::Found(store.read(key).await?),
            Call::RecordStep { claim, name, step } => {
                Reply::Fenced(StepBackend::record_step(store, key, claim, name, step).await?)
            }
            Call::ReadSteps(claim) => {
                let steps = StepBackend::read_steps(store, key, claim).await?;
                Reply::Steps(steps.map(|steps| steps.into_iter().collect()))
            }
            Call::Park(claim) => Reply::Fenced(StepBackend::park(store, key, claim).await?),
            Call::Settle {
                version,
                settlement,
                live,
            } => Reply::Settled(store.settle(key, *version, settlement, *live).await?),
        };
        shared.lock().oracle.observed(*process, key_at(key), call, &reply);
        Ok(reply)
    }

    pub(super) async fn pass(&self, key: &RecordKey, call: Call) -> Result<Reply, BackendError> {
        let fault = self.draw(Some(&call));
        if matches!(fault, Fault::None) {
            return self.take_effect(key, &call).await;
        }
        self.note(key, &call, fault);
        self.disturb(key, &call);
        let reply = match fault {
            Fault::None | Fault::ErrorBefore | Fault::HangBefore => None,
            Fault::Slow(time) => {
                sleep(time).await;
                self.lives();
                return self.take_effect(key, &call).await;
            }
            Fault::Stall(until) => {
                sleep_until(until).await;
                self.lives();
                return self.take_effect(key, &call).await;
            }
            Fault::ErrorAfter | Fault::HangAfter => Some(self.take_effect(key, &call).await?),
            Fault::Late(time) | Fault::ErrorLate(time) => {
                let (door, key, call) = (self.clone(), key.clone(), call.clone());
                tokio::spawn(async move {
                    sleep(time).await;
                    door.take_effect(&key, &call).await
                });
                None
            }
        };
        if reply.is_some() {
            self.disturb(key, &call);
        }
        match fault {
            Fault::HangBefore | Fault::HangAfter | Fault::Late(_) => pending().await,
            _ => Err(BackendError::new(
                BackendErrorKind::Unavailable,
                "a fault of the model's",
            )),
        }
    }

    fn note(&self, key: &RecordKey, call: &Call, fault: Fault) {
        let world = &mut *self.shared.lock();
        let fault = match fault {
            // Instants differ between two runs with the same seed, so they are not part of the trace.
            Fault::Stall(_) => "Stall".to_owned(),
            fault => format!("{fault:?}"),
        };
        let event = format!("p{} k{} {} meets {fault}", self.process, key_at(key), name_of(call));
        world.oracle.note(&event);
    }

    /// The call is about to go wrong, or has gone wrong after its effect.
    fn disturb(&self, key: &RecordKey, call: &Call) {
        if let Some(claim) = call.claim() {
            self.shared.lock().oracle.disturbed(key_at(key), claim.token);
        }
    }

    async fn acquire(&self, key: &RecordKey, call: Call) -> Result<Acquisition, BackendError> {
        match self.pass(key, call).await? {
            Reply::Acquired => Ok(Acquisition::Acquired),
            Reply::Existing(record) => Ok(Acquisition::Existing(record)),
            reply => unreachable!("claims are acquired: {reply:?}"),
        }
    }

    async fn fenced(&self, key: &RecordKey, call: Call) -> Result<Fenced, BackendError> {
        match self.pass(key, call).await? {
            Reply::Fenced(fenced) => Ok(fenced),
            reply => unreachable!("owners' calls are fenced: {reply:?}"),
        }
    }
}

impl Backend for Door {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.acquire(key, Call::Claim(claim.clone())).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        let (lapsed, claim) = (lapsed.clone(), claim.clone());
        self.acquire(key, Call::TakeOver { lapsed, claim }).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.fenced(key, Call::Renew(claim.clone())).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        let (claim, completion) = (claim.clone(), completion.clone());
        self.fenced(key, Call::Complete { claim, completion, ttl }).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.fenced(key, Call::Release(claim.clone())).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        match self.pass(key, Call::Read).await? {
            Reply::Found(found) => Ok(found),
            reply => unreachable!("a read finds: {reply:?}"),
        }
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        match self.draw(None) {
            Fault::None => {}
            Fault::ErrorBefore | Fault::ErrorAfter | Fault::ErrorLate(_) => {
                return Err(BackendError::new(
                    BackendErrorKind::Unavailable,
                    "a fault of the model's",
                ));
            }
            _ => return pending().await,
        }
        self.store.changed(key).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.store.check().await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        Some(StepStore::of(self))
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        Some(Inspector::of(self))
    }
}

impl StepBackend for Door {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        let (claim, name, step) = (claim.clone(), name.to_owned(), step.clone());
        self.fenced(key, Call::RecordStep { claim, name, step }).await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        match self.pass(key, Call::ReadSteps(claim.clone())).await? {
            Reply::Steps(steps) => Ok(steps.map(|steps| steps.into_iter().collect())),
            reply => unreachable!("steps are read: {reply:?}"),
        }
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.fenced(key, Call::Park(claim.clone())).await
    }
}
