//! Deleting what has expired.
//!
//! Nothing depends on it but the size of the table: expired rows are absent to every other statement.

use std::error::Error;
use std::time::Duration;

use idem_core::BackendError;
use sqlx::Row as _;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::error::backend_error;
use crate::protocol::{Call, Value};
use crate::table::Table;

const SWEEPING: &str = "sweeping";

/// How many rows one statement of a [`Sweeper`] deletes at most.
const BATCH: u32 = 1000;

/// How much longer it rests than it works.
const REST: u32 = 9;

/// But no longer than this, however long it had to wait for a connection, or it would fall behind where it is needed most.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// How long one batch may take. It holds a connection, which claims may be waiting for, and a statement whose answer is lost
/// must not end sweeping.
const BATCH_LIMIT: Duration = Duration::from_secs(10);

/// Sweeps at an interval, until it is dropped.
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

/// Deletes up to `limit` rows that have expired and that no other sweep is at, and says how many.
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

/// Deletes everything that has expired, and rests between two batches so that requests get on.
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
