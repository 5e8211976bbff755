//! The calls about steps and the calls of operators that pass through a [`Recorder`].

use bytes::Bytes;

use super::recorder::{shortened, shortened_step};
use super::{Call, Log, Recorder, Reply};
use crate::inspect::{
    Cursor, Finding, Inspect, Inspector, LiveClaim, Page, RecordDetails, RecordVersion, Selection, Settled, Settlement,
    StepChange,
};
use crate::steps::{RecordedSteps, StepBackend, StepStore};
use crate::{Backend, BackendError, BackendErrorKind, Claim, Fenced, RecordKey};

impl<B: Backend, L: Log> Recorder<B, L> {
    fn inner_steps(&self) -> Result<StepStore<'_>, BackendError> {
        let lacking = || BackendError::new(BackendErrorKind::Config, "the backend keeps no steps").not_written();
        self.inner.steps().ok_or_else(lacking)
    }
}

impl<B: Backend, L: Log> StepBackend for Recorder<B, L> {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        let made = self.inner_steps()?.record_step(key, claim, name, step);
        let call = Call::RecordStep {
            claim: claim.clone(),
            name: name.to_owned(),
            step: shortened_step(step),
        };
        self.record(key, call, made, |fenced| Reply::Fenced(*fenced)).await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        let made = self.inner_steps()?.read_steps(key, claim);
        self.record(key, Call::ReadSteps(claim.clone()), made, |steps| {
            let shortened = |(name, step): &(String, Bytes)| (name.clone(), shortened_step(step));
            Reply::Steps(steps.as_ref().map(|steps| steps.iter().map(shortened).collect()))
        })
        .await
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let made = self.inner_steps()?.park(key, claim);
        self.record(key, Call::Park(claim.clone()), made, |fenced| Reply::Fenced(*fenced))
            .await
    }
}

/// The settlement, with the digests of what it writes.
fn shortened_settlement(settlement: &Settlement) -> Settlement {
    match settlement {
        Settlement::Rerun {
            token,
            began_at,
            step: Some(StepChange::Done { name, step }),
        } => Settlement::Rerun {
            token: *token,
            began_at: *began_at,
            step: Some(StepChange::Done {
                name: name.clone(),
                step: shortened_step(step),
            }),
        },
        Settlement::Complete { token, completion, ttl } => Settlement::Complete {
            token: *token,
            completion: super::recorder::digest(completion),
            ttl: *ttl,
        },
        other => other.clone(),
    }
}

impl<B: Backend, L: Log> Recorder<B, L> {
    fn inner_inspector(&self) -> Result<Inspector<'_>, BackendError> {
        let lacking = || BackendError::new(BackendErrorKind::Config, "the backend cannot be inspected").not_written();
        self.inner.inspector().ok_or_else(lacking)
    }
}

/// A scan is about no one key and is not recorded. What an operator sees of one record counts as a read.
impl<B: Backend, L: Log> Inspect for Recorder<B, L> {
    async fn scan(&self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        self.inner_inspector()?.scan(selection, after, limit).await
    }

    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        let made = self.inner_inspector()?.inspect(key);
        self.record(key, Call::Read, made, |found| {
            Reply::Found(found.as_ref().map(|details| shortened(&details.record)))
        })
        .await
    }

    async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        let made = self.inner_inspector()?.settle(key, version, settlement, live);
        let call = Call::Settle {
            version,
            settlement: shortened_settlement(settlement),
            live,
        };
        self.record(key, call, made, |settled| Reply::Settled(*settled)).await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        self.inner_inspector()?.diagnose().await
    }
}
