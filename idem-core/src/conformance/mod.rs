//! The contract of [`Backend`] as tests, for any backend.
//!
//! Owns one test per clause, or several, and one test of all clauses at once: the history of many concurrent calls. Does not
//! own servers: the caller makes a backend for each test.
//! Clause 11 (unreadable is not absent) needs a way to change the store behind the backend's back: [`Subject::spoil`].
//!
//! ```no_run
//! mod memory {
//!     idem_core::conformance!(async { idem_core::MemoryBackend::new() });
//! }
//! ```
//!
//! A backend that keeps durable steps has more clauses: [`conformance_of_steps`](crate::conformance_of_steps). So has a backend that
//! an operator can inspect: [`conformance_of_inspection`](crate::conformance_of_inspection).
//!
//! The tests run on real time and need `tokio` with `macros` and `rt-multi-thread` among the caller's dependencies.
//! No test asserts that something happened quickly. If time has to pass, a test waits until the backend reports it.

#![allow(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a clause that is not kept fails its test by a panic"
)]

mod claims;
mod histories;
mod inspect;
mod outcomes;
mod steps;
mod store;

use std::sync::Arc;
use std::time::Duration;

pub use claims::*;
pub use histories::*;
pub use inspect::*;
pub use outcomes::*;
pub use steps::*;
pub use store::*;
use tokio::time::{Instant, sleep};

use crate::claim::time_from_millis;
use crate::{
    Acquisition, Backend, Changed, Claim, Completion, Fenced, Fingerprint, IdempotencyKey, Owner, Record, RecordKey,
    Scope, Token,
};

/// The subject of the tests: a backend, or a type that holds a backend and keeps its server alive.
pub trait Subject: Send + Sync + 'static {
    /// The backend under test.
    type Backend: Backend;

    /// The backend under test.
    fn backend(&self) -> &Self::Backend;

    /// Replaces the record under `key` by a value that the backend cannot read, without using the backend.
    ///
    /// Returns `false` if that is impossible, as it is for values in the memory of one process. Clause 11 then tests
    /// nothing.
    fn spoil(&self, key: &RecordKey) -> impl Future<Output = bool> + Send {
        let _ = key;
        std::future::ready(false)
    }

    /// Removes the steps of the record under `key`, and leaves the record, without using the backend.
    ///
    /// Returns `false` if that is impossible. Clause 22 then tests nothing.
    fn lose_steps(&self, key: &RecordKey) -> impl Future<Output = bool> + Send {
        let _ = key;
        std::future::ready(false)
    }
}

impl<B: Backend> Subject for B {
    type Backend = B;

    fn backend(&self) -> &B {
        self
    }
}

/// Expands to one `#[tokio::test]` per test of the kit. Takes an expression whose future resolves to a new [`Subject`].
#[macro_export]
macro_rules! conformance {
    ($subject:expr) => {
        $crate::conformance!(@each $subject;
            clause_01_an_absent_key_is_claimed_and_one_of_many_claims_wins
            clause_02_a_present_key_is_reported_and_not_changed
            clause_03_a_claim_repeated_by_its_token_is_acquired_again
            clause_04_a_lease_lapses_and_the_claim_stays_in_place_until_its_ttl
            clause_05_only_exactly_the_lapsed_claim_is_taken_over_and_by_one
            clause_05_taking_over_what_is_gone_claims
            clause_06_renewing_starts_the_lease_anew
            clause_07_a_completion_stays_for_its_ttl
            clause_07_and_08_a_lapsed_owner_that_was_not_superseded_completes_and_releases
            clause_07_a_completion_may_stay_for_another_time_than_its_claim_says
            clause_07_neither_reading_nor_repeating_prolongs_a_completion
            clause_08_a_release_makes_the_key_absent
            clause_09_a_superseded_owner_changes_nothing
            clause_10_payloads_come_back_byte_for_byte
            clause_11_what_cannot_be_read_is_an_error_and_not_absent
            clause_12_keys_do_not_touch_each_other
            clause_13_whoever_listens_is_told_of_a_completion_and_of_a_release
            clause_14_a_store_that_takes_claims_passes_its_check_and_is_not_changed_by_it
            clause_15_reading_returns_what_is_there_and_changes_nothing
            the_history_of_concurrent_calls_is_explained
        );
    };
    (@each $subject:expr; $($clause:ident)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $clause() {
                let clause = $crate::conformance::$clause(($subject).await);
                $crate::conformance::in_time(clause).await;
            }
        )*
    };
}

