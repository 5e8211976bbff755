//! What identifies a task, its settings, and its run.
//!
//! Owns the order of claiming, running, recording and answering. Does not own claims and leases: [`idem_core::Engine`].

use std::fmt::{self, Display};
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
#[cfg(not(feature = "transaction"))]
use idem_core::HandlerResult;
use idem_core::{
    AfterCrash, BackendError, ClaimPolicy, ClaimResult, Completion, Duplicate, Engine, Fingerprint, IdempotencyKey,
    Observation, RecordKey, RecordOutcome, RequestOutcome, Run, RunAnswer, Scope,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use crate::execution::Execution;
use crate::refused::{Refused, RefusedKind, SOON, TaskError, Verdict};
use crate::stored;
#[cfg(feature = "transaction")]
use crate::transaction::Closing;

/// The scheme of fingerprints that are made of a compared value. The numbers below are those of HTTP requests.
const COMPARED: u8 = 3;

/// The most bytes of a result that are recorded, by default.
const MAX_RESULT: usize = 1024 * 1024;

/// Begins tasks. Implemented for an [`Engine`], and for whatever has one.
pub trait TaskExt: AsRef<Engine> {
    /// A task by its name. The name is part of the stored keys, so it stays when the code is moved.
    fn task(&self, name: &'static str) -> Task {
        Task::new(self.as_ref(), name)
    }
}

impl<T: AsRef<Engine> + ?Sized> TaskExt for T {}

/// What a task returns in its `Ok`. Implemented for everything that serde can serialize and deserialize.
#[diagnostic::on_unimplemented(
    message = "the result of a task is recorded in its serde form, and `{Self}` has none",
    label = "its result is not `serde::Serialize` and `serde::de::DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or return a part of it, such as an id"
)]
pub trait TaskResult: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> TaskResult for T {}

/// The name of a task in stored keys. No handler of HTTP has it.
struct Name(&'static str);

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.0)
    }
}

/// One task that is to be run: a name, a scope, a key, and its settings.
#[must_use = "a task runs when `run` is awaited"]
pub struct Task<S = (), K = (), L = ()> {
    engine: Engine,
    name: &'static str,
    scope: S,
    key: K,
    ttl: L,
    options: Options,
}

/// The settings that have a default.
struct Options {
    lease: Duration,
    wait: Option<Duration>,
    after_crash: AfterCrash,
    rerun_within: Option<Duration>,
    max_attempts: Option<u32>,
    max_run: Option<Duration>,
    runs_in_outage: bool,
    max_result: usize,
    compared: Option<serde_json::Result<Fingerprint>>,
    on_renew: Option<Box<dyn Fn() + Send + Sync>>,
}

impl<S, K, L> fmt::Debug for Task<S, K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Task {
    fn new(engine: &Engine, name: &'static str) -> Self {
        Self {
            engine: engine.clone(),
            name,
            scope: (),
            key: (),
            ttl: (),
            options: Options {
                lease: ClaimPolicy::DEFAULT_LEASE,
                wait: None,
                after_crash: AfterCrash::Rerun,
                rerun_within: None,
                max_attempts: None,
                max_run: None,
                runs_in_outage: false,
                max_result: MAX_RESULT,
                compared: None,
                on_renew: None,
            },
        }
    }
}

impl<K, L> Task<(), K, L> {
    /// Sets who owns the key: a tenant, a topic.
    pub fn scope(self, scope: &(impl Display + ?Sized)) -> Task<Scope, K, L> {
        self.scoped(Scope::of(scope))
    }

    /// Says that all keys are of one space.
    pub fn global(self) -> Task<Scope, K, L> {
        self.scoped(Scope::global())
    }

    /// Sets a scope of several parts.
    pub fn scoped(self, scope: Scope) -> Task<Scope, K, L> {
        let Self {
            engine,
            name,
            key,
            ttl,
            options,
            ..
        } = self;
        Task {
            engine,
            name,
            scope,
            key,
            ttl,
            options,
        }
    }
}

impl<S, L> Task<S, (), L> {
    /// Sets what tells the message from every other one: the id that its producer gave it.
    pub fn key(self, key: &(impl Display + ?Sized)) -> Task<S, IdempotencyKey, L> {
        self.keyed(IdempotencyKey::of(key))
    }

    /// Sets a key of several parts.
    pub fn keyed(self, key: IdempotencyKey) -> Task<S, IdempotencyKey, L> {
        let Self {
            engine,
            name,
            scope,
            ttl,
            options,
            ..
        } = self;
        Task {
            engine,
            name,
            scope,
            key,
            ttl,
            options,
        }
    }
}

