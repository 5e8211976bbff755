//! What identifies a task, and its settings.
//!
//! Owns their names and defaults. Does not own the run.

#[cfg(feature = "macros")]
pub mod expansion;

use std::fmt::{self, Display};
use std::future::Future;
use std::time::Duration;

use idem_core::{AfterCrash, ClaimPolicy, Engine, Fingerprint, IdempotencyKey, Scope};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::execution::Execution;
use crate::refused::TaskError;
use crate::run;

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
///
/// The form is JSON. What JSON does not tell apart is read as the simpler value: `Some(())` and `Some(f64::NAN)` come back as `None`.
#[diagnostic::on_unimplemented(
    message = "the result of a task is recorded in its serde form, and `{Self}` has none",
    label = "its result is not `serde::Serialize` and `serde::de::DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or return a part of it, such as an id"
)]
pub trait TaskResult: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> TaskResult for T {}

/// One task that is to be run: a name, a scope, a key, and its settings.
#[must_use = "a task runs when `run` is awaited"]
pub struct Task<S = (), K = (), L = ()> {
    pub(crate) engine: Engine,
    pub(crate) name: &'static str,
    pub(crate) scope: S,
    pub(crate) key: K,
    pub(crate) ttl: L,
    pub(crate) options: Options,
}

/// The settings that have a default.
pub(crate) struct Options {
    lease: Duration,
    wait: Option<Duration>,
    after_crash: AfterCrash,
    rerun_within: Option<Duration>,
    max_attempts: Option<u32>,
    max_run: Option<Duration>,
    pub(crate) runs_in_outage: bool,
    pub(crate) max_result: usize,
    pub(crate) compared: Option<serde_json::Result<Fingerprint>>,
    pub(crate) on_renew: Option<Box<dyn Fn() + Send + Sync>>,
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
    /// [`RefusedKind::InFlight`](crate::RefusedKind::InFlight) at once.
    pub fn wait(mut self, longest: Duration) -> Self {
        self.options.wait = Some(longest);
        self
    }

    /// Sets whether a task whose process died is run again. It is by default.
    pub fn after_crash(mut self, after_crash: AfterCrash) -> Self {
        self.options.after_crash = after_crash;
        self
    }

    /// Sets for how long after its first attempt began a task whose process died is run again. By default, there is no limit. Once a task
    /// has durable steps, the same holds for one that ended with an error.
    pub fn rerun_within(mut self, within: Duration) -> Self {
        self.options.rerun_within = Some(within);
        self
    }

    /// Sets how many attempts a task may have whose process dies each time. By default, there is no limit. Once a task has durable steps,
    /// an attempt that ends with an error counts, too.
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
    /// [`RefusedKind::ResultNotKept`](crate::RefusedKind::ResultNotKept).
    pub fn max_result(mut self, bytes: usize) -> Self {
        self.options.max_result = bytes;
        self
    }

    /// Compares a value with that of the first delivery, by a digest of its serde form: another message under the same key is
    /// [`RefusedKind::KeyReused`](crate::RefusedKind::KeyReused). By default, nothing is compared.
    ///
    /// Equal values need equal forms: compare a `BTreeSet` and not a `HashSet`, whose order differs each time. A field that a deploy adds
    /// makes the messages from before it others; give it `skip_serializing_if`.
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
    /// Those of `work`, and [`Refused`](crate::Refused) where it did not run.
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
        run::run(self, work).await
    }
}

impl Options {
    pub(crate) fn policy(&self, ttl: Duration) -> ClaimPolicy {
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
