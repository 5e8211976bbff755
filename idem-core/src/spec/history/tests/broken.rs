//! Stores that break one clause of the contract each.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::*;
use crate::inspect::Inspector;
use crate::steps::{RecordedSteps, StepBackend, StepStore};
use crate::{Acquisition, Backend, BackendError, Changed, MemoryBackend, RecordKey};

/// What a store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A superseded owner completes the claim of the one in place.
    CompletesForAnyone,
    /// A superseded owner releases the claim of the one in place.
    ReleasesForAnyone,
    /// A claim is taken over before its lease has lapsed.
    TakesOverEarly,
    /// Now and then, two claims win.
    LetsTwoWin,
    /// Now and then, a completion is acknowledged and forgotten.
    ForgetsCompletions,
    /// A renewal is acknowledged, and the lease runs on.
    ForgetsRenewals,
    /// Leases are half as long as asked for.
    HalvesLeases,
    /// Outcomes are kept for half as long as asked for.
    HalvesTtls,
    /// Repeating a completion writes over the first one.
    OverwritesCompletions,
    /// A superseded owner records a step in the record of the one in place.
    RecordsForAnyone,
    /// Now and then, a step is acknowledged and forgotten.
    ForgetsSteps,
    /// A takeover begins without the steps of the claims before.
    DropsStepsOfOthers,
    /// Parking releases.
    ParksByRelease,
    /// Parking is acknowledged, and the claim stays.
    ParksByRenewal,
    /// Steps that are read are those of the claim before.
    ReadsForAnyone,
    /// An operator's change meets whatever record is there.
    SettlesAnyRecord,
    /// An operator's change is fenced by the token alone.
    SettlesAnyPhase,
    /// An operator's change does not look at the steps.
    SettlesAnySteps,
    /// A live claim is settled without force.
    SettlesLiveClaims,
    /// Now and then, a settlement is acknowledged and forgotten.
    ForgetsSettlements,
    /// The outcome of an operator is written under the token that was there.
    KeepsTheToken,
    /// A rerun removes the record with its steps.
    RerunsWithoutSteps,
    /// A rerun leaves the claim to its owner.
    RerunsWithOwner,
}

impl Fault {
    pub(super) const ALL: [Self; 23] = [
        Self::CompletesForAnyone,
        Self::ReleasesForAnyone,
        Self::TakesOverEarly,
        Self::LetsTwoWin,
        Self::ForgetsCompletions,
        Self::ForgetsRenewals,
        Self::HalvesLeases,
        Self::HalvesTtls,
        Self::OverwritesCompletions,
        Self::RecordsForAnyone,
        Self::ForgetsSteps,
        Self::DropsStepsOfOthers,
        Self::ParksByRelease,
        Self::ParksByRenewal,
        Self::ReadsForAnyone,
        Self::SettlesAnyRecord,
        Self::SettlesAnyPhase,
        Self::SettlesAnySteps,
        Self::SettlesLiveClaims,
        Self::ForgetsSettlements,
        Self::KeepsTheToken,
        Self::RerunsWithoutSteps,
        Self::RerunsWithOwner,
    ];
}

#[derive(Debug)]
pub(super) struct Broken {
    pub(super) store: MemoryBackend,
    fault: Fault,
    /// The last claim that was acquired on each key.
    held: Mutex<HashMap<RecordKey, Claim>>,
    calls: AtomicU64,
    /// The names of the steps that each claim has recorded.
    recorded: Mutex<HashSet<(Token, String)>>,
}

impl Broken {
    pub(super) fn new(fault: Fault) -> Self {
        Self {
            store: MemoryBackend::new(),
            fault,
            held: Mutex::default(),
            calls: AtomicU64::new(0),
            recorded: Mutex::default(),
        }
    }

