//! The contract every store keeps, and its errors.
//!
//! Owns the trait, its numbered contract, and the object-safe version of the trait that the engine holds. Backends own
//! atomicity and bytes; they decide nothing else.

mod erased;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;

pub(crate) use self::erased::DynBackend;
use crate::inspect::Inspector;
use crate::steps::StepStore;
use crate::{Acquisition, Claim, Completion, Fenced, Record, RecordKey};

/// A store of records that makes each operation below atomic.
///
/// Implementations write plain `async fn`. All requests of a process share one backend value, and usually several
/// processes share one store.
///
/// # Contract
///
/// One record is stored under a key at a time. Each call takes effect completely or not at all, at one point in time,
/// with respect to every other call on that key from any process.
///
/// 1. [`claim`](Backend::claim) on an absent key writes the claim and returns [`Acquisition::Acquired`]. Of any number
///    of concurrent claims, at most one is acquired.
/// 2. `claim` on a present key changes nothing and returns [`Acquisition::Existing`] with what is there.
/// 3. `claim` repeated with the token of the claim in place is `Acquired` again, because the first answer may have been
///    lost. It changes nothing: the lease runs on from the first call.
/// 4. A claim's lease lapses `lease` after it was acquired or last renewed, by the store's clock alone. A lapsed claim
///    stays in place, reported with nothing remaining, for `ttl` more.
/// 5. [`take_over`](Backend::take_over) replaces a claim only if it is still exactly the `lapsed` one and its lease has
///    lapsed; of any number of concurrent calls, at most one is acquired. Where nothing is stored any more it claims
///    as `claim` does; otherwise it changes nothing and returns what is there. Repeated with the token of the claim in
///    place, it is as in clause 3.
/// 6. [`renew`](Backend::renew) starts the lease anew while the claim is in place, lapsed or not.
/// 7. [`complete`](Backend::complete) replaces the claim, lapsed or not, by its completion, which stays for `ttl` from then on.
///    Reads do not prolong it. Repeating it is [`Fenced::Applied`] and does not prolong it either.
/// 8. [`release`](Backend::release) removes the claim, lapsed or not, as if it had never been made. Repeating it is
///    [`Fenced::Superseded`], because the store no longer knows whose claim it was.
/// 9. `renew`, `complete` and `release` by a token that is not the one in place change nothing and return
///    [`Fenced::Superseded`].
/// 10. Completions come back byte for byte, whatever their bytes, and so do all parts of a claim.
/// 11. A record that is stored but cannot be read is [`BackendErrorKind::Unreadable`], never absent (IDEM-15).
/// 12. Keys do not touch each other.
/// 13. [`changed`](Backend::changed) resolves once the subscription is in place. Every later completion or release of the
///     key's claim, from any process, wakes the [`Changed`] that it returned. A `Changed` may wake without a change, and may
///     be late where a message was lost; dropping it leaves nothing behind.
/// 14. [`check`](Backend::check) is `Ok` if the store would accept a claim now, as far as one call can tell, and changes
///     no record.
/// 15. [`read`](Backend::read) returns what is stored under the key, as `claim` would, and changes nothing.
///
/// A store that also keeps durable steps has more clauses: [`StepBackend`](crate::steps::StepBackend). So does a store whose records an
/// operator can settle: [`Inspect`](crate::inspect::Inspect).
///
/// # Dropped calls and deadlines
///
/// Calls may be dropped before they resolve; the effect is then unknown but whole. The caller sets the deadlines: a
/// backend may wait for its store as long as it likes.
///
/// The engine extends the deadline for a payload above [`LARGE_PAYLOAD`](crate::LARGE_PAYLOAD), by the size of the payload:
///
/// - [`complete`](Backend::complete) gets the time without being asked.
/// - A call that reads a large payload gets the time once the backend calls [`allow_time_for`](crate::allow_time_for).
/// - If a transfer waits for its turn, the backend wraps the wait in [`untimed`](crate::untimed), and it does not count.
///
/// While a large outcome is on its way, the engine calls [`renew`](Backend::renew) beside [`complete`](Backend::complete) to
/// learn whether the store answers.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Claims `key` if nothing is stored under it (clauses 1 to 4).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses; whether the claim was written is then unknown.
    fn claim(&self, key: &RecordKey, claim: &Claim) -> impl Future<Output = Result<Acquisition, BackendError>> + Send;

    /// Replaces the claim `lapsed` by `claim` (clause 5).
    ///
    /// # Errors
    ///
    /// As [`Backend::claim`].
    fn take_over(
        &self,
        key: &RecordKey,
        lapsed: &Claim,
        claim: &Claim,
    ) -> impl Future<Output = Result<Acquisition, BackendError>> + Send;

    /// Starts the lease of `claim` anew (clauses 6 and 9).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses; whether the lease was renewed is then unknown.
    fn renew(&self, key: &RecordKey, claim: &Claim) -> impl Future<Output = Result<Fenced, BackendError>> + Send;

    /// Replaces `claim` by its outcome, which is kept for `ttl`, in whole milliseconds (clauses 7, 9 and 10).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses; the call may be repeated with the same arguments.
    fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> impl Future<Output = Result<Fenced, BackendError>> + Send;

    /// Removes `claim` (clauses 8 and 9).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses; the call may be repeated.
    fn release(&self, key: &RecordKey, claim: &Claim) -> impl Future<Output = Result<Fenced, BackendError>> + Send;

    /// Reads the record under `key`, if there is one (clause 15).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses.
    fn read(&self, key: &RecordKey) -> impl Future<Output = Result<Option<Record>, BackendError>> + Send;

    /// Listens for the end of the claim on `key` (clause 13).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses. The caller then polls the record instead.
    fn changed(&self, key: &RecordKey) -> impl Future<Output = Result<Changed, BackendError>> + Send;

    /// Asks the store whether it would accept claims (clause 14).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses.
    fn check(&self) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Whether every operation is answered at once and at no cost, as by a table in this process.
    ///
    /// If `false`, the engine makes one claiming call per key at a time, and requests that arrive during the call share its
    /// answer. If `true`, every request makes its own call, because waiting would cost more than asking the table.
    fn is_in_process(&self) -> bool {
        false
    }

    /// The backend as a value of its type, for what some stores alone can do: [`Engine::backend`](crate::Engine::backend) finds a
    /// store in SQL by it, whose transactions can have a record.
    ///
    /// A backend that wraps another one, and keeps records there as they are, may pass this on.
    fn as_any(&self) -> &dyn Any
    where
        Self: Sized,
    {
        self
    }

    /// The steps of this store, if it keeps any. A handler with durable steps is refused where it does not.
    ///
    /// A backend that wraps another one has to pass this on.
    fn steps(&self) -> Option<StepStore<'_>> {
        None
    }

    /// The operator's view of this store, if it has one.
    ///
    /// A backend that wraps another one has to pass this on.
    fn inspector(&self) -> Option<Inspector<'_>> {
        None
    }
}

