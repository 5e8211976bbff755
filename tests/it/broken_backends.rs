//! Each clause of the conformance kit can fail: on a backend that breaks just that clause.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use idem_core::conformance as kit;
use idem_core::{
    Acquisition, Backend, BackendError, BackendErrorKind, Changed, Claim, ClaimPolicy, Completion, Fenced, Fingerprint,
    IdempotencyKey, MemoryBackend, Record, RecordKey, Scope,
};
use tokio::time::Instant;

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    EverybodyWins,
    AttemptsAreForgotten,
    ARepeatedClaimIsInItsOwnWay,
    ARepeatedClaimStartsItsLeaseAnew,
    LeasesNeverLapse,
    LapsedClaimsVanish,
    AnyClaimIsTakenOver,
    TakingOverNothingWritesNothing,
    RenewingDoesNothing,
    CompletionsExpireEarly,
    CompletionsStayAsLongAsTheirClaimSays,
    ARepeatedCompletionProlongs,
    ALapsedOwnerIsSuperseded,
    ReleasingDoesNothing,
    CompletingIgnoresTokens,
    RenewingIgnoresTokens,
    ReleasingIgnoresTokens,
    ARepeatedReleaseIsApplied,
    PayloadsEndAtNul,
    ScopesAreIgnored,
    NobodyIsToldOfACompletion,
    NobodyIsToldOfARelease,
    TheUnreadableIsAbsent,
    AHealthyStoreFailsItsCheck,
    CheckingForgetsEverything,
    ReadingClaims,
    ReadingFindsNothing,
}

/// How a claim ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Completion,
    Release,
}

/// The memory backend with a defect.
#[derive(Debug)]
struct Broken {
    inner: MemoryBackend,
    defect: Option<Defect>,
    /// Nothing that was claimed before is there any more.
    checked: AtomicBool,
    /// What can no longer be read.
    spoiled: Mutex<HashSet<RecordKey>>,
    /// How the claims of keys last ended.
    last: Arc<Mutex<HashMap<RecordKey, Event>>>,
    /// Completions, from when they were last written.
    prolonged: Mutex<HashMap<RecordKey, (Record, Instant)>>,
}

