//! Random calls over a correct store, and over broken ones.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::broken::{Broken, Fault};
use super::*;
use crate::inspect::Inspector;
use crate::steps::{RecordedSteps, StepBackend, StepStore};
use crate::{
    Acquisition, Backend, BackendError, BackendErrorKind, Changed, IdempotencyKey, MemoryBackend, RecordKey, Scope,
};

const OWNERS: u32 = 6;
const CALLS: usize = 60;

/// The way to the store: calls take time, and some replies are lost.
#[derive(Debug)]
pub(super) struct Way<B> {
    pub(super) store: Arc<B>,
    random: Mutex<Random>,
}

impl<B> Way<B> {
    fn random(&self, bound: u64) -> u64 {
        self.random.lock().expect("not poisoned").below(bound)
    }

    pub(super) async fn pass<T>(&self, made: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
        let (there, back) = (self.random(6), self.random(6));
        sleep(millis(there)).await;
        let reply = made.await;
        sleep(millis(back)).await;
        if self.random(16) == 0 {
            return Err(BackendError::new(BackendErrorKind::Timeout, "the reply was lost"));
        }
        reply
    }
}

impl<B: Backend> Backend for Way<B> {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.pass(self.store.claim(key, claim)).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.pass(self.store.take_over(key, lapsed, claim)).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.pass(self.store.renew(key, claim)).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        self.pass(self.store.complete(key, claim, completion, ttl)).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.pass(self.store.release(key, claim)).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        self.pass(self.store.read(key)).await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.store.changed(key).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.store.check().await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        self.store.steps().map(|_store| StepStore::of(self))
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        self.store.inspector().map(|_store| Inspector::of(self))
    }
}

impl<B: Backend> Way<B> {
    fn store(&self) -> StepStore<'_> {
        self.store.steps().expect("it is asked only where there is one")
    }
}

impl<B: Backend> StepBackend for Way<B> {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        self.pass(self.store().record_step(key, claim, name, step)).await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        self.pass(self.store().read_steps(key, claim)).await
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.pass(self.store().park(key, claim)).await
    }
}

/// The report on a run of the seed over `store`, on the paused clock.
fn run<B: Backend>(seed: u64, store: B) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let keys = [1, 2]
            .map(|number| RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(&number)).expect("a valid key"));
        let (store, history) = (Arc::new(store), History::new());
        let recorders: Vec<_> = (0..OWNERS)
            .map(|owner| {
                let way = Way {
                    store: store.clone(),
                    random: Mutex::new(Random(seed ^ u64::from(owner) << 32)),
                };
                Recorder::new(way, owner, history.clone())
            })
            .collect();
        let loads = (0..).zip(&recorders).map(|(owner, recorder)| {
            let load = Load::new(recorder, &keys, seed << 8 | owner);
            load.run(CALLS)
        });
        join_all(loads).await;
        history.check()
    })
}

#[test]
fn a_correct_store_is_always_explained() {
    let mut total = Report::default();
    for seed in 0..40 {
        let report = run(seed, MemoryBackend::new());
        assert!(report.unexplained.is_empty(), "seed {seed}: {report}");
        total.add(report);
    }
    println!("{total}");
    assert_eq!(total.unchecked, 0);
    assert!(total.open > 500 && total.calls > 5_000, "too little happened: {total}");
}

#[test]
fn every_broken_store_is_found() {
    for fault in Fault::ALL {
        let found = (0..20).find_map(|seed| run(seed, Broken::new(fault)).unexplained.pop());
        let found = found.unwrap_or_else(|| panic!("{fault:?} was not found"));
        println!("{fault:?}: {found}");
    }
}
