//! The record in a transaction of the handler's own, whatever client of the database it uses.
//!
//! Owns the extractor, the statement that the handler executes, and the end of a request whose handler did:
//!
//! 1. [`Joint::record`] prepares an answer for the record and makes one SQL text of it, fenced by the claim's token.
//! 2. The handler executes the text in its transaction, asks [`JointRecord::written`] about the number of changed rows, commits,
//!    and returns the answer.
//! 3. [`Slot::join`] finds the mark that `written` left in the answer, and asks the backend whether the claim is completed. So a
//!    success is not sent if the transaction was never committed.
//!
//! Does not own the transaction: the application begins and ends it.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;

use axum::body::{Body, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use idem_core::{Claim, Commit, CommitOutcome, Completion, HandlerResult, RecordKey, RecordOutcome};
use idem_http::IdempotencyProblem;
use idem_http::answer::{self, AnswerRules};

use super::database::SqlBackend;
use super::slot::Slot;
use crate::run::with_axum_body;

/// An extractor for handlers under `#[idempotent]` that write to the database of the records over a client of their own: sqlx of
/// another version, tokio-postgres, diesel, `SeaORM`, rusqlite. It gives the record as one SQL statement, which the handler executes
/// in its own transaction.
///
/// [`Transaction`](super::Transaction) is shorter where it fits: it begins and ends the transaction, over the sqlx that idem uses.
///
/// ```no_run
/// use axum::extract::State;
/// use axum::http::StatusCode;
/// use axum::response::{IntoResponse as _, Response};
/// use idem_axum::{Joint, idempotent, sqlx};
///
/// # async fn insert(_: &mut sqlx::PgConnection, _: String) -> Result<(), StatusCode> { Ok(()) }
/// # fn failed(_: sqlx::Error) -> Response { StatusCode::INTERNAL_SERVER_ERROR.into_response() }
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn charge(State(pool): State<sqlx::PgPool>, joint: Joint, account: String) -> Result<Response, Response> {
///     let mut transaction = pool.begin().await.map_err(failed)?;
///     insert(&mut transaction, account).await.map_err(|error| error.into_response())?;
///
///     let record = joint.record((StatusCode::CREATED, "charged")).await.map_err(|error| error.into_response())?;
///     let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(record.sql()));
///     let changed = statement.execute(&mut *transaction).await.map_err(failed)?.rows_affected();
///     let answer = record.written(changed).map_err(|error| error.into_response())?;
///
///     transaction.commit().await.map_err(failed)?;
///     Ok(answer)
/// }
/// ```
///
/// The handler returns early wherever something fails, which drops its transaction and so rolls it back. `error.into_response()`
/// is the right answer for each [`JointError`].
///
/// | the handler | the rows | the key |
/// |---|---|---|
/// | commits, and returns the answer of [`JointRecord::written`] | committed, together with the record | completed |
/// | dies before the commit | rolled back | its claim lapses: a retry runs again |
/// | dies after the commit | committed | completed: a retry gets the answer |
/// | returns that answer, and has not committed | rolled back | released: the client gets 500 `rolled-back` |
/// | returns another answer | as the handler left them | completed or released, as without a `Joint` |
/// | was superseded by another attempt | rolled back, because `written` is an error | the other attempt's |
///
/// # What the handler has to do
///
/// - Execute the statement last, just before the commit. In Postgres it locks the record until the transaction ends, and retries
///   wait for that. In SQLite a transaction holds up all writers, so begin it after the slow work.
/// - Execute it in the transaction of the rows. Over a pool it would be a transaction of its own.
/// - Execute it as it is. It contains its values as literals, made of digits only, and has no parameters. A client that remembers
///   prepared statements by their text should not remember this one: `sqlx::raw_sql`, or `.persistent(false)`.
/// - Return the answer as `written` gives it.
///
/// In SQLite, the client must share the copy of SQLite with idem: use a version of rusqlite for the same `libsqlite3-sys`, and
/// Cargo links one copy.
///
/// Where the request runs unprotected, without a key that is not required or in an outage, the statement changes nothing, and
/// `written` takes any number.
#[derive(Debug)]
pub struct Joint {
    slot: Slot,
}

/// A claim that a handler may complete in a transaction of its own.
pub(super) struct JointClaim {
    pub(super) record: RecordKey,
    pub(super) claim: Claim,
    pub(super) rules: AnswerRules,
}

/// What the handler's answer says of its record.
#[derive(Clone)]
enum Mark {
    /// It was written in the handler's transaction, with this outcome.
    Written(Completion),
    /// The claim was superseded, and the transaction rolled back.
    Superseded,
}

/// The record of an answer, as a statement for the handler's own transaction.
#[derive(Debug)]
#[must_use = "the record is written once its statement is executed and committed"]
pub struct JointRecord {
    sql: String,
    answer: Response,
    /// The outcome in the statement; none where the request runs unprotected.
    completion: Option<Completion>,
    slot: Slot,
}

impl Joint {
    /// Prepares `answer` for the record. Reads its body, of which the record has all or nothing.
    ///
    /// # Errors
    ///
    /// - [`JointErrorKind::NotKept`] if the answer is one that is not kept, such as a 500: the transaction must not be committed.
    /// - [`JointErrorKind::Answer`] if its body fails, or is found to be larger than `max_response` while it is read.
    /// - [`JointErrorKind::NotConfigured`] in a handler without `#[idempotent]`.
    pub async fn record(&self, answer: impl IntoResponse) -> Result<JointRecord, JointError> {
        let slot = self.slot.clone();
        let Some(backend) = slot.backend() else {
            tracing::error!("nothing would record the answer of a Joint: its handler needs #[idempotent]");
            return Err(slot.error(JointErrorKind::NotConfigured, IdempotencyProblem::NotConfigured));
        };
        let Some(claimed) = slot.joint_claim() else {
            return Ok(JointRecord {
                sql: backend.nothing_sql(),
                answer: answer.into_response(),
                completion: None,
                slot,
            });
        };
        let JointClaim { record, claim, rules } = claimed;
        let Some(answer) = read_whole(answer.into_response(), rules.max_response).await else {
            tracing::error!(
                key = %record.shown(),
                "the answer for a Joint cannot be read, or is too large to be recorded; roll back, and make it smaller"
            );
            return Err(slot.error(JointErrorKind::Answer, IdempotencyProblem::NotConfigured));
        };
        let (answer, outcome) = outcome_of(answer, rules);
        match outcome {
            RecordOutcome::Complete { completion, keep_for } if completion != Completion::Unknown => {
                let outcome = (&completion, keep_for.unwrap_or(claim.ttl));
                let sql = backend.completion_sql((record, claim), outcome).map_err(|error| {
                    let error: &dyn Error = &error;
                    tracing::error!(key = %record.shown(), error, "the answer of a Joint cannot be recorded");
                    slot.error(JointErrorKind::NotConfigured, IdempotencyProblem::NotConfigured)
                })?;
                Ok(JointRecord {
                    sql,
                    answer,
                    completion: Some(completion),
                    slot: self.slot.clone(),
                })
            }
            RecordOutcome::Complete { .. } | RecordOutcome::Release => {
                Err(JointError::new(JointErrorKind::NotKept, answer))
            }
        }
    }
}

/// Reads the body of `answer`. `None` if it fails, or turns out to be larger than `max`. A body that announces that it is larger is
/// not read: the record then says that there is no answer.
async fn read_whole(answer: Response, max: usize) -> Option<Response> {
    let (head, body) = answer.into_parts();
    if body.size_hint().exact().is_some_and(|len| len > max as u64) {
        return Some(Response::from_parts(head, body));
    }
    let bytes = to_bytes(body, max).await.ok()?;
    Some(Response::from_parts(head, Body::from(bytes)))
}

/// The outcome that the engine will find for `answer`, and the answer with all that it was made of.
fn outcome_of(answer: Response, rules: &AnswerRules) -> (Response, RecordOutcome) {
    let (head, body) = answer.into_parts();
    let (finished, outcome) = match answer::finish(Response::from_parts(head.clone(), body), rules) {
        HandlerResult::Whole { answer, outcome } => (answer, outcome),
        // Does not happen, because the body is there at once.
        HandlerResult::Streaming { answer, .. } | HandlerResult::Joint { answer, .. } => {
            (answer, RecordOutcome::Release)
        }
    };
    let body = with_axum_body(finished).into_body();
    (Response::from_parts(head, body), outcome)
}

impl JointRecord {
    /// The statement, as text that contains its values. It changes one row.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Gives the answer to return after the commit, by the number of rows that the statement has changed.
    ///
    /// # Errors
    ///
    /// [`JointErrorKind::Superseded`] if that was none: another attempt has taken the claim over. Roll back.
    pub fn written(self, changed: impl TryInto<u64>) -> Result<Response, JointError> {
        let Self {
            mut answer,
            completion,
            slot,
            ..
        } = self;
        let Some(completion) = completion else {
            return Ok(answer);
        };
        // A negative number, as some clients have for "not known", is not a row.
        if changed.try_into().unwrap_or(0) == 0 {
            let mut error = slot.error(JointErrorKind::Superseded, IdempotencyProblem::InFlight);
            error.answer.extensions_mut().insert(Mark::Superseded);
            return Err(error);
        }
        answer.extensions_mut().insert(Mark::Written(completion));
        Ok(answer)
    }
}

/// Why the record of an answer was not written. As a response, it is the right answer to the request.
#[derive(Debug)]
pub struct JointError {
    kind: JointErrorKind,
    answer: Box<Response>,
}

/// The class of a [`JointError`]. After each of them, roll back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JointErrorKind {
    /// The answer is one that is not kept, by its status or its verdict. As a response, the error is that answer.
    NotKept,
    /// Another attempt has taken the claim over. As a response, the error is 409 `in-flight`: a retry gets the other attempt's
    /// answer.
    Superseded,
    /// The body of the answer could not be read, or is larger than `max_response`. As a response, the error is 500
    /// `not-configured`.
    Answer,
    /// The handler lacks `#[idempotent]`, or the clocks of this machine cannot be read. As a response, the error is 500
    /// `not-configured`.
    NotConfigured,
}

impl JointError {
    fn new(kind: JointErrorKind, answer: Response) -> Self {
        let answer = Box::new(answer);
        Self { kind, answer }
    }

    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> JointErrorKind {
        self.kind
    }
}

impl IntoResponse for JointError {
    fn into_response(self) -> Response {
        *self.answer
    }
}

impl fmt::Display for JointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            JointErrorKind::NotKept => "the answer is not kept, so it has no record",
            JointErrorKind::Superseded => "another attempt has taken the claim over",
            JointErrorKind::Answer => "the answer could not be read, or is too large to be recorded",
            JointErrorKind::NotConfigured => "nothing would record the answer",
        })
    }
}

