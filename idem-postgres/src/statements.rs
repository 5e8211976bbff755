//! The statements, for one table.
//!
//! Owns their text. Each is atomic by itself: a row that changes while a statement waits for it is looked at again before
//! it is written. A renewal and a takeover of one claim both write its row in the table of leases, so that one of the two
//! finds what the other one did.

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use crate::table::Name;

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
    /// `$1` id, `$2` token, `$3` state, `$4` payload, `$5` lock of waiters, `$6` channel, `$7` message. A row if it was
    /// completed.
    pub(crate) complete: SqlStr,
    /// As `complete`, in a handler's transaction, `$8` whose mark it bears. Its snapshot may be older than the last
    /// renewal, so it does not ask whether the claim has expired: the row is there for as long as nobody claimed over it.
    pub(crate) complete_in: SqlStr,
    /// `$1` id, `$2` token. A row if that claim has been completed.
    pub(crate) is_completed: SqlStr,
    /// `$1` id, `$2` token, `$3` lock of waiters, `$4` channel, `$5` message. A row if it was released.
    pub(crate) release: SqlStr,
    /// `$1` id. A row if a claim is there.
    pub(crate) is_claimed: SqlStr,
    /// A row if the tables can be read and the server takes writes.
    pub(crate) check: SqlStr,
    /// `$1` the most rows to delete.
    pub(crate) sweep: SqlStr,
    /// Deletes leases that say nothing any more.
    pub(crate) sweep_leases: SqlStr,
}

/// What a claim writes over an older row.
const REPLACE: &str = "key = $2, state = 1, token = $3, attempt = $4, fingerprint = $5, lease_ms = $6, ttl_ms = $7, \
     lease_until = clock_timestamp() + $6 * interval '1 millisecond', \
     expires_at = clock_timestamp() + ($6 + $7) * interval '1 millisecond', \
     sweep_at = clock_timestamp() + ($6 + $7) * interval '1 millisecond', payload = NULL";

/// What is read of a row, as [`crate::record::Row`] has it. `renewed` is the row of its lease, if it has one.
const RECORD: &str = "record.state, record.token, record.attempt, record.fingerprint, record.lease_ms, record.ttl_ms, \
     record.payload, greatest(record.expires_at, renewed.expires_at) <= clock_timestamp() AS expired, \
     ceil(extract(epoch FROM greatest(record.lease_until, renewed.lease_until) - clock_timestamp()) * 1000)::bigint \
     AS remaining";

/// How long a lease that is over is kept: longer than a statement takes that has seen its claim in place.
const GRACE: &str = "interval '1 minute'";

