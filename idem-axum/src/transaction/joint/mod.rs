//! The record in a transaction of the handler's own, whatever client of the database it uses.
//!
//! Owns the extractor, the statement that the handler executes, and the end of a request whose handler did:
//!
//! 1. [`Joint::record`] prepares an answer for the record and makes one SQL text of it, fenced by the claim's token.
//! 2. The handler executes the text in its transaction, asks [`JointRecord::written`] about the number of changed rows, commits,
//!    and returns the answer.
//! 3. [`Slot::join`] asks the backend whether the claim is completed, for the answer of `written` and for any other success. So a
//!    success is not sent if the transaction was never committed.
//!
//! Does not own the transaction: the application begins and ends it.

mod end;
mod error;
mod state;

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use idem_core::{Completion, HandlerResult, RecordOutcome};
use idem_http::answer::{self, AnswerRules};
use idem_http::{IdempotencyProblem, StoredAnswers, Verdict, markers};
use idem_sql::SqlBackend;

pub use self::error::{JointError, JointErrorKind};
pub(crate) use self::state::JointClaim;
use self::state::Written;
pub(super) use self::state::{JointRun, JointState};
use super::slot::Slot;
use crate::run::with_axum_body;

/// An extractor for handlers under `#[idempotent]` that write to the database of the records over a client of their own: sqlx of
/// another version, tokio-postgres, diesel, `SeaORM`, rusqlite. It gives the record as one SQL statement, which the handler executes
/// in its own transaction.
///
/// [`Transaction`](super::Transaction) is shorter where it fits: it begins and ends the transaction, over the sqlx that idem uses.
/// [`guide::repositories`](crate::guide::repositories) shows a `Joint` with SQL behind a repository.
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
/// | returns that answer or another success, and has not committed | rolled back | released: the client gets 500 `rolled-back` |
/// | commits, and returns another answer | committed | completed: the client gets that answer, and a retry the recorded one |
/// | rolls back, and returns a failure | rolled back | completed or released by its status, as without a `Joint` |
/// | was superseded by another attempt | rolled back, because `written` is an error | the other attempt's |
///
/// # What the handler has to do
///
/// - Execute the statement last, just before the commit. In Postgres it locks the record until the transaction ends, and retries
///   wait for that. In SQLite a transaction holds up all writers, so begin it after the slow work.
/// - Execute it in the transaction of the rows. Over a pool it would be a transaction of its own. Postgres refuses that, and also a
///   transaction that is one message with its `BEGIN`; in SQLite nothing notices it.
/// - Execute it as it is. It contains its values as literals, made of digits only, and has no parameters. A client that remembers
///   prepared statements by their text should not remember this one: `sqlx::raw_sql`, or `.persistent(false)`. Where the database or
///   its client logs statements, the answer is in that log.
/// - Pass on the number of rows that the database reports, and roll back if `written` is an error.
/// - Return the answer as `written` gives it.
///
/// In SQLite, the client must share the copy of SQLite with idem: use a version of rusqlite for the same `libsqlite3-sys`, and
/// Cargo links one copy.
///
/// Where the request runs unprotected, without a key that is not required or in an outage, the statement changes nothing, and
/// `written` takes any number. An answer that would not be kept is refused all the same.
#[derive(Debug)]
pub struct Joint {
    slot: Slot,
}

/// Marks the answer that [`JointRecord::written`] gives.
#[derive(Clone)]
struct OfJoint;

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
        let answer = answer.into_response();
        let (Some(backend), Some(run)) = (self.slot.sql().backend(), self.slot.joint().run()) else {
            tracing::error!("nothing would record the answer of a Joint: its handler needs #[idempotent]");
            return Err(self
                .slot
                .refuse(JointErrorKind::NotConfigured, IdempotencyProblem::NotConfigured));
        };
        match run {
            JointRun::Claimed(claimed) => self.record_claimed(backend, claimed, answer).await,
            JointRun::Unprotected(stored) => self.let_through(backend, *stored, answer),
        }
    }

    async fn record_claimed(
        &self,
        backend: &SqlBackend,
        claimed: &JointClaim,
        answer: Response,
    ) -> Result<JointRecord, JointError> {
        let JointClaim { record, rules, .. } = claimed;
        let claim = &claimed.claim_now();
        let Some(answer) = read_whole(answer, rules.max_response).await else {
            tracing::error!(
                key = %record.shown(),
                "the answer for a Joint cannot be read, or is too large to be recorded; roll back, and make it smaller"
            );
            return Err(self
                .slot
                .refuse(JointErrorKind::Answer, IdempotencyProblem::NotConfigured));
        };
        let (answer, outcome) = outcome_of(answer, rules);
        match outcome {
            RecordOutcome::Complete { completion, keep_for } if completion != Completion::Unknown => {
                let outcome = (&completion, keep_for.unwrap_or(claim.ttl));
                Ok(JointRecord {
                    sql: backend.completion_sql((record, claim), outcome),
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

    /// Prepares an answer without a record. What would not be kept is not committed either.
    fn let_through(
        &self,
        backend: &SqlBackend,
        stored: StoredAnswers,
        answer: Response,
    ) -> Result<JointRecord, JointError> {
        let (head, body) = markers::taken_off(answer).into_parts();
        let verdict = head.extensions.get::<Verdict>().copied();
        let is_kept = answer::is_kept(&head, verdict, stored);
        let answer = Response::from_parts(head, body);
        if !is_kept {
            return Err(JointError::new(JointErrorKind::NotKept, answer));
        }
        Ok(JointRecord {
            sql: backend.nothing_sql(),
            answer,
            completion: None,
            slot: self.slot.clone(),
        })
    }
}

/// Reads the body of `answer`. `None` if it fails, or turns out to be larger than `max`. A body that announces that it is larger is
/// not read: the record then says that there is no answer. So it does if the body ends with trailers.
async fn read_whole(answer: Response, max: usize) -> Option<Response> {
    let (head, body) = answer.into_parts();
    if body.size_hint().exact().is_some_and(|len| len > max as u64) {
        return Some(Response::from_parts(head, body));
    }
    let read = Limited::new(body, max).collect().await.ok()?;
    let body = match read.trailers() {
        Some(_) => Body::new(read),
        None => Body::from(read.to_bytes()),
    };
    Some(Response::from_parts(head, body))
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
            slot.joint().note_written(Written::Superseded);
            let refusal = slot.refuse(JointErrorKind::Superseded, IdempotencyProblem::InFlight);
            return Err(refusal.marked());
        }
        slot.joint().note_written(Written::Completed(completion));
        answer.extensions_mut().insert(OfJoint);
        Ok(answer)
    }
}

impl Slot {
    fn refuse(&self, kind: JointErrorKind, problem: IdempotencyProblem) -> JointError {
        JointError::new(kind, self.settings().problem(problem).map(Body::new))
    }
}

impl<S: Sync> FromRequestParts<S> for Joint {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let slot = Slot::of(&mut parts.extensions);
        slot.joint().want();
        Ok(Self { slot })
    }
}