impl Broken {
    fn new(defect: Option<Defect>) -> Self {
        Self {
            inner: MemoryBackend::new(),
            defect,
            checked: AtomicBool::new(false),
            spoiled: Mutex::default(),
            last: Arc::default(),
            prolonged: Mutex::default(),
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn ends(&self, key: &RecordKey, event: Event) {
        self.last.lock().expect("nothing panics").insert(key.clone(), event);
    }

    /// What comes of reading a record that was spoiled; `None` where it was not.
    fn spoiled(&self, key: &RecordKey) -> Option<Result<Acquisition, BackendError>> {
        let is_spoiled = self.spoiled.lock().expect("nothing panics").contains(key);
        is_spoiled.then(|| {
            if self.has(Defect::TheUnreadableIsAbsent) {
                return Ok(Acquisition::Acquired);
            }
            Err(BackendError::new(BackendErrorKind::Unreadable, "it was spoiled"))
        })
    }

    fn prolonged(&self) -> MutexGuard<'_, HashMap<RecordKey, (Record, Instant)>> {
        self.prolonged.lock().expect("nothing panics")
    }

    fn key(&self, key: &RecordKey) -> RecordKey {
        if !self.has(Defect::ScopesAreIgnored) {
            return key.clone();
        }
        RecordKey::new("o", &Scope::global(), &IdempotencyKey::of("everybody's")).expect("a valid key")
    }

    /// The claim in place, whoever asks.
    async fn owner(&self, key: &RecordKey, asks: &Claim) -> Result<Claim, BackendError> {
        let witness = Claim {
            token: idem_core::Token::random(),
            ..asks.clone()
        };
        Ok(match self.inner.claim(key, &witness).await? {
            Acquisition::Existing(Record::Claimed { claim, .. } | Record::Parked { claim }) => claim,
            Acquisition::Existing(Record::Completed { .. }) => asks.clone(),
            Acquisition::Acquired => {
                let _ = self.inner.release(key, &witness).await?;
                asks.clone()
            }
        })
    }

    async fn is_lapsed(&self, key: &RecordKey, claim: &Claim) -> Result<bool, BackendError> {
        let witness = Claim {
            token: idem_core::Token::random(),
            ..claim.clone()
        };
        Ok(match self.inner.claim(key, &witness).await? {
            Acquisition::Existing(Record::Claimed { remaining, .. }) => remaining.is_zero(),
            Acquisition::Existing(Record::Parked { .. } | Record::Completed { .. }) => false,
            Acquisition::Acquired => {
                let _ = self.inner.release(key, &witness).await?;
                false
            }
        })
    }

    fn seen(&self, mut record: Record) -> Record {
        if let Record::Claimed { claim, remaining } = &mut record {
            if self.has(Defect::AttemptsAreForgotten) {
                claim.attempt = 1;
            }
            if self.has(Defect::LeasesNeverLapse) {
                *remaining = (*remaining).max(Duration::from_millis(1));
            }
        }
        record
    }
}

impl Backend for Broken {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let key = &self.key(key);
        if let Some(read) = self.spoiled(key) {
            return read;
        }
        if let Some((record, until)) = self.prolonged().get(key)
            && *until > Instant::now()
        {
            return Ok(Acquisition::Existing(record.clone()));
        }
        if self.has(Defect::LapsedClaimsVanish) && self.is_lapsed(key, claim).await? {
            let owner = self.owner(key, claim).await?;
            let _ = self.inner.release(key, &owner).await?;
        }
        if self.has(Defect::ARepeatedClaimIsInItsOwnWay) && self.owner(key, claim).await? == *claim {
            let again = Claim {
                token: idem_core::Token::random(),
                ..claim.clone()
            };
            if let Acquisition::Existing(record) = self.inner.claim(key, &again).await? {
                return Ok(Acquisition::Existing(record));
            }
            let _ = self.inner.release(key, &again).await?;
        }
        Ok(match self.inner.claim(key, claim).await? {
            Acquisition::Existing(_) if self.has(Defect::EverybodyWins) => Acquisition::Acquired,
            Acquisition::Existing(record) => Acquisition::Existing(self.seen(record)),
            Acquisition::Acquired => {
                if self.has(Defect::ARepeatedClaimStartsItsLeaseAnew) {
                    let _ = self.inner.renew(key, claim).await?;
                }
                Acquisition::Acquired
            }
        })
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        if let Some(read) = self.spoiled(key) {
            return read;
        }
        if self.has(Defect::TakingOverNothingWritesNothing) {
            return Ok(Acquisition::Acquired);
        }
        if self.has(Defect::AnyClaimIsTakenOver) {
            let owner = self.owner(key, lapsed).await?;
            return self.inner.take_over(key, &owner, claim).await;
        }
        self.inner.take_over(key, lapsed, claim).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        if self.spoiled(key).is_some() || self.checked.load(Ordering::SeqCst) {
            return Ok(Fenced::Superseded);
        }
        if self.has(Defect::RenewingDoesNothing) {
            return Ok(Fenced::Applied);
        }
        let mut claim = claim.clone();
        if self.has(Defect::RenewingIgnoresTokens) {
            claim = self.owner(key, &claim).await?;
        }
        self.inner.renew(key, &claim).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        if self.spoiled(key).is_some() {
            return Ok(Fenced::Superseded);
        }
        let key = &self.key(key);
        if self.has(Defect::ALapsedOwnerIsSuperseded) && self.is_lapsed(key, claim).await? {
            return Ok(Fenced::Superseded);
        }
        let mut claim = claim.clone();
        if self.has(Defect::CompletingIgnoresTokens) {
            claim = self.owner(key, &claim).await?;
        }
        let ttl = match self.defect {
            Some(Defect::CompletionsExpireEarly) => ttl / 4,
            Some(Defect::CompletionsStayAsLongAsTheirClaimSays) => claim.ttl,
            _ => ttl,
        };
        let mut completion = completion.clone();
        if let (Completion::Stored(payload), true) = (&mut completion, self.has(Defect::PayloadsEndAtNul)) {
            let end = payload.iter().position(|byte| *byte == 0);
            payload.truncate(end.unwrap_or(payload.len()));
        }
        self.ends(key, Event::Completion);
        let settled = self.inner.complete(key, &claim, &completion, ttl).await?;
        if self.has(Defect::ARepeatedCompletionProlongs) && settled == Fenced::Applied {
            let fingerprint = claim.fingerprint;
            let record = Record::Completed {
                fingerprint,
                completion,
            };
            self.prolonged().insert(key.clone(), (record, Instant::now() + ttl));
        }
        Ok(settled)
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        if self.spoiled(key).is_some() {
            return Ok(Fenced::Superseded);
        }
        if self.has(Defect::ReleasingDoesNothing) {
            return Ok(Fenced::Applied);
        }
        let key = &self.key(key);
        let mut claim = claim.clone();
        if self.has(Defect::ReleasingIgnoresTokens) {
            claim = self.owner(key, &claim).await?;
        }
        self.ends(key, Event::Release);
        let released = self.inner.release(key, &claim).await?;
        if self.has(Defect::ARepeatedReleaseIsApplied) {
            return Ok(Fenced::Applied);
        }
        Ok(released)
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        if let Some(read) = self.spoiled(key) {
            return read.map(|_| None);
        }
        let key = &self.key(key);
        let found = self.inner.read(key).await?;
        if found.is_none() && self.has(Defect::ReadingClaims) {
            let policy = ClaimPolicy::new(Duration::from_mins(1));
            let _ = self.inner.claim(key, &Claim::first(Fingerprint::NONE, &policy)).await?;
        }
        Ok(found.filter(|_| !self.has(Defect::ReadingFindsNothing)))
    }

