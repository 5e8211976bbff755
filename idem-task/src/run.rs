//! The run of a task.
//!
//! Owns the order of claiming, running, recording and answering. Does not own claims and leases: [`idem_core::Engine`].

use std::fmt::{self, Display};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
#[cfg(not(feature = "transaction"))]
use idem_core::HandlerResult;
use idem_core::{
    BackendError, ClaimResult, Completion, Duplicate, Engine, Fingerprint, IdempotencyKey, Observation, RecordKey,
    RecordOutcome, RequestOutcome, Run, RunAnswer, RunOutcome, Scope,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use crate::execution::Execution;
use crate::refused::{Refused, RefusedKind, SOON, TaskError, Verdict, verdict};
use crate::stored;
use crate::task::{Task, TaskResult};
#[cfg(feature = "transaction")]
use crate::transaction::Closing;

/// The name of a task in stored keys. No handler of HTTP has it.
struct Name(&'static str);

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.0)
    }
}

/// A task that has all it needs.
type Identified = Task<Scope, IdempotencyKey, Duration>;

/// Runs `work` in the task's span.
pub(crate) async fn run<T, E, F, W>(task: Identified, work: F) -> Result<T, E>
where
    F: FnOnce(Execution) -> W + Send + 'static,
    W: Future<Output = Result<T, E>> + Send + 'static,
    T: TaskResult + Send + 'static,
    E: TaskError + Send + 'static,
{
    let name = Name(task.name);
    let observation = Observation::start(&name, || name.to_string()).of_task();
    let span = observation.span();
    Box::pin(observed(task, observation, work)).instrument(span).await
}

async fn observed<T, E, F, W>(task: Identified, mut observation: Observation, work: F) -> Result<T, E>
where
    F: FnOnce(Execution) -> W + Send + 'static,
    W: Future<Output = Result<T, E>> + Send + 'static,
    T: TaskResult + Send + 'static,
    E: TaskError + Send + 'static,
{
    let Task {
        engine,
        name,
        scope,
        key,
        ttl,
        options,
    } = task;
    let (record, fingerprint) = match identify(name, &scope, &key, options.compared.as_ref()) {
        Ok(identified) => identified,
        Err(refused) => {
            observation.end(RequestOutcome::KeyInvalid);
            return Err(refused.into());
        }
    };
    observation.identified(&record, false);
    match engine.claim(&record, fingerprint, &options.policy(ttl)).await {
        Ok(ClaimResult::Run(mut run)) => {
            if let Some(renewed) = options.on_renew {
                run.on_renewal(renewed);
            }
            run_under(run, (&engine, &record), options.max_result, observation, work).await
        }
        Ok(ClaimResult::Duplicate { duplicate, waited }) => {
            let (outcome, result) = answer_of(duplicate, waited);
            observation.end(outcome);
            Ok(result?)
        }
        Ok(ClaimResult::TooBusy) => {
            observation.end(RequestOutcome::TooBusy);
            Err(Refused::new(RefusedKind::TooBusy).into())
        }
        Err(error) if options.runs_in_outage && error.leaves_record_unknown() => {
            run_unprotected((&engine, &record), &error, observation, work).await
        }
        Err(error) => {
            tracing::error!(
                key = %record.shown(),
                error = &error as &dyn std::error::Error,
                "refusing a task whose key cannot be checked"
            );
            observation.end(RequestOutcome::BackendUnavailable);
            Err(Refused::from(error).into())
        }
    }
}

fn identify(
    name: &'static str,
    scope: &Scope,
    key: &IdempotencyKey,
    compared: Option<&serde_json::Result<Fingerprint>>,
) -> Result<(RecordKey, Fingerprint), Refused> {
    let invalid = || Refused::new(RefusedKind::KeyInvalid);
    let fingerprint = match compared {
        None => Fingerprint::NONE,
        Some(Ok(fingerprint)) => *fingerprint,
        Some(Err(error)) => return Err(invalid().with_source(error.to_string())),
    };
    let record = RecordKey::new(&Name(name), scope, key).map_err(|error| invalid().with_source(error))?;
    Ok((record, fingerprint))
}