/// Resolves when a record may have changed. It does not say how: look the record up again.
pub struct Changed(BoxFuture<'static, ()>);

impl Changed {
    /// Wakes when `changed` resolves. The future owns the subscription, which must end when the future is dropped.
    pub fn new(changed: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(changed))
    }
}

impl Future for Changed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").finish_non_exhaustive()
    }
}

/// A failed backend call.
///
/// Its `Display` says what was tried, and never shows credentials or stored data. The cause is its
/// [`source`](Error::source).
#[derive(Clone, Debug)]
pub struct BackendError {
    kind: BackendErrorKind,
    context: Cow<'static, str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
    is_not_written: bool,
    is_of_known_record: bool,
}

/// The class of a [`BackendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// The store cannot be reached, the connection was lost, or the store lacks something that may come back: memory, a
    /// replica, a password or a permission that is being changed. Trying again later may help.
    Unavailable,
    /// No answer came within the deadline; the call may still take effect. Trying again later may help.
    Timeout,
    /// The store refused the call. Trying again does not help until an operator has acted; the source says why it refused.
    Refused,
    /// The value under the key is not a record that this version can read. Trying again does not help.
    Unreadable,
    /// The backend's configuration is invalid, such as a malformed URL. Trying again does not help.
    Config,
}

impl BackendError {
    /// An error of `kind`; `context` says what was tried, in a few words.
    pub fn new(kind: BackendErrorKind, context: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
            is_not_written: false,
            is_of_known_record: false,
        }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Says that the call has certainly changed nothing: it was not sent, or the store has refused it.
    ///
    /// The engine then neither repeats the call at once nor releases a claim that the call may have written. Do not set it
    /// if the call may have reached the store.
    #[must_use]
    pub fn not_written(mut self) -> Self {
        self.is_not_written = true;
        self
    }

    /// Whether the call has certainly changed nothing.
    #[must_use]
    pub fn is_not_written(&self) -> bool {
        self.is_not_written
    }

    /// The same error for a request whose record was read before: it has steps.
    pub(crate) fn of_known_record(mut self) -> Self {
        self.is_of_known_record = true;
        self
    }

    /// Whether nothing is known of the request's record. If it cannot be read, or has steps, an earlier attempt has begun, and the
    /// handler must not run without it, whatever `on_outage` says.
    #[must_use]
    pub fn leaves_record_unknown(&self) -> bool {
        self.kind != BackendErrorKind::Unreadable && !self.is_of_known_record
    }

    /// The same error for a call that was repeated: its first try may have reached the store.
    pub(crate) fn after_another(mut self) -> Self {
        self.is_not_written = false;
        self
    }

    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> BackendErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, BackendErrorKind::Unavailable | BackendErrorKind::Timeout)
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            BackendErrorKind::Unavailable => "the backend is unavailable",
            BackendErrorKind::Timeout => "the backend did not answer in time",
            BackendErrorKind::Refused => "the backend refused",
            BackendErrorKind::Unreadable => "the stored record cannot be read",
            BackendErrorKind::Config => "the backend is misconfigured",
        };
        write!(f, "{kind}: {}", self.context)
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