impl Statements {
    pub(crate) fn on(name: &Name) -> Self {
        let records = &name.qualified();
        let leases = &name.qualified_with("_leases");
        let text = |text: String| AssertSqlSafe(text).into_sql_str().clone();
        // A claim in place, whose owner has the token `$2`.
        let own = format!(
            "id = $1 AND state = 1 AND token = $2 AND (expires_at > clock_timestamp() OR EXISTS (SELECT FROM {leases} \
             AS renewed WHERE renewed.id = $1 AND renewed.token = $2 AND renewed.expires_at > clock_timestamp()))"
        );
        // Ends the lease of the claims that `whose` selects, unless a renewal was faster.
        let seize = |whose: &str, unless_renewed: &str| {
            format!(
                "WITH seized AS (INSERT INTO {leases} AS renewed (id, token, lease_until, expires_at, is_over) \
                 SELECT id, token, clock_timestamp(), clock_timestamp(), true FROM {records} WHERE id = $1 AND state = 1 AND {whose} \
                 ON CONFLICT (id, token) DO UPDATE SET is_over = true, lease_until = clock_timestamp(), \
                 expires_at = clock_timestamp() WHERE renewed.{unless_renewed} <= clock_timestamp() \
                 RETURNING token) "
            )
        };
        // Whoever waits holds the lock. Where nobody does, it is held until the end of this transaction, so that whoever
        // comes to wait meanwhile is sent to look again.
        let tell = |lock: &str, channel: &str, message: &str| {
            format!(
                "RETURNING CASE WHEN NOT pg_try_advisory_xact_lock({lock}) THEN pg_notify({channel}, {message})::text END"
            )
        };
        let completed = "state = $3, payload = $4, expires_at = clock_timestamp() + ttl_ms * interval '1 millisecond', \
             sweep_at = greatest(sweep_at, clock_timestamp() + ttl_ms * interval '1 millisecond')";
        Self {
            // What is there is looked for once, before anything is written: a replay writes nothing, and waits for nobody.
            claim: text(format!(
                "WITH found AS MATERIALIZED (SELECT {RECORD} FROM {records} AS record LEFT JOIN {leases} AS renewed \
                 ON record.state = 1 AND renewed.id = record.id AND renewed.token = record.token WHERE record.id = $1), \
                 claimed AS (INSERT INTO {records} \
                 (id, key, state, token, attempt, fingerprint, lease_ms, ttl_ms, lease_until, expires_at, sweep_at) \
                 SELECT $1, $2, 1, $3, $4, $5, $6, $7, clock_timestamp() + $6 * interval '1 millisecond', \
                 clock_timestamp() + ($6 + $7) * interval '1 millisecond', \
                 clock_timestamp() + ($6 + $7) * interval '1 millisecond' WHERE NOT EXISTS (SELECT FROM found) \
                 ON CONFLICT (id) DO NOTHING RETURNING true) \
                 SELECT * FROM found \
                 UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM claimed"
            )),
            claim_expired: text(format!(
                "{} UPDATE {records} SET {REPLACE} WHERE id = $1 AND expires_at <= clock_timestamp() \
                 AND (state <> 1 OR token IN (SELECT token FROM seized)) RETURNING true",
                seize("expires_at <= clock_timestamp()", "expires_at")
            )),
            take_over: text(format!(
                "{} UPDATE {records} SET {REPLACE} \
                 WHERE id = $1 AND state = 1 AND token = $8 AND EXISTS (SELECT FROM seized) RETURNING true",
                seize("token = $8 AND lease_until <= clock_timestamp()", "lease_until")
            )),
            renew: text(format!(
                "INSERT INTO {leases} AS renewed (id, token, lease_until, expires_at) \
                 SELECT id, token, clock_timestamp() + lease_ms * interval '1 millisecond', \
                 clock_timestamp() + (lease_ms + ttl_ms) * interval '1 millisecond' FROM {records} WHERE {own} \
                 ON CONFLICT (id, token) DO UPDATE SET lease_until = excluded.lease_until, \
                 expires_at = excluded.expires_at WHERE NOT renewed.is_over RETURNING true"
            )),
            // Within its lease it leaves `sweep_at` alone, and so the index.
            complete: text(format!(
                "UPDATE {records} SET {completed} WHERE {own} {}",
                tell("$5", "$6", "$7")
            )),
            complete_in: text(format!(
                "UPDATE {records} SET {completed} WHERE id = $1 AND state = 1 AND token = $2 \
                 AND current_setting('idem.transaction', true) = $8 {}",
                tell("$5", "$6", "$7")
            )),
            is_completed: text(format!(
                "SELECT true FROM {records} \
                 WHERE id = $1 AND token = $2 AND state IN (2, 3) AND expires_at > clock_timestamp()"
            )),
            release: text(format!("DELETE FROM {records} WHERE {own} {}", tell("$3", "$4", "$5"))),
            is_claimed: text(format!("SELECT true FROM {records} WHERE id = $1 AND state = 1")),
            check: text(format!(
                "SELECT count(*) FROM (SELECT FROM {records} LIMIT 1) AS any_record, \
                 (SELECT count(*) FROM (SELECT FROM {leases} LIMIT 1) AS any_lease) AS leases \
                 HAVING current_setting('transaction_read_only') = 'off'"
            )),
            // The time of the statement, unlike that of the clock, lets the index say where to stop. The rows are
            // chosen once, in an array: a plan could otherwise choose anew for each row.
            sweep: text(format!(
                "WITH swept AS (DELETE FROM {records} WHERE id = ANY (ARRAY(SELECT id FROM {records} AS record \
                 WHERE sweep_at <= statement_timestamp() AND expires_at <= statement_timestamp() AND NOT (state = 1 \
                 AND EXISTS (SELECT FROM {leases} AS renewed WHERE renewed.id = record.id \
                 AND renewed.token = record.token AND renewed.expires_at > statement_timestamp())) \
                 ORDER BY sweep_at LIMIT $1 FOR UPDATE SKIP LOCKED)) \
                 RETURNING true) SELECT count(*) FROM swept"
            )),
            sweep_leases: text(format!(
                "DELETE FROM {leases} AS renewed WHERE renewed.lease_until < statement_timestamp() - {GRACE} \
                 AND NOT EXISTS (SELECT FROM {records} AS record WHERE record.id = renewed.id \
                 AND record.token = renewed.token AND record.state = 1)"
            )),
        }
    }
}