impl Error for JointError {}

impl<S: Sync> FromRequestParts<S> for Joint {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let slot = Slot::of(&mut parts.extensions);
        slot.note_joint();
        Ok(Self { slot })
    }
}

impl Slot {
    fn error(&self, kind: JointErrorKind, problem: IdempotencyProblem) -> JointError {
        JointError::new(kind, self.settings().problem(problem).map(Body::new))
    }

    /// Ends a request whose handler has written its record by itself. Other results stay as they are.
    pub(super) fn end_joint<A: Send + 'static>(
        &self,
        mark: Option<JointMark>,
        result: HandlerResult<A>,
    ) -> HandlerResult<A> {
        let (Some(JointMark(mark)), Some(backend), Some(claimed)) = (mark, self.backend(), self.joint_claim()) else {
            return result;
        };
        match result {
            HandlerResult::Whole { answer, outcome } => {
                let commit = match mark {
                    Mark::Written(written) => {
                        warn_of_another(&claimed.record, &written, &outcome);
                        look_for_commit(backend.clone(), claimed.record.clone(), claimed.claim.clone())
                    }
                    Mark::Superseded => Commit::new(0, |_sent| async { CommitOutcome::Superseded }),
                };
                HandlerResult::Joint { answer, commit }
            }
            other @ (HandlerResult::Streaming { .. } | HandlerResult::Joint { .. }) => other,
        }
    }
}

