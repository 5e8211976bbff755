//! Whether the server and the tables are as they should be.
//!
//! Owns the checks of the server, and how a check is made: by one statement, each of which is bounded whatever the size of the tables.
//!
//! | module | owns |
//! |---|---|
//! | `tables` | the checks of the tables |

mod tables;

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idem_core::BackendError;
use idem_core::inspect::Finding;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr as _};

use crate::PostgresBackend;
use crate::error::backend_error;
use crate::protocol::{Call, Route, Wanted};

const WHAT: &str = "checking the database";

/// With a greater difference between the clocks, the times that people read mislead them.
const CLOCK_LIMIT: Duration = Duration::from_secs(1);

type Checked = Result<Finding, BackendError>;

/// All findings. Fails if the server cannot be reached.
pub(super) async fn diagnose(backend: &PostgresBackend) -> Result<Vec<Finding>, BackendError> {
    let mut findings = server(backend).await?;
    findings.extend([
        checked("connection", connection(backend).await),
        checked("connections", connections(backend).await),
        checked("durability", durability(backend).await),
        checked("standbys", standbys(backend).await),
        checked("isolation", isolation(backend).await),
        checked("clock", clock(backend).await),
    ]);
    findings.extend(tables::findings(backend).await);
    Ok(findings)
}

/// The finding of a check, or why it could not be made.
fn checked(check: &'static str, found: Checked) -> Finding {
    found.unwrap_or_else(|error| Finding::unchecked(check, with_cause(&error)))
}

/// The error and its cause. Neither shows an address.
fn with_cause(error: &BackendError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The one row of a statement, which is not prepared: it is executed rarely.
async fn row(backend: &PostgresBackend, sql: impl Into<String>) -> Result<PgRow, BackendError> {
    let statement = AssertSqlSafe(sql.into()).into_sql_str();
    let call = Call {
        what: WHAT,
        statement: &statement,
        values: &[],
    };
    let mut connection = backend.table.connections.lend(WHAT).await?;
    let row = connection.ask_for(call, Wanted::LastOfText).await?.first;
    row.ok_or_else(|| failed(sqlx::Error::RowNotFound))
}

/// A column of [`row`].
fn column<T>(row: &PgRow, index: usize) -> Result<T, BackendError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(failed)
}

fn failed(error: sqlx::Error) -> BackendError {
    backend_error(WHAT, error)
}

async fn server(backend: &PostgresBackend) -> Result<Vec<Finding>, BackendError> {
    let sql = "SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('transaction_read_only')";
    let row = row(backend, sql).await?;
    let (version, is_standby): (String, bool) = (column(&row, 0)?, column(&row, 1)?);
    let is_read_only: String = column(&row, 2)?;
    let version = Finding::good("version", format!("Postgres {version}"));
    let writing = if is_standby {
        let text =
            "the server is a standby, which takes no writes: requests with new keys get 503; connect to the primary";
        Finding::failing("writing", text)
    } else if is_read_only == "on" {
        let text = "transactions are read-only, so requests with new keys get 503: see `default_transaction_read_only` of the \
                    server, the database and the role";
        Finding::failing("writing", text)
    } else {
        Finding::good("writing", "the server takes writes")
    };
    Ok(vec![version, writing])
}

async fn connection(backend: &PostgresBackend) -> Checked {
    Ok(match backend.table.connections.route().await? {
        Route::Direct => Finding::good("connection", "a connection is one session of the server"),
        Route::Pooled => {
            let text = "a pooler in transaction mode stands in between: requests that wait look once a second, and are not \
                        told of the end of a claim";
            Finding::warning("connection", text)
        }
    })
}

/// How many connections the server has room for.
async fn connections(backend: &PostgresBackend) -> Checked {
    let sql =
        "SELECT (SELECT sum(numbackends) FROM pg_stat_database)::bigint, current_setting('max_connections')::bigint";
    let row = row(backend, sql).await?;
    let (open, most): (Option<i64>, i64) = (column(&row, 0)?, column(&row, 1)?);
    let open = open.unwrap_or(0);
    let text = format!("{open} of {most} connections of the server are open");
    Ok(if open.saturating_mul(10) < most.saturating_mul(9) {
        Finding::good("connections", text)
    } else {
        let text = text + "; when none is left, requests get 503";
        Finding::warning("connections", text)
    })
}

