//! What a store offers to operators: to list records, to show one, and to settle one from outside.
//!
//! Owns the trait [`Inspect`] with its numbered contract, the object-safe version of the trait, and [`Operator`], which logs each
//! change. The numbers of the clauses go on from those of [`StepBackend`](crate::steps::StepBackend). Does not own the meaning of a
//! payload: the integration that encoded the answer reads it.
//!
//! | module | owns |
//! |---|---|
//! | `view` | a record as an operator sees it |
//! | `version` | what a change is fenced by |
//! | `selection` | which records are listed, and where a list goes on |
//! | `steps_digest` | which steps a record had |
//! | `settlement` | the changes that an operator may make, and their results |
//! | `operator` | the calls of an operator: fenced, and logged with who and why |
//! | `tally` | the numbers of a whole store |

mod operator;
mod selection;
mod settlement;
mod steps_digest;
mod tally;
mod version;
mod view;

use std::fmt;
use std::future::Future;

use futures_util::future::BoxFuture;

pub use self::operator::{Operator, PAGE};
pub use self::selection::{Cursor, Page, Selection};
pub use self::settlement::{Finding, Health, LiveClaim, Settled, Settlement, StepChange, only_forgotten};
pub use self::steps_digest::{STEP_HEAD_LEN, StepsDigest, signature};
pub use self::tally::{OperationTally, Tally};
pub use self::version::{Phase, RecordVersion, VersionError};
pub use self::view::{HEAD_LEN, Listed, RecordDetails, RecordState, RecordSummary, StepState, StepView, Unreadable};
use crate::{BackendError, RecordKey};

/// A store whose records an operator can see and settle.
///
/// Implement it together with [`Backend`](crate::Backend), and return the implementation from
/// [`Backend::inspector`](crate::Backend::inspector).
///
/// # Contract
///
/// 23. [`scan`](Inspect::scan) called again and again, with the cursor of the page before, returns every record that matches the
///     selection and is there during the whole scan. A record that is made or ends during the scan may be returned or left out, and a
///     record may be returned twice. A call asks a server for a bounded number of records. It may return fewer than asked, or none,
///     before the scan is over, and more than asked, because some stores go on after a whole page only. A record that cannot be read is
///     returned as [`Listed::Unreadable`]. A record with steps may be listed without its version, but never with a wrong one. Nothing
///     is changed.
/// 24. [`inspect`](Inspect::inspect) returns what [`read`](crate::Backend::read) returns, the rest of the record, and all of its
///     steps, and changes nothing.
/// 25. [`settle`](Inspect::settle) changes a record only if it is still at the [`RecordVersion`]: its token, its [`Phase`] and its
///     steps. Otherwise the result is [`Settled::Changed`]. If the lease of the claim has not lapsed, the result is [`Settled::Live`],
///     unless [`LiveClaim::Force`] is given. With either result, nothing is changed. The version of a record that cannot be read is a
///     digest of its bytes with [`Phase::Unreadable`]. Such a record may be live: it is removed by [`Settlement::Forget`] with
///     [`LiveClaim::Force`], and every other settlement of it is an error.
/// 26. [`Settlement::Forget`] removes the record and its steps. [`Settlement::Rerun`] lets the next request run: a claim with steps,
///     or a parked record, is parked under the new token for its `ttl` from then on, and attempt 1 counts as begun at the time that
///     the settlement names. Its steps are kept, except for the one that the settlement changes. A record that then has no steps is
///     removed.
/// 27. [`Settlement::Complete`] replaces the record, whatever its phase, by a completion under a new token, which stays for its `ttl`
///     from then on. Fingerprint, attempt, owner and beginning stay; the steps are removed. A rerun or a completion that is repeated
///     with the token in place is [`Settled::Applied`], and changes nothing.
/// 28. From then on the owner of the claim that was there is superseded: `renew`, `complete`, `release`, `record_step` and `park` by
///     its token are [`Fenced::Superseded`](crate::Fenced::Superseded), also if they were sent before and arrive late.
/// 29. A settlement that is applied wakes waiters as a release does (clause 13).
/// 30. [`diagnose`](Inspect::diagnose) reports how the store is set up, and changes no record.
pub trait Inspect: fmt::Debug + Send + Sync + 'static {
    /// The next records of a scan that match `selection` (clause 23). `limit` is at least 1.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses, or the cursor is not one of this store.
    fn scan(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, BackendError>> + Send;

    /// Everything that is stored about the record under `key`, if there is one (clause 24).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses, or the record cannot be read.
    fn inspect(&self, key: &RecordKey) -> impl Future<Output = Result<Option<RecordDetails>, BackendError>> + Send;

    /// Settles the record under `key` if it is still at `version` (clauses 25 to 29).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses; whether the record was changed is then unknown.
    fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> impl Future<Output = Result<Settled, BackendError>> + Send;

    /// Checks how the store is set up (clause 30).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached at all. If one check fails, its finding says so.
    fn diagnose(&self) -> impl Future<Output = Result<Vec<Finding>, BackendError>> + Send;
}

/// The operator's view of a backend, as [`Backend::inspector`](crate::Backend::inspector) returns it.
#[derive(Clone, Copy, Debug)]
pub struct Inspector<'a>(&'a dyn DynInspect);

impl<'a> Inspector<'a> {
    /// The operator's view of `backend`.
    pub fn of(backend: &'a impl Inspect) -> Self {
        Self(backend)
    }

    /// [`Inspect::scan`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn scan(self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        self.0.scan(selection, after, limit.max(1)).await
    }

    /// [`Inspect::inspect`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn inspect(self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        self.0.inspect(key).await
    }

    /// [`Inspect::settle`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn settle(
        self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        self.0.settle(key, version, settlement, live).await
    }

    /// [`Inspect::diagnose`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn diagnose(self) -> Result<Vec<Finding>, BackendError> {
        self.0.diagnose().await
    }
}

trait DynInspect: fmt::Debug + Send + Sync {
    fn scan<'a>(
        &'a self,
        selection: &'a Selection,
        after: Option<&'a Cursor>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, BackendError>>;

    fn inspect<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<RecordDetails>, BackendError>>;

    fn settle<'a>(
        &'a self,
        key: &'a RecordKey,
        version: RecordVersion,
        settlement: &'a Settlement,
        live: LiveClaim,
    ) -> BoxFuture<'a, Result<Settled, BackendError>>;

    fn diagnose(&self) -> BoxFuture<'_, Result<Vec<Finding>, BackendError>>;
}

impl<B: Inspect> DynInspect for B {
    fn scan<'a>(
        &'a self,
        selection: &'a Selection,
        after: Option<&'a Cursor>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, BackendError>> {
        Box::pin(Inspect::scan(self, selection, after, limit))
    }

    fn inspect<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<RecordDetails>, BackendError>> {
        Box::pin(Inspect::inspect(self, key))
    }

    fn settle<'a>(
        &'a self,
        key: &'a RecordKey,
        version: RecordVersion,
        settlement: &'a Settlement,
        live: LiveClaim,
    ) -> BoxFuture<'a, Result<Settled, BackendError>> {
        Box::pin(Inspect::settle(self, key, version, settlement, live))
    }

    fn diagnose(&self) -> BoxFuture<'_, Result<Vec<Finding>, BackendError>> {
        Box::pin(Inspect::diagnose(self))
    }
}
