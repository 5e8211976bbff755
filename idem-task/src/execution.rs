//! What a running task knows of itself.
//!
//! Owns the handle, and how code below the task finds it. Does not own the steps: [`idem_core::steps`].

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use idem_core::key::unrepeatable_key;
use idem_core::steps::{AtLeastOnce, Step, StepRun};
use idem_core::{Claim, Engine, RecordKey, Run};
#[cfg(feature = "transaction")]
use idem_sql::{SqlBackend, StepTransaction, TransactionSlot};

use crate::refused::Refused;

tokio::task_local! {
    static CURRENT: Execution;
}

/// One run of a task. Clones are of the same run.
#[derive(Clone, Debug)]
pub struct Execution(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` where the task runs unprotected.
    under: Option<Under>,
    steps: idem_core::Steps,
    #[cfg(feature = "transaction")]
    slot: TransactionSlot,
}

#[derive(Debug)]
struct Under {
    record: RecordKey,
    claim: Claim,
}

impl Execution {
    /// That of a task which `run` runs.
    pub(crate) fn under(engine: &Engine, record: &RecordKey, run: &mut Run) -> Self {
        let steps = if engine.keeps_steps() {
            run.steps()
        } else {
            idem_core::Steps::unguarded()
        };
        let under = Under {
            record: record.clone(),
            claim: run.claim().clone(),
        };
        Self::of(engine, Some(under), steps)
    }

    /// That of a task without a claim.
    pub(crate) fn unprotected(engine: &Engine) -> Self {
        Self::of(engine, None, idem_core::Steps::unprotected())
    }

    #[cfg_attr(
        not(feature = "transaction"),
        expect(unused_variables, reason = "for the backend of transactions")
    )]
    fn of(engine: &Engine, under: Option<Under>, steps: idem_core::Steps) -> Self {
        let execution = Self(Arc::new(Inner {
            under,
            steps,
            #[cfg(feature = "transaction")]
            slot: TransactionSlot::default(),
        }));
        #[cfg(feature = "transaction")]
        execution.slot().guard(SqlBackend::of(engine), engine.deadline());
        execution
    }

    /// The place of the task's transaction.
    #[cfg(feature = "transaction")]
    pub(crate) fn slot(&self) -> &TransactionSlot {
        &self.0.slot
    }

    /// The claim as it is now: with steps, if the task has tried to record one. `None` where the task runs unprotected.
    #[cfg(feature = "transaction")]
    pub(crate) fn claim_now(&self) -> Option<(&RecordKey, Claim)> {
        let under = self.0.under.as_ref()?;
        let claim = self.0.steps.claim().unwrap_or_else(|| under.claim.clone());
        Some((&under.record, claim))
    }

    /// Whether a step cannot go on until somebody settles it.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.0.steps.is_unsettled()
    }

    /// Makes it the [`current`](Self::current) one of `work`.
    pub(crate) fn around<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// The run that the calling code belongs to; `None` outside of a task, and in a task of tokio that it has spawned.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The record's key: operation, scope and key. `None` where the task runs unprotected.
    #[must_use]
    pub fn record_key(&self) -> Option<&str> {
        self.0.under.as_ref().map(|under| under.record.as_str())
    }

    /// Which attempt of this task it is: 1, and one more each time after a process died or stalled beyond its lease, or after an attempt
    /// with durable steps failed.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.under.as_ref().map_or(1, |under| under.claim.attempt)
    }

    /// When the first attempt began, by the clock of the process that ran it; `None` where the task runs unprotected.
    #[must_use]
    pub fn began_at(&self) -> Option<SystemTime> {
        self.0.under.as_ref().map(|under| under.claim.began_at)
    }

    /// A key for a call that the task makes itself, in the form of a UUID: the same for every attempt, and different for each label
    /// and each task. Where the task runs unprotected it is new each time.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        match &self.0.under {
            Some(under) => under.record.downstream_key(label),
            None => unrepeatable_key(label),
        }
    }

    /// The durable steps of the task: what one attempt has finished, the next one does not do again.
    ///
    /// Over a backend that keeps no steps, every step is an error.
    #[must_use]
    pub fn steps(&self) -> Steps {
        Steps(self.clone())
    }
}

/// The durable steps of a task.
#[derive(Clone, Debug)]
pub struct Steps(Execution);

impl Steps {
    /// Runs a step once for all attempts of this task: await the result. [`idem_core::steps`] has the rules.
    ///
    /// `body` gets the [`Step`], which has a key for the call that it makes. Its error must be one that a [`Refused`] converts
    /// into, as that of the task: where the step has no result, it is [`RefusedKind::Step`](crate::RefusedKind::Step).
    pub fn run<B, F>(&self, name: &'static str, body: B) -> StepRun<'_, B, AtLeastOnce, Refused>
    where
        B: FnOnce(Step) -> F,
    {
        let inner = &*self.0.0;
        let run = inner.steps.run(name, body);
        #[cfg(feature = "transaction")]
        let run = run.check_first(move || inner.slot.check_run(name));
        run
    }

    /// Runs a step whose effects are rows in the database of the records, Postgres or SQLite: the rows and the step's record are
    /// committed together, or not at all. Await the result.
    ///
    /// `body` gets a connection of the application's pool that is in a transaction: `async |connection: &mut PgConnection| …`. Its
    /// error rolls back and passes through. The other rules are those of [`run`](Self::run); the body needs no downstream key.
    ///
    /// ```
    /// use idem_task::sqlx::{self, PgConnection};
    /// use idem_task::Execution;
    ///
    /// # type Failed = Box<dyn std::error::Error + Send + Sync>;
    /// async fn debit(execution: Execution, account: String) -> Result<i64, Failed> {
    ///     let debit = async |connection: &mut PgConnection| {
    ///         let debit = "UPDATE accounts SET cents = cents - 100 WHERE name = $1 RETURNING cents";
    ///         let left = sqlx::query_scalar(debit).bind(&account).fetch_one(connection).await?;
    ///         Ok::<i64, Failed>(left)
    ///     };
    ///     execution.steps().transact("debit", debit).await
    /// }
    /// ```
    ///
    /// Call it before the task's [`transaction`](Execution::transaction), and not inside of the body of another `transact`: it is
    /// [`StepErrorKind::InTransaction`](crate::StepErrorKind::InTransaction) otherwise, because it would wait for a transaction that
    /// ends after it. Leave COMMIT and ROLLBACK to it: a body that executes them is not run again, and its result is lost.
    ///
    /// Where the task runs unprotected, the transaction is committed without a record.
    #[cfg(feature = "transaction")]
    pub fn transact<C, B>(&self, name: &'static str, body: B) -> StepTransaction<'_, C, B, Refused> {
        StepTransaction::new(&self.0.0.steps, &self.0.0.slot, name, body)
    }

    /// Whether the step `name` is recorded as done, by this attempt or an earlier one.
    ///
    /// # Errors
    ///
    /// If the backend cannot be asked, or another attempt has taken the task over.
    pub async fn is_recorded(&self, name: &'static str) -> Result<bool, Refused> {
        Ok(self.0.0.steps.is_recorded(name).await?)
    }
}