/// Runs the task under its claim.
async fn run_under<T, E, F, W>(
    mut run: Run,
    (engine, record): (&Engine, &RecordKey),
    max_result: usize,
    mut observation: Observation,
    work: F,
) -> Result<T, E>
where
    F: FnOnce(Execution) -> W + Send + 'static,
    W: Future<Output = Result<T, E>> + Send + 'static,
    T: TaskResult + Send + 'static,
    E: TaskError + Send + 'static,
{
    observation.runs(run.claim().attempt);
    let execution = Execution::under(engine, record, &mut run);
    let record = record.clone();
    let working = async move {
        #[cfg(feature = "transaction")]
        let _closing = Closing(execution.clone());
        let answer = execution.clone().around(work(execution.clone())).await;
        let outcome = match &answer {
            // Its steps stay until somebody has settled it, whatever the error says.
            Err(_) if execution.is_unsettled() => RecordOutcome::Release,
            _ => outcome_of(&record, &answer, max_result),
        };
        #[cfg(feature = "transaction")]
        let result = execution.end(answer, outcome).await;
        #[cfg(not(feature = "transaction"))]
        let result = HandlerResult::Whole { answer, outcome };
        result
    };
    let is_superseded = Arc::new(AtomicBool::new(false));
    let superseded = is_superseded.clone();
    let on_outcome = move |outcome| {
        superseded.store(outcome == RunOutcome::Superseded, Ordering::Relaxed);
        observation.ran(outcome);
    };
    let kind = match run.run(working, on_outcome).await {
        // The next delivery gets the result of the other attempt.
        RunAnswer::Answer { answer, .. } if is_superseded.load(Ordering::Relaxed) && is_final(&answer) => {
            RefusedKind::InFlight(SOON)
        }
        RunAnswer::Answer { answer, .. } => return answer,
        RunAnswer::Panicked => RefusedKind::Panicked,
        // The other attempt has the task.
        RunAnswer::Superseded => RefusedKind::InFlight(SOON),
        RunAnswer::RolledBack { may_pass } => RefusedKind::RolledBack { may_pass },
        RunAnswer::NotCommitted => RefusedKind::NotCommitted,
    };
    Err(Refused::new(kind).into())
}

async fn run_unprotected<T, E, F, W>(
    (engine, record): (&Engine, &RecordKey),
    error: &BackendError,
    observation: Observation,
    work: F,
) -> Result<T, E>
where
    F: FnOnce(Execution) -> W + Send + 'static,
    W: Future<Output = Result<T, E>> + Send + 'static,
    T: TaskResult + Send + 'static,
    E: TaskError + Send + 'static,
{
    tracing::error!(
        key = %record.shown(),
        error = error as &dyn std::error::Error,
        "the key of a task cannot be checked; running unprotected, as its settings say"
    );
    let execution = Execution::unprotected(engine);
    let working = async move {
        #[cfg(feature = "transaction")]
        let _closing = Closing(execution.clone());
        let result = execution.clone().around(work(execution.clone())).await;
        #[cfg(feature = "transaction")]
        let result = execution.end_unprotected(result).await;
        observation.end(RequestOutcome::Unprotected);
        result
    };
    let ran = engine.detach(working).await;
    ran.unwrap_or_else(|| Err(Refused::new(RefusedKind::Panicked).into()))
}

/// Whether a task that ended with `answer` would not run again.
fn is_final<T, E: TaskError>(answer: &Result<T, E>) -> bool {
    !matches!(verdict(answer), Verdict::Redeliver(_))
}

/// What is recorded of a task that ended with `answer`.
fn outcome_of<T: Serialize, E: TaskError>(
    record: &RecordKey,
    answer: &Result<T, E>,
    max_result: usize,
) -> RecordOutcome {
    let value = match answer {
        Ok(value) => value,
        Err(error) => {
            return match error.verdict() {
                Verdict::Redeliver(_) => RecordOutcome::Release,
                verdict => RecordOutcome::complete(Completion::Stored(stored::failure(&error.to_string(), verdict))),
            };
        }
    };
    RecordOutcome::complete(match stored::result(value) {
        Ok(bytes) if bytes.len() <= max_result.saturating_add(2) => Completion::Stored(bytes),
        Ok(bytes) => {
            warn_not_kept(
                record,
                &format_args!("it has {} bytes, and {max_result} are allowed", bytes.len()),
            );
            Completion::NotStored
        }
        Err(error) => {
            warn_not_kept(record, &error);
            Completion::NotStored
        }
    })
}

fn warn_not_kept(record: &RecordKey, why: &dyn Display) {
    tracing::warn!(
        key = %record.shown(),
        %why,
        "the result of a task is not kept, and later deliveries are told that it has run; return less, such as an id"
    );
}

/// What a delivery gets whose task did not run.
fn answer_of<T: DeserializeOwned>(duplicate: Duplicate, waited: bool) -> (RequestOutcome, Result<T, Refused>) {
    let refused = |outcome, kind| (outcome, Err(Refused::new(kind)));
    match duplicate {
        Duplicate::Replay(bytes) => replay(&bytes, waited),
        Duplicate::NotStored => refused(RequestOutcome::ResponseNotStored, RefusedKind::ResultNotKept),
        Duplicate::Mismatch => refused(RequestOutcome::Mismatch, RefusedKind::KeyReused),
        Duplicate::InFlight(after) => refused(RequestOutcome::InFlight, RefusedKind::InFlight(after)),
        Duplicate::OutcomeUnknown => refused(RequestOutcome::OutcomeUnknown, RefusedKind::OutcomeUnknown),
    }
}

fn replay<T: DeserializeOwned>(bytes: &Bytes, waited: bool) -> (RequestOutcome, Result<T, Refused>) {
    let result = stored::read(bytes);
    let outcome = match &result {
        Err(refused) if refused.kind() == RefusedKind::BackendUnavailable => RequestOutcome::BackendUnavailable,
        _ if waited => RequestOutcome::Waited,
        _ => RequestOutcome::Replayed,
    };
    (outcome, result)
}
