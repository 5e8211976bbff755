//! The statements, for one table.
//!
//! Owns their text. Each is atomic by itself: a row that changes while a statement waits for it is looked at again before
//! it is written.

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

/// The text of each statement.
pub(crate) struct Statements {
    /// `$1` id, `$2` key, `$3` token, `$4` attempt, `$5` fingerprint, `$6` lease, `$7` ttl. The row that was there, or one
    /// of `NULL`s if the claim was written; none if another claim came in between.
    pub(crate) claim: SqlStr,
    /// As `claim`, over what has expired. A row if it was written.
    pub(crate) claim_expired: SqlStr,
    /// As `claim_expired`, and `$8` the lapsed token.
    pub(crate) take_over: SqlStr,
    /// `$1` id, `$2` token. A row if it was renewed.
    pub(crate) renew: SqlStr,
    /// `$1` id, `$2` token, `$3` state, `$4` payload, `$5` channel, `$6` message. A row if it was completed.
    pub(crate) complete: SqlStr,
    /// `$1` id, `$2` token. A row if that claim has been completed.
    pub(crate) is_completed: SqlStr,
    /// `$1` id, `$2` token, `$3` channel, `$4` message. A row if it was released.
    pub(crate) release: SqlStr,
    /// `$1` id. A row if a claim was marked that was not before.
    pub(crate) mark: SqlStr,
    /// `$1` id. A row if a marked claim is there.
    pub(crate) is_marked: SqlStr,
    /// A row if the table can be read and the server takes writes.
    pub(crate) check: SqlStr,
    /// `$1` the most rows to delete.
    pub(crate) sweep: SqlStr,
}

/// What a claim writes over an older row. Who waits for a claim waits for the one in its place too.
const REPLACE: &str = "key = $2, state = 1, token = $3, attempt = $4, fingerprint = $5, lease_ms = $6, ttl_ms = $7, \
     lease_until = clock_timestamp() + $6 * interval '1 millisecond', \
     expires_at = clock_timestamp() + ($6 + $7) * interval '1 millisecond', \
     sweep_at = clock_timestamp() + ($6 + $7) * interval '1 millisecond', \
     waited = waited AND state = 1, payload = NULL";

/// What is read of a row, as [`crate::record::Row`] has it.
const RECORD: &str = "state, token, attempt, fingerprint, lease_ms, ttl_ms, payload, expires_at <= clock_timestamp() AS expired, \
     ceil(extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint AS remaining";

/// A claim in place, whose owner has the token `$2`.
const OWN: &str = "id = $1 AND state = 1 AND token = $2 AND expires_at > clock_timestamp()";

impl Statements {
    /// For `table`, a qualified name that needs no more quoting.
    pub(crate) fn on(table: &str) -> Self {
        let text = |text: String| AssertSqlSafe(text).into_sql_str().clone();
        Self {
            // What is there is looked for once, before anything is written: a replay writes nothing, and waits for nobody.
            claim: text(format!(
                "WITH found AS MATERIALIZED (SELECT {RECORD} FROM {table} WHERE id = $1), \
                 claimed AS (INSERT INTO {table} \
                 (id, key, state, token, attempt, fingerprint, lease_ms, ttl_ms, lease_until, expires_at, sweep_at) \
                 SELECT $1, $2, 1, $3, $4, $5, $6, $7, clock_timestamp() + $6 * interval '1 millisecond', \
                 clock_timestamp() + ($6 + $7) * interval '1 millisecond', \
                 clock_timestamp() + ($6 + $7) * interval '1 millisecond' WHERE NOT EXISTS (SELECT FROM found) \
                 ON CONFLICT (id) DO NOTHING RETURNING true) \
                 SELECT * FROM found \
                 UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM claimed"
            )),
            claim_expired: text(format!(
                "UPDATE {table} SET {REPLACE} WHERE id = $1 AND expires_at <= clock_timestamp() RETURNING true"
            )),
            take_over: text(format!(
                "UPDATE {table} SET {REPLACE} \
                 WHERE id = $1 AND state = 1 AND token = $8 AND lease_until <= clock_timestamp() RETURNING true"
            )),
            renew: text(format!(
                "UPDATE {table} SET lease_until = clock_timestamp() + lease_ms * interval '1 millisecond', \
                 expires_at = clock_timestamp() + (lease_ms + ttl_ms) * interval '1 millisecond', \
                 sweep_at = clock_timestamp() + (lease_ms + ttl_ms) * interval '1 millisecond' \
                 WHERE {OWN} RETURNING true"
            )),
            // Within its lease it leaves `sweep_at` alone, and so the index.
            complete: text(format!(
                "UPDATE {table} SET state = $3, payload = $4, \
                 expires_at = clock_timestamp() + ttl_ms * interval '1 millisecond', \
                 sweep_at = greatest(sweep_at, clock_timestamp() + ttl_ms * interval '1 millisecond') WHERE {OWN} \
                 RETURNING CASE WHEN waited THEN pg_notify($5, $6)::text END"
            )),
            is_completed: text(format!(
                "SELECT true FROM {table} \
                 WHERE id = $1 AND token = $2 AND state IN (2, 3) AND expires_at > clock_timestamp()"
            )),
            release: text(format!(
                "DELETE FROM {table} WHERE {OWN} RETURNING CASE WHEN waited THEN pg_notify($3, $4)::text END"
            )),
            mark: text(format!(
                "UPDATE {table} SET waited = true WHERE id = $1 AND state = 1 AND NOT waited RETURNING true"
            )),
            is_marked: text(format!(
                "SELECT true FROM {table} WHERE id = $1 AND state = 1 AND waited"
            )),
            check: text(format!(
                "SELECT count(*) FROM (SELECT FROM {table} LIMIT 1) AS any_row \
                 HAVING current_setting('transaction_read_only') = 'off'"
            )),
            // The time of the statement, unlike that of the clock, lets the index say where to stop. The rows are
            // chosen once, in an array: a plan could otherwise choose anew for each row.
            sweep: text(format!(
                "WITH swept AS (DELETE FROM {table} WHERE id = ANY (ARRAY(SELECT id FROM {table} \
                 WHERE sweep_at <= statement_timestamp() AND expires_at <= statement_timestamp() \
                 ORDER BY sweep_at LIMIT $1 FOR UPDATE SKIP LOCKED)) \
                 RETURNING true) SELECT count(*) FROM swept"
            )),
        }
    }
}
