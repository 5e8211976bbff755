//! Deleting expired rows.
//!
//! Owns when and how many rows are deleted. Affects only the size of the table, because every other statement treats expired rows
//! as absent. Does not own when a row expires.

use std::error::Error;
use std::time::Duration;

use idem_core::BackendError;
use sqlx::Row as _;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::PostgresBackend;
use crate::error::backend_error;
use crate::protocol::{Call, Value};
use crate::table::Table;

const SWEEPING: &str = "sweeping";

/// The most rows that one statement of a [`Sweeper`] deletes.
const BATCH: u32 = 1000;

/// The rest after a batch, in multiples of the batch's duration.
const REST: u32 = 9;

/// The longest rest. A batch that had to wait for a connection takes long; without this limit, the sweeper would fall behind on a
/// busy server, where sweeping is needed most.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// The limit of one batch. A batch holds a connection that claims may be waiting for. A lost answer must not stop the sweeper.
const BATCH_LIMIT: Duration = Duration::from_secs(10);

/// Sweeps at an interval until it is dropped.
pub(crate) struct Sweeper {
    pub(crate) interval: Duration,
    task: AbortHandle,
}

impl Sweeper {
    pub(crate) fn start(table: Table, interval: Duration) -> Self {
        let task = tokio::spawn(run(table, interval)).abort_handle();
        Self { interval, task }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PostgresBackend {
    /// Deletes up to `limit` expired rows, and returns how many it has deleted.
    ///
    /// A result below `limit` means one of two things: another sweep is deleting the other rows, or the other rows expired less
    /// than their lease ago.
    ///
    /// Use this method to sweep at times of your choice; otherwise use [`with_sweeper`](Self::with_sweeper). Sweeping affects
    /// only the size of the table.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or refuses.
    pub async fn sweep(&self, limit: u32) -> Result<u64, BackendError> {
        sweep(&self.table, limit).await
    }
}

/// Deletes up to `limit` expired rows that no other sweep is deleting, and returns how many.
pub(crate) async fn sweep(table: &Table, limit: u32) -> Result<u64, BackendError> {
    let call = |statement, values| Call {
        what: SWEEPING,
        statement,
        values,
    };
    let limited = [Value::Number(i64::from(limit))];
    let Some(row) = table.ask(call(&table.statements.sweep, &limited)).await? else {
        return Ok(0);
    };
    let swept: i64 = row.try_get(0).map_err(|error| backend_error(SWEEPING, error))?;
    if swept.unsigned_abs() < u64::from(limit) {
        table.ask(call(&table.statements.sweep_leases, &[])).await?;
    }
    Ok(swept.unsigned_abs())
}

async fn run(table: Table, interval: Duration) {
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep_all(&table).await {
            let error: &dyn Error = &error;
            tracing::warn!(
                error,
                "expired records could not be deleted; trying again at the next interval"
            );
        }
    }
}

/// Deletes all expired rows. Rests between two batches, so that requests are not delayed.
async fn sweep_all(table: &Table) -> Result<(), BackendError> {
    loop {
        let started = Instant::now();
        let swept = timeout(BATCH_LIMIT, sweep(table, BATCH)).await;
        let swept = swept.unwrap_or_else(|elapsed| Err(backend_error(SWEEPING, sqlx::Error::Io(elapsed.into()))));
        if swept? < u64::from(BATCH) {
            return Ok(());
        }
        sleep((started.elapsed() * REST).min(LONGEST_REST)).await;
    }
}