/// Long enough never to lapse within a test.
const LONG: Duration = Duration::from_mins(10);
/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(60);
/// How long a test waits for something that should take [`SHORT`], before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

const REQUEST: Fingerprint = Fingerprint::new(1, [0xA5; 32]);

/// A key that no other test uses.
fn fresh_key() -> RecordKey {
    let unique = IdempotencyKey::of(&format_args!("{:?}", Token::random()));
    match RecordKey::new("conformance", &Scope::of("kit"), &unique) {
        Ok(key) => key,
        Err(error) => unreachable!("{error}"),
    }
}

fn claim(lease: Duration, ttl: Duration) -> Claim {
    Claim {
        token: Token::random(),
        attempt: 1,
        fingerprint: REQUEST,
        lease,
        ttl,
        began_at: time_from_millis(1_764_000_000_123),
        owner: Owner::new("kit:1"),
        has_steps: false,
    }
}

/// The calls of a subject, with errors turned into failed tests, because the store is healthy.
struct Kit<S>(Arc<S>);

impl<S> Clone for Kit<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Subject> Kit<S> {
    fn new(subject: S) -> Self {
        Self(Arc::new(subject))
    }

    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Acquisition {
        healthy(self.0.backend().claim(key, claim).await)
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Acquisition {
        healthy(self.0.backend().take_over(key, lapsed, claim).await)
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Fenced {
        healthy(self.0.backend().renew(key, claim).await)
    }

    async fn complete(&self, key: &RecordKey, claim: &Claim, payload: &'static [u8]) -> Fenced {
        self.complete_with(key, claim, &Completion::Stored(payload.into()))
            .await
    }

    async fn complete_with(&self, key: &RecordKey, claim: &Claim, completion: &Completion) -> Fenced {
        self.complete_for(key, claim, completion, claim.ttl).await
    }

    async fn complete_for(&self, key: &RecordKey, claim: &Claim, completion: &Completion, ttl: Duration) -> Fenced {
        healthy(self.0.backend().complete(key, claim, completion, ttl).await)
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Fenced {
        healthy(self.0.backend().release(key, claim).await)
    }

    async fn changed(&self, key: &RecordKey) -> Changed {
        healthy(self.0.backend().changed(key).await)
    }

    async fn check(&self) {
        healthy(self.0.backend().check().await);
    }

    /// The record under `key`. The test fails if there is none.
    async fn read(&self, key: &RecordKey) -> Record {
        match self.claim(key, &claim(LONG, LONG)).await {
            Acquisition::Existing(record) => record,
            Acquisition::Acquired => panic!("nothing is stored under {key}"),
        }
    }

    /// The rest of the lease of the claim under `key`.
    async fn remaining(&self, key: &RecordKey) -> Duration {
        match self.read(key).await {
            Record::Claimed { remaining, .. } => remaining,
            other @ (Record::Parked { .. } | Record::Completed { .. }) => panic!("{other:?} in the place of a claim"),
        }
    }

    async fn wait_until_lapsed(&self, key: &RecordKey) {
        let patience = Instant::now() + PATIENCE;
        while !self.remaining(key).await.is_zero() {
            assert!(Instant::now() < patience, "the lease never lapsed");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until `key` is absent. Afterwards, a claim of this function's is stored under it.
    async fn wait_until_absent(&self, key: &RecordKey) {
        let patience = Instant::now() + PATIENCE;
        let witness = claim(LONG, LONG);
        while self.claim(key, &witness).await != Acquisition::Acquired {
            assert!(Instant::now() < patience, "the record never expired");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Runs a clause, and fails if it hangs.
#[doc(hidden)]
pub async fn in_time(clause: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(PATIENCE * 4, clause).await;
    assert!(ended.is_ok(), "the clause hangs");
}

fn healthy<T>(result: Result<T, crate::BackendError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!(
            "{error}: {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        ),
    }
}

/// The least of `duration` that must have passed, for a store that counts in milliseconds.
fn at_least(duration: Duration) -> Duration {
    duration.saturating_sub(Duration::from_millis(2))
}
