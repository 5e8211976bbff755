//! Clauses 1 to 10 and 15, and 16 to 21 where the backend keeps steps, at once: many concurrent calls, and an order in which the specification explains them.
//!
//! Owns how many calls there are. Does not own what the callers do, nor the check: [`history`](crate::spec::history).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Subject, fresh_key};
use crate::inspect::Inspector;
use crate::spec::history::{History, Load, Random, Recorder};
use crate::steps::StepStore;
use crate::{Acquisition, Backend, BackendError, Changed, Claim, Completion, Fenced, Record, RecordKey, Token};

const OWNERS: u32 = 8;
const CALLS: usize = 60;
const KEYS: usize = 2;

/// All clauses about the state of one key.
///
/// The owners of claims give up calls, repeat calls, and go on though they were superseded, while leases lapse and records
/// expire. A key with too many concurrent calls to be checked is printed and does not fail the test.
pub async fn the_history_of_concurrent_calls_is_explained<S: Subject>(subject: S) {
    let (subject, history) = (Arc::new(subject), History::new());
    let keys: Vec<_> = (0..KEYS).map(|_| fresh_key()).collect();
    let seed = u128::from_ne_bytes(Token::random().to_bytes());
    let mut seeds = Random(u64::try_from(seed >> 64).unwrap_or_default());
    let owners = (0..OWNERS).map(|owner| {
        let recorder = Recorder::new(Shared(subject.clone()), owner, history.clone());
        let (keys, seed) = (keys.clone(), seeds.below(u64::MAX));
        tokio::spawn(async move { Load::new(&recorder, &keys, seed).run(CALLS).await })
    });
    for ended in join_all(owners).await {
        assert!(ended.is_ok(), "{ended:?}");
    }
    let report = history.check();
    println!("{report}");
    assert!(report.unexplained.is_empty(), "{report}");
    assert_eq!(report.histories, KEYS);
}

/// The backend of a subject, for several recorders.
struct Shared<S>(Arc<S>);

impl<S: Subject> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.backend().fmt(f)
    }
}

impl<S: Subject> Backend for Shared<S> {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.0.backend().claim(key, claim).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.0.backend().take_over(key, lapsed, claim).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.0.backend().renew(key, claim).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        self.0.backend().complete(key, claim, completion, ttl).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.0.backend().release(key, claim).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        self.0.backend().read(key).await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.0.backend().changed(key).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.0.backend().check().await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        self.0.backend().steps()
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        self.0.backend().inspector()
    }
}