    pub(super) fn fault(&self) -> Fault {
        self.fault
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    pub(super) fn now_and_then(&self, fault: Fault) -> bool {
        self.has(fault) && self.calls.fetch_add(1, Ordering::Relaxed) % 8 == 7
    }

    /// The claim that a call by `claim` is taken for.
    fn taken_for(&self, fault: Fault, key: &RecordKey, claim: &Claim) -> Claim {
        let held = self.held.lock().expect("not poisoned");
        let anyone = held.get(key).filter(|_| self.has(fault));
        anyone.unwrap_or(claim).clone()
    }

    fn acquired(&self, key: &RecordKey, claim: &Claim, acquisition: Acquisition) -> Acquisition {
        match acquisition {
            Acquisition::Acquired => {
                self.held
                    .lock()
                    .expect("not poisoned")
                    .insert(key.clone(), claim.clone());
                Acquisition::Acquired
            }
            Acquisition::Existing(record) => Acquisition::Existing(self.reported(record)),
        }
    }

    /// The claim as it is written. A store that writes it otherwise still reports what it was asked for.
    fn written(&self, claim: &Claim) -> Claim {
        let mut written = claim.clone();
        if self.has(Fault::HalvesLeases) {
            written.lease /= 2;
        }
        if self.has(Fault::HalvesTtls) {
            written.ttl /= 2;
        }
        written
    }

    pub(super) fn reported(&self, mut record: Record) -> Record {
        if let Record::Claimed { claim, .. } | Record::Parked { claim } = &mut record {
            if self.has(Fault::HalvesLeases) {
                claim.lease *= 2;
            }
            if self.has(Fault::HalvesTtls) {
                claim.ttl *= 2;
            }
        }
        record
    }
}

impl Backend for Broken {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let found = self.store.claim(key, &self.written(claim)).await?;
        if self.now_and_then(Fault::LetsTwoWin) {
            return Ok(Acquisition::Acquired);
        }
        Ok(self.acquired(key, claim, found))
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        if self.has(Fault::TakesOverEarly) && self.store.release(key, lapsed).await? == Fenced::Applied {
            return self.claim(key, claim).await;
        }
        let found = self
            .store
            .take_over(key, &self.written(lapsed), &self.written(claim))
            .await?;
        Ok(self.acquired(key, claim, found))
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        if self.has(Fault::ForgetsRenewals) {
            let found = self.store.claim(key, claim).await?;
            return Ok(if found == Acquisition::Acquired {
                Fenced::Applied
            } else {
                Fenced::Superseded
            });
        }
        self.store.renew(key, &self.written(claim)).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        let claim = self.taken_for(Fault::CompletesForAnyone, key, claim);
        if self.now_and_then(Fault::ForgetsCompletions) {
            return self.store.renew(key, &claim).await;
        }
        if self.has(Fault::OverwritesCompletions) {
            let done = self.store.complete(key, &claim, &Completion::NotStored, ttl).await?;
            if done == Fenced::Applied {
                // The store cannot be told to overwrite, so the first outcome is what every later one says.
                return Ok(done);
            }
        }
        let ttl = if self.has(Fault::HalvesTtls) { ttl / 2 } else { ttl };
        self.store.complete(key, &self.written(&claim), completion, ttl).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let claim = self.taken_for(Fault::ReleasesForAnyone, key, claim);
        self.store.release(key, &claim).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        let found = self.store.read(key).await?;
        Ok(found.map(|record| self.reported(record)))
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
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

impl StepBackend for Broken {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        let claim = self.taken_for(Fault::RecordsForAnyone, key, claim);
        if self.now_and_then(Fault::ForgetsSteps) {
            return self.store.renew(key, &claim).await;
        }
        self.recorded
            .lock()
            .expect("not poisoned")
            .insert((claim.token, name.to_owned()));
        StepBackend::record_step(&self.store, key, &claim, name, step).await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        let claim = self.taken_for(Fault::ReadsForAnyone, key, claim);
        let mut steps = StepBackend::read_steps(&self.store, key, &claim).await?;
        if self.has(Fault::DropsStepsOfOthers) {
            let recorded = self.recorded.lock().expect("not poisoned");
            let is_own = |(name, _): &(String, Bytes)| recorded.contains(&(claim.token, name.clone()));
            steps = steps.map(|steps| steps.into_iter().filter(is_own).collect());
        }
        Ok(steps)
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        match self.fault {
            Fault::ParksByRelease => self.store.release(key, claim).await,
            Fault::ParksByRenewal => self.store.renew(key, claim).await,
            _ => StepBackend::park(&self.store, key, claim).await,
        }
    }
}