impl<S, K> Task<S, K, ()> {
    /// Sets for how long the result is kept: longer than a message can be delivered again, replays of a topic included.
    pub fn ttl(self, ttl: Duration) -> Task<S, K, Duration> {
        let Self {
            engine,
            name,
            scope,
            key,
            options,
            ..
        } = self;
        Task {
            engine,
            name,
            scope,
            key,
            ttl,
            options,
        }
    }
}

impl<S, K, L> Task<S, K, L> {
    /// Sets how long a claim holds without being renewed; 30 seconds by default. A running task renews it. A message whose consumer
    /// died can run again after it.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self
    }

    /// Lets a delivery wait for the result of one that runs, for this long at most. By default it is
    /// [`RefusedKind::InFlight`] at once.
    pub fn wait(mut self, longest: Duration) -> Self {
        self.options.wait = Some(longest);
        self
    }

    /// Sets whether a task whose process died is run again. It is by default.
    pub fn after_crash(mut self, after_crash: AfterCrash) -> Self {
        self.options.after_crash = after_crash;
        self
    }

    /// Sets for how long after its first attempt began a task whose process died is run again. By default, there is no limit.
    pub fn rerun_within(mut self, within: Duration) -> Self {
        self.options.rerun_within = Some(within);
        self
    }

    /// Sets how many attempts a task may have whose process dies each time. By default, there is no limit.
    pub fn max_attempts(mut self, most: u32) -> Self {
        self.options.max_attempts = Some(most);
        self
    }

    /// Sets for how long the claim of a running task is renewed. By default, there is no limit.
    pub fn max_run(mut self, longest: Duration) -> Self {
        self.options.max_run = Some(longest);
        self
    }

    /// Runs the task unprotected while the backend is away. By default it is refused.
    pub fn run_in_outage(mut self) -> Self {
        self.options.runs_in_outage = true;
        self
    }

    /// Sets how large a result may be, as JSON; 1 MiB by default. A larger one is not kept, and later deliveries are
    /// [`RefusedKind::ResultNotKept`].
    pub fn max_result(mut self, bytes: usize) -> Self {
        self.options.max_result = bytes;
        self
    }

    /// Compares a value with that of the first delivery, by a digest of its serde form: another message under the same key is
    /// [`RefusedKind::KeyReused`]. By default, nothing is compared.
    pub fn compare(mut self, value: &(impl Serialize + ?Sized)) -> Self {
        self.options.compared = Some(fingerprint_of(value));
        self
    }

    /// Calls `renewed` each time that the lease is renewed, about every third of it, so that a consumer can tell its broker that the
    /// message is still worked on. It must not block; spawn what takes time.
    ///
    /// Choose the broker's own time longer than a third of the lease: until the first renewal, nothing extends it.
    pub fn on_renew(mut self, renewed: impl Fn() + Send + Sync + 'static) -> Self {
        self.options.on_renew = Some(Box::new(renewed));
        self
    }
}

impl Task<Scope, IdempotencyKey, Duration> {
    /// Runs `work` once for all deliveries, and returns its result: that of this delivery, or that of an earlier one.
    ///
    /// An `Ok` is recorded by its serde form, as JSON. An `Err` is recorded if its [`verdict`](TaskError::verdict) says that it is
    /// final; otherwise the next delivery runs `work` again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped once `work` has begun, `work` goes on in a task of its own, and its result is recorded.
    /// [`Engine::drain`] waits for it.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`Refused`] where it did not run.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime; and when `ttl` or `lease` is beyond the bounds of [`ClaimPolicy`].
    pub async fn run<T, E, F, W>(self, work: F) -> Result<T, E>
    where
        F: FnOnce(Execution) -> W + Send + 'static,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: TaskResult + Send + 'static,
        E: TaskError + Send + 'static,
    {
        let name = Name(self.name);
        let observation = Observation::start(&name, || name.to_string()).of_task();
        let span = observation.span();
        Box::pin(self.observed(observation, work)).instrument(span).await
    }

