//! The calls of an operator.
//!
//! Owns the deadline of each call, the log line of each change, and the search for the next records of a list. Does not own who may be
//! an operator: an application guards its own routes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    Cursor, Finding, Inspector, Listed, LiveClaim, Page, Phase, RecordDetails, RecordVersion, Selection, Settled,
    Settlement, StepChange,
};
use crate::backend::DynBackend;
use crate::{Backend, BackendError, BackendErrorKind, ClaimPolicy, Completion, RecordKey, Token};

/// How many records a page of a long scan has, about.
pub const PAGE: usize = 500;

/// An operator's access to the records of a store.
///
/// Each change names the [`RecordVersion`] that the operator has seen, so that a record that has changed since is left alone. Each
/// change is logged with the operator's name and the reason.
///
/// ```
/// use std::time::Duration;
///
/// use idem_core::inspect::{LiveClaim, Operator, Selection, Settled, Settlement};
/// use idem_core::{Backend, Claim, ClaimPolicy, Completion, Fingerprint, IdempotencyKey, MemoryBackend, RecordKey, Scope};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = MemoryBackend::new();
/// let key = RecordKey::new("ship", &Scope::of("acme"), &IdempotencyKey::of("o-1"))?;
/// let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_secs(60)));
/// backend.claim(&key, &claim).await?;
/// backend.complete(&key, &claim, &Completion::Unknown, claim.ttl).await?;
///
/// let operator = Operator::new(backend, "ada").ok_or("a backend without an operator's view")?;
/// let found = operator.show(&key).await?.ok_or("nothing is there")?;
/// let settled = operator
///     .settle(&key, found.version(), &Settlement::Forget, LiveClaim::Refuse, "not shipped, ticket 4711")
///     .await?;
/// assert_eq!(settled, Settled::Applied);
/// assert!(operator.show(&key).await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Operator {
    backend: Arc<dyn DynBackend>,
    name: Arc<str>,
    deadline: Duration,
    hashes_keys: bool,
}

impl Operator {
    /// How long a call may take by default.
    pub const DEADLINE: Duration = Duration::from_secs(10);

    /// The operator `name` of the records in `backend`; `None` if the backend has no [`Inspect`](super::Inspect).
    #[must_use]
    pub fn new(backend: impl Backend, name: impl Into<String>) -> Option<Self> {
        Self::of(Arc::new(backend), name.into())
    }

    pub(crate) fn of(backend: Arc<dyn DynBackend>, name: String) -> Option<Self> {
        backend.inspector()?;
        Some(Self {
            backend,
            name: name.into(),
            deadline: Self::DEADLINE,
            hashes_keys: false,
        })
    }

    /// Sets how long a call may take.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Logs hashes of scopes and idempotency keys, as [`RecordKey::hashed`] does.
    #[must_use]
    pub fn with_hashed_keys(mut self) -> Self {
        self.hashes_keys = true;
        self
    }

    /// The next page of a scan. It may have no records although the scan is not over. [`Inspect::scan`](super::Inspect::scan) has the
    /// guarantees.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses, or the cursor is not one of this store.
    pub async fn scan(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        self.ask("listing records", |inspector| inspector.scan(selection, after, limit))
            .await
    }

    /// Looks at records until `most` of them satisfy `wanted`, or the scan is over. A page may have more than `most` records, because
    /// a list goes on after a whole page of the store. It calls `progress` with each page that it has looked at.
    ///
    /// # Errors
    ///
    /// As [`scan`](Self::scan).
    pub async fn list(
        &self,
        selection: &Selection,
        after: Option<Cursor>,
        most: usize,
        wanted: impl Fn(&Listed) -> bool,
        mut progress: impl FnMut(&Page),
    ) -> Result<Page, BackendError> {
        let mut list = Page::default();
        let mut next = after;
        // Small pages for a short list, and larger ones while what is wanted is rare.
        let mut size = most.clamp(1, PAGE);
        loop {
            let page = self.scan(selection, next.as_ref(), size).await?;
            size = (size * 2).min(PAGE);
            progress(&page);
            list.looked_at += page.looked_at;
            list.commands += page.commands;
            list.percent = page.percent;
            list.records.extend(page.records.into_iter().filter(&wanted));
            next = page.next;
            if next.is_none() || list.records.len() >= most {
                list.next = next;
                return Ok(list);
            }
        }
    }

    /// Everything that is stored about the record under `key`, if there is one.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses, or the record cannot be read.
    pub async fn show(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        self.ask("showing a record", |inspector| inspector.inspect(key)).await
    }

