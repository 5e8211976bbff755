//! The object-safe version of the trait.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Backend, BackendError, Changed};
use crate::inspect::Inspector;
use crate::steps::StepStore;
use crate::{Acquisition, Claim, Completion, Fenced, Record, RecordKey};

/// The object-safe version of [`Backend`], so that the engine can hold an `Arc<dyn …>`.
pub(crate) trait DynBackend: fmt::Debug + Send + Sync + 'static {
    fn claim<'a>(&'a self, key: &'a RecordKey, claim: &'a Claim) -> BoxFuture<'a, Result<Acquisition, BackendError>>;

    fn take_over<'a>(
        &'a self,
        key: &'a RecordKey,
        lapsed: &'a Claim,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Acquisition, BackendError>>;

    fn renew<'a>(&'a self, key: &'a RecordKey, claim: &'a Claim) -> BoxFuture<'a, Result<Fenced, BackendError>>;

    fn complete<'a>(
        &'a self,
        key: &'a RecordKey,
        claim: &'a Claim,
        completion: &'a Completion,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Fenced, BackendError>>;

    fn release<'a>(&'a self, key: &'a RecordKey, claim: &'a Claim) -> BoxFuture<'a, Result<Fenced, BackendError>>;

    fn read<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, BackendError>>;

    fn changed<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Changed, BackendError>>;

    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>>;

    fn is_in_process(&self) -> bool;

    fn as_any(&self) -> &dyn Any;

    fn steps(&self) -> Option<StepStore<'_>>;

    fn inspector(&self) -> Option<Inspector<'_>>;
}

impl<B: Backend> DynBackend for B {
    fn claim<'a>(&'a self, key: &'a RecordKey, claim: &'a Claim) -> BoxFuture<'a, Result<Acquisition, BackendError>> {
        Box::pin(Backend::claim(self, key, claim))
    }

    fn take_over<'a>(
        &'a self,
        key: &'a RecordKey,
        lapsed: &'a Claim,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Acquisition, BackendError>> {
        Box::pin(Backend::take_over(self, key, lapsed, claim))
    }

    fn renew<'a>(&'a self, key: &'a RecordKey, claim: &'a Claim) -> BoxFuture<'a, Result<Fenced, BackendError>> {
        Box::pin(Backend::renew(self, key, claim))
    }

    fn complete<'a>(
        &'a self,
        key: &'a RecordKey,
        claim: &'a Claim,
        completion: &'a Completion,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Fenced, BackendError>> {
        Box::pin(Backend::complete(self, key, claim, completion, ttl))
    }

    fn release<'a>(&'a self, key: &'a RecordKey, claim: &'a Claim) -> BoxFuture<'a, Result<Fenced, BackendError>> {
        Box::pin(Backend::release(self, key, claim))
    }

    fn read<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, BackendError>> {
        Box::pin(Backend::read(self, key))
    }

    fn changed<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Changed, BackendError>> {
        Box::pin(Backend::changed(self, key))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(Backend::check(self))
    }

    fn is_in_process(&self) -> bool {
        Backend::is_in_process(self)
    }

    fn as_any(&self) -> &dyn Any {
        Backend::as_any(self)
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        Backend::steps(self)
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        Backend::inspector(self)
    }
}