    async fn check(&self) -> Result<(), BackendError> {
        if self.has(Defect::AHealthyStoreFailsItsCheck) {
            return Err(BackendError::new(BackendErrorKind::Refused, "it is healthy"));
        }
        if self.has(Defect::CheckingForgetsEverything) {
            self.checked.store(true, Ordering::SeqCst);
        }
        self.inner.check().await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        let changed = self.inner.changed(key).await?;
        let untold = match self.defect {
            Some(Defect::NobodyIsToldOfACompletion) => Event::Completion,
            Some(Defect::NobodyIsToldOfARelease) => Event::Release,
            _ => return Ok(changed),
        };
        let (last, key) = (self.last.clone(), key.clone());
        Ok(Changed::new(async move {
            changed.await;
            let is_untold = last.lock().expect("nothing panics").get(&key) == Some(&untold);
            if is_untold {
                std::future::pending::<()>().await;
            }
        }))
    }
}

/// Each clause, on the backend that breaks it, as a test that passes if the clause fails.
macro_rules! clauses_fail {
    ($($clause:ident on $defect:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $clause() {
                let broken = Broken::new(Some(Defect::$defect));
                let clause = tokio::spawn(kit::in_time(kit::$clause(broken)));
                assert!(clause.await.is_err_and(|error| error.is_panic()), "it holds though {:?}", Defect::$defect);
            }
        )*
    };
}

clauses_fail! {
    clause_01_an_absent_key_is_claimed_and_one_of_many_claims_wins on EverybodyWins
    clause_02_a_present_key_is_reported_and_not_changed on AttemptsAreForgotten
    clause_03_a_claim_repeated_by_its_token_is_acquired_again on ARepeatedClaimIsInItsOwnWay
    clause_04_a_lease_lapses_and_the_claim_stays_in_place_until_its_ttl on LeasesNeverLapse
    clause_05_only_exactly_the_lapsed_claim_is_taken_over_and_by_one on AnyClaimIsTakenOver
    clause_05_taking_over_what_is_gone_claims on TakingOverNothingWritesNothing
    clause_06_renewing_starts_the_lease_anew on RenewingDoesNothing
    clause_07_a_completion_stays_for_its_ttl on CompletionsExpireEarly
    clause_07_and_08_a_lapsed_owner_that_was_not_superseded_completes_and_releases on ALapsedOwnerIsSuperseded
    clause_08_a_release_makes_the_key_absent on ReleasingDoesNothing
    clause_09_a_superseded_owner_changes_nothing on CompletingIgnoresTokens
    clause_10_payloads_come_back_byte_for_byte on PayloadsEndAtNul
    clause_12_keys_do_not_touch_each_other on ScopesAreIgnored
    clause_13_whoever_listens_is_told_of_a_completion_and_of_a_release on NobodyIsToldOfACompletion
    clause_14_a_store_that_takes_claims_passes_its_check_and_is_not_changed_by_it on AHealthyStoreFailsItsCheck
    clause_15_reading_returns_what_is_there_and_changes_nothing on ReadingClaims
}

mod also {
    use super::*;

    clauses_fail! {
        clause_03_a_claim_repeated_by_its_token_is_acquired_again on ARepeatedClaimStartsItsLeaseAnew
        clause_04_a_lease_lapses_and_the_claim_stays_in_place_until_its_ttl on LapsedClaimsVanish
        clause_07_neither_reading_nor_repeating_prolongs_a_completion on ARepeatedCompletionProlongs
        clause_08_a_release_makes_the_key_absent on ARepeatedReleaseIsApplied
        clause_09_a_superseded_owner_changes_nothing on RenewingIgnoresTokens
        clause_13_whoever_listens_is_told_of_a_completion_and_of_a_release on NobodyIsToldOfARelease
        clause_14_a_store_that_takes_claims_passes_its_check_and_is_not_changed_by_it on CheckingForgetsEverything
        clause_15_reading_returns_what_is_there_and_changes_nothing on ReadingFindsNothing
        clause_07_a_completion_may_stay_for_another_time_than_its_claim_says on CompletionsStayAsLongAsTheirClaimSays
    }
}

mod and {
    use super::*;

    clauses_fail! {
        clause_09_a_superseded_owner_changes_nothing on ReleasingIgnoresTokens
    }
}

/// The memory backend, with records that read as spoiled, or with the defect as absent.
struct Spoilable {
    broken: Broken,
}

impl kit::Subject for Spoilable {
    type Backend = Broken;

    fn backend(&self) -> &Broken {
        &self.broken
    }

    async fn spoil(&self, key: &RecordKey) -> bool {
        self.broken.spoiled.lock().expect("nothing panics").insert(key.clone())
    }
}

async fn clause_11_on(defect: Option<Defect>) -> Result<(), tokio::task::JoinError> {
    let broken = Broken::new(defect);
    let clause = kit::clause_11_what_cannot_be_read_is_an_error_and_not_absent(Spoilable { broken });
    tokio::spawn(kit::in_time(clause)).await
}

#[tokio::test(start_paused = true)]
async fn clause_11_what_cannot_be_read_is_an_error_and_not_absent() {
    let failed = clause_11_on(Some(Defect::TheUnreadableIsAbsent)).await;
    assert!(failed.is_err_and(|error| error.is_panic()));
    clause_11_on(None).await.expect("without the defect it holds");
}