    /// Settles the record under `key` if it is still at `version`, and logs it. `reason` says why, for the log.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the record may be settled or not. The log says so.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses. Whether the record was changed is then unknown: look at it again.
    pub async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
        reason: &str,
    ) -> Result<Settled, BackendError> {
        if let Settlement::Complete { ttl, .. } = settlement
            && !(ClaimPolicy::MIN..=ClaimPolicy::MAX_TTL).contains(ttl)
        {
            let context = "an outcome is kept for 100 milliseconds at least, and for ten years at most";
            return Err(BackendError::new(BackendErrorKind::Config, context).not_written());
        }
        let shown = if self.hashes_keys {
            key.clone().hashed()
        } else {
            key.clone()
        };
        let log_line = LogLine {
            key: &shown,
            version,
            operator: &self.name,
            change: settlement.name(),
            reason,
            forced: live == LiveClaim::Force,
            is_due: true,
        };
        let settling = self.ask("settling a record", |inspector| {
            inspector.settle(key, version, settlement, live)
        });
        let settled = settling.await;
        log_line.end(&settled);
        settled
    }

    /// Checks how the store is set up.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached at all.
    pub async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        self.ask("checking the store", Inspector::diagnose).await
    }

    async fn ask<'a, T, F>(
        &'a self,
        what: &'static str,
        call: impl FnOnce(Inspector<'a>) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let Some(inspector) = self.backend.inspector() else {
            return Err(BackendError::new(
                BackendErrorKind::Config,
                "this backend cannot be inspected",
            ));
        };
        match timeout(self.deadline, call(inspector)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(BackendError::new(BackendErrorKind::Timeout, what)),
        }
    }
}

/// The line in the log about a settlement. It is written also if the caller is gone before the answer.
struct LogLine<'a> {
    key: &'a RecordKey,
    version: RecordVersion,
    operator: &'a str,
    change: &'static str,
    reason: &'a str,
    forced: bool,
    is_due: bool,
}

impl LogLine<'_> {
    fn end(mut self, settled: &Result<Settled, BackendError>) {
        self.is_due = false;
        let Self {
            version,
            operator,
            change,
            reason,
            forced,
            ..
        } = self;
        match settled {
            Ok(Settled::Applied) => tracing::warn!(
                key = %self.key.shown(), %version, operator, change, reason, forced,
                "an operator has settled a record"
            ),
            Ok(_) => {}
            Err(error) if error.is_not_written() => {}
            Err(error) => self.is_unknown(&error.to_string()),
        }
    }

    fn is_unknown(&self, error: &str) {
        let Self {
            version,
            operator,
            change,
            reason,
            forced,
            ..
        } = self;
        tracing::warn!(
            key = %self.key.shown(), %version, operator, change, reason, forced, error,
            "an operator's call has failed, and may have settled the record; look at it again"
        );
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        if self.is_due {
            self.is_unknown("the caller did not wait for the answer");
        }
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("backend", &self.backend)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Settlement {
    /// Lets the next request with the key run, with the steps that are recorded, and with `step` changed.
    #[must_use]
    pub fn rerun(step: Option<StepChange>) -> Self {
        Self::Rerun {
            token: Token::random(),
            began_at: crate::claim::whole_millis(crate::claim::wall_clock()),
            step,
        }
    }

    /// Gives every later request with the key this outcome for `ttl`.
    #[must_use]
    pub fn complete(completion: Completion, ttl: Duration) -> Self {
        Self::Complete {
            token: Token::random(),
            completion,
            ttl,
        }
    }

    /// The token and the phase of the record that the settlement leaves, if it leaves one. Where it is in place, the settlement was
    /// applied before. Its steps are not known here.
    #[must_use]
    pub fn leaves(&self) -> Option<RecordVersion> {
        let (token, phase) = match self {
            Self::Forget => return None,
            Self::Rerun { token, .. } => (*token, Phase::Parked),
            Self::Complete { token, .. } => (*token, Phase::Completed),
        };
        Some(RecordVersion::new(token, phase))
    }

    /// The name of the change, as logs have it: `forget`, `rerun` or `complete`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forget => "forget",
            Self::Rerun { .. } => "rerun",
            Self::Complete { .. } => "complete",
        }
    }
}

impl RecordDetails {
    /// The change that records the step `name` as done with `result`, in JSON. The input that was recorded for the step stays, so that
    /// the handler is still held to it.
    #[must_use]
    pub fn step_done(&self, name: &str, result: &Bytes) -> StepChange {
        let recorded = self.steps.iter().find(|(known, _)| known == name);
        let recorded = recorded.map(|(_, step)| step);
        StepChange::Done {
            name: name.to_owned(),
            step: crate::steps::done_by_operator(recorded, self.summary.attempt, result),
        }
    }
}