/// What a crash loses.
async fn durability(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "durability";
    let sql =
        "SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes')";
    let row = row(backend, sql).await?;
    let (fsync, commit, pages): (String, String, String) = (column(&row, 0)?, column(&row, 1)?, column(&row, 2)?);
    Ok(if fsync == "off" || pages == "off" {
        let text =
            "`fsync` or `full_page_writes` is off: a crash of the machine may lose records and damage the database";
        Finding::warning(CHECK, text)
    } else if commit == "off" {
        let text = "`synchronous_commit` is off: a crash of the server loses claims and outcomes of the last moments, and their \
                    retries run again";
        Finding::warning(CHECK, text)
    } else {
        Finding::good(CHECK, format!("`fsync` is on, and `synchronous_commit` is {commit}"))
    })
}

/// What a failover loses. Only a role that may read statistics of replication sees how a standby follows.
async fn standbys(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "standbys";
    let sql = "SELECT count(*), count(*) FILTER (WHERE sync_state IN ('async', 'potential')), \
               count(*) FILTER (WHERE sync_state IS NULL) FROM pg_stat_replication";
    let row = row(backend, sql).await?;
    let (all, late, unseen): (i64, i64, i64) = (column(&row, 0)?, column(&row, 1)?, column(&row, 2)?);
    Ok(if late > 0 {
        let text = format!(
            "{late} of {all} standbys follow asynchronously: a failover to one of them loses the records that have not \
             reached it, and their retries run again"
        );
        Finding::warning(CHECK, text)
    } else if unseen > 0 {
        Finding::unchecked(
            CHECK,
            "the role may not see how the standbys follow: it lacks `pg_read_all_stats`",
        )
    } else if all == 0 {
        Finding::good(CHECK, "no standby follows this server directly")
    } else {
        Finding::good(CHECK, format!("{all} standbys follow synchronously"))
    })
}

async fn isolation(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "isolation";
    let row = row(backend, "SELECT current_setting('default_transaction_isolation')").await?;
    let level: String = column(&row, 0)?;
    Ok(if level == "read committed" {
        Finding::good(CHECK, "the default isolation level is read committed")
    } else {
        let text = format!(
            "the default isolation level is {level}: the server refuses statements of idem that meet, and each is repeated up \
             to 8 times; with many requests for one key, some may get 503"
        );
        Finding::warning(CHECK, text)
    })
}

/// The server's clock decides about leases and expiry, and this process's clock says when an attempt began.
async fn clock(backend: &PostgresBackend) -> Checked {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The connection is open by now, so that opening it does not count.
    let before = now();
    let row = row(backend, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").await?;
    let after = now();
    let server: i64 = column(&row, 0)?;
    Ok(compare(Duration::from_millis(server.unsigned_abs()), before, after))
}

fn compare(server: Duration, before: Duration, after: Duration) -> Finding {
    const CHECK: &str = "clock";
    // The server has looked at its clock between `before` and `after`.
    let ahead = server.saturating_sub(after);
    let behind = before.saturating_sub(server);
    let difference = ahead.max(behind);
    if difference <= CLOCK_LIMIT {
        return Finding::good(
            CHECK,
            "the clocks of the server and of this process differ by less than a second",
        );
    }
    let side = if ahead > behind { "ahead of" } else { "behind" };
    let text = format!(
        "the server's clock is {} s {side} this process's. Leases are not affected, but `rerun_within` is, and so is the age \
         of a record in a list",
        difference.as_secs()
    );
    Finding::warning(CHECK, text)
}

#[cfg(test)]
mod tests {
    use idem_core::inspect::Health;

    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_a_second_and_the_way_there_and_back_are_told() {
        let seconds = Duration::from_secs;
        for (server, health, side) in [
            (100, Health::Good, ""),
            (104, Health::Good, ""),
            (105, Health::Warning, "2 s ahead of"),
            (98, Health::Warning, "2 s behind"),
        ] {
            let found = compare(seconds(server), seconds(100), seconds(103));
            assert!(
                found.health == health && found.text.contains(side),
                "{server}: {found:?}"
            );
        }
    }
}