    async fn observed<T, E, F, W>(self, mut observation: Observation, work: F) -> Result<T, E>
    where
        F: FnOnce(Execution) -> W + Send + 'static,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: TaskResult + Send + 'static,
        E: TaskError + Send + 'static,
    {
        let Self {
            engine,
            name,
            scope,
            key,
            ttl,
            options,
        } = self;
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
}

impl Options {
    fn policy(&self, ttl: Duration) -> ClaimPolicy {
        let mut policy = ClaimPolicy::new(ttl)
            .with_lease(self.lease)
            .with_after_crash(self.after_crash);
        if let Some(longest) = self.wait {
            policy = policy.with_wait(longest);
        }
        if let Some(within) = self.rerun_within {
            policy = policy.with_rerun_within(within);
        }
        if let Some(most) = self.max_attempts {
            policy = policy.with_max_attempts(most);
        }
        if let Some(longest) = self.max_run {
            policy = policy.with_max_run(longest);
        }
        policy
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

/// The digest by which two values are compared.
fn fingerprint_of(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Fingerprint> {
    // Sorted, because equal maps need not have equal orders.
    let mut json = serde_json::to_value(value)?;
    json.sort_all_objects();
    Ok(Fingerprint::new(
        COMPARED,
        Sha256::digest(serde_json::to_vec(&json)?).into(),
    ))
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
        let outcome = outcome_of(&record, &answer, max_result);
        #[cfg(feature = "transaction")]
        let result = execution.end(answer, outcome).await;
        #[cfg(not(feature = "transaction"))]
        let result = HandlerResult::Whole { answer, outcome };
        result
    };
    let kind = match run.run(working, |outcome| observation.ran(outcome)).await {
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
    T: Send + 'static,
    E: TaskError + Send + 'static,
{
    tracing::error!(
        key = %record.shown(),
        error = error as &dyn std::error::Error,
        "the key of a task cannot be checked; running unprotected, as its settings say"
    );
    let execution = Execution::unprotected(engine);
    let result = execution.clone().around(work(execution.clone())).await;
    #[cfg(feature = "transaction")]
    let result = execution.end_unprotected(result).await;
    observation.end(RequestOutcome::Unprotected);
    result
}

/// What is recorded of a task that ended with `answer`.
fn outcome_of<T: Serialize, E: TaskError>(
    record: &RecordKey,
    answer: &Result<T, E>,
    max_result: usize,
) -> RecordOutcome {
    let bytes = match answer {
        Ok(value) => stored::result(value),
        Err(error) => match error.verdict() {
            Verdict::Redeliver(_) => return RecordOutcome::Release,
            verdict => Ok(stored::failure(&error.to_string(), verdict)),
        },
    };
    RecordOutcome::complete(match bytes {
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

/// What the expansion of `#[idempotent]` calls.
#[cfg(feature = "macros")]
pub mod expansion {
    use super::{Engine, Task, TaskExt as _};

    /// A task of the engine that an expression has.
    pub fn task<T: HasEngine + ?Sized>(engine: &T, name: &'static str) -> Task {
        engine.task(name)
    }

    /// A value that `engine = …` takes. Implemented for everything that has an engine.
    #[diagnostic::on_unimplemented(
        message = "`engine` takes an `Engine`, or what has one, and this is `{Self}`",
        label = "this has no `idem_task::Engine`",
        note = "name the field that has it, such as `engine = app.engine`"
    )]
    pub trait HasEngine: AsRef<Engine> {}

    #[diagnostic::do_not_recommend]
    impl<T: AsRef<Engine> + ?Sized> HasEngine for T {}

    /// Says what type an async block has, in a branch that is never taken.
    #[must_use]
    pub fn never<T>() -> T {
        unreachable!("only its type is of use")
    }

    /// What `scope` is made of.
    pub mod scope {
        use std::fmt::Display;

        use idem_core::Scope;

        /// A value that `scope = …` takes. Implemented for everything that is `Display`.
        #[diagnostic::on_unimplemented(
            message = "`scope` takes values that are `Display`, and `{Self}` is not",
            label = "this is not `std::fmt::Display`",
            note = "name a part of it, such as `scope = order.id`"
        )]
        pub trait ScopeValue: Display {}

        #[diagnostic::do_not_recommend]
        impl<T: Display + ?Sized> ScopeValue for T {}

        /// The scope of one value.
        pub fn of<T: ScopeValue + ?Sized>(value: &T) -> Scope {
            Scope::of(value)
        }

        /// The scope of several values together.
        #[must_use]
        pub fn tuple<const N: usize>(parts: [Scope; N]) -> Scope {
            Scope::tuple(parts)
        }

        /// One key space for all callers.
        #[must_use]
        pub fn global() -> Scope {
            Scope::global()
        }
    }

    /// What `key` is made of.
    pub mod key {
        use std::fmt::Display;

        use idem_core::IdempotencyKey;

        /// A value that `key = …` takes. Implemented for everything that is `Display`.
        #[diagnostic::on_unimplemented(
            message = "`key` takes values that are `Display`, and `{Self}` is not",
            label = "this is not `std::fmt::Display`",
            note = "name a part of it, such as `key = order.id`"
        )]
        pub trait KeyValue: Display {}

        #[diagnostic::do_not_recommend]
        impl<T: Display + ?Sized> KeyValue for T {}

        /// The key of one value.
        pub fn of<T: KeyValue + ?Sized>(value: &T) -> IdempotencyKey {
            IdempotencyKey::of(value)
        }

        /// The key of several values together.
        #[must_use]
        pub fn tuple<const N: usize>(parts: [IdempotencyKey; N]) -> IdempotencyKey {
            IdempotencyKey::tuple(parts)
        }
    }
}