/// What an answer says of its record, taken off the answer.
pub(super) struct JointMark(Mark);

impl JointMark {
    pub(super) fn take_off(answer: &mut Response) -> Option<Self> {
        answer.extensions_mut().remove().map(Self)
    }
}

/// Replays get the recorded answer, also if the handler has changed it since.
fn warn_of_another(record: &RecordKey, written: &Completion, outcome: &RecordOutcome) {
    if !matches!(outcome, RecordOutcome::Complete { completion, .. } if completion == written) {
        tracing::error!(
            key = %record.shown(),
            "a handler changed its answer after it was written by a Joint, so replays differ from it; return the answer as it is"
        );
    }
}

/// Asks whether the handler has committed. It has ended, so a claim that is not completed now was rolled back.
fn look_for_commit(backend: SqlBackend, record: RecordKey, claim: Claim) -> Commit {
    Commit::new(0, |sent| async move {
        // The handler may have sent its commit.
        sent.mark();
        match backend.is_completed(&record, &claim).await {
            Ok(true) => CommitOutcome::Committed,
            Ok(false) => {
                tracing::error!(
                    key = %record.shown(),
                    "a handler answered as if its Joint were committed, and it is not; commit before you answer, and answer with \
                     an error if the commit fails"
                );
                CommitOutcome::RolledBack { may_pass: false }
            }
            Err(error) => {
                let error: &dyn Error = &error;
                tracing::warn!(key = %record.shown(), error, "whether a Joint was committed is not known");
                CommitOutcome::Unknown
            }
        }
    })
}
