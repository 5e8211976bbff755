//! The text of the statements, for one table.
//!
//! Owns the atomicity of each statement. If a row changes while a statement waits for it, Postgres checks the row's conditions
//! again before it is written. A renewal and a takeover of one claim write the same row in the table of leases, so that one of
//! the two finds the effect of the other. Does not own how a statement is sent: [`protocol`](crate::protocol).

mod operator;
mod steps;

use idem_core::Claim;
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

pub(crate) use self::operator::OperatorStatements;
pub(crate) use self::steps::StepStatements;
use crate::table::Name;

/// The text of each statement.
pub(crate) struct Statements {
    /// `$1` id, `$2` key, `$3` token, `$4` attempt, `$5` fingerprint, `$6` lease, `$7` ttl, `$8` when attempt 1 began, `$9` owner.
    /// Returns the existing row, or a row of `NULL`s if the claim was written, or no row if another claim was written in between.
    pub(crate) claim: SqlStr,
    /// Claims over an expired row. Values as for `claim`. Returns a row if the claim was written.
    pub(crate) claim_expired: SqlStr,
    /// Takes over a lapsed claim, or a parked one. Values as for `claim`, `$10` the lapsed token, and `$11` the lapsed claim's state: a
    /// claim that has got its first step since it was read is not the same. Returns a row if the claim was written.
    pub(crate) take_over: SqlStr,
    /// `$1` id, `$2` token. Returns a row if the lease was renewed.
    pub(crate) renew: SqlStr,
    /// `$1` id, `$2` token, `$3` state, `$4` payload, `$5` ttl, `$6` lock of waiters, `$7` channel, `$8` message. Returns a row if
    /// the claim was completed.
    pub(crate) complete: SqlStr,
    /// Completes in a handler's transaction. Values as for `complete`, and `$9` the mark of the transaction. The transaction's
    /// snapshot may be older than the last renewal, so the statement does not check whether the claim has expired. The row with
    /// this token exists until another claim replaces it.
    pub(crate) complete_in: SqlStr,
    /// Completes in a transaction of another client. Values as for `complete`. Does not check whether the claim has expired, as
    /// `complete_in` does not. Fails if no transaction was begun in an earlier message.
    pub(crate) complete_by_hand: SqlStr,
    /// `$1` id, `$2` token. Returns a row if that claim has been completed.
    pub(crate) is_completed: SqlStr,
    /// `$1` id, `$2` token. Returns a row, which says whether the claim has been completed, if the record is of that claim, also
    /// if it has expired.
    pub(crate) has_ended: SqlStr,
    /// `$1` id, `$2` token, `$3` lock of waiters, `$4` channel, `$5` message. Returns a row if the claim was released.
    pub(crate) release: SqlStr,
    /// `$1` id. Returns the row.
    pub(crate) read: SqlStr,
    /// `$1` id. Returns a row if the record is a claim.
    pub(crate) is_claimed: SqlStr,
    /// Returns a row if the tables can be read and the server takes writes.
    pub(crate) check: SqlStr,
    /// `$1` the most rows to delete. Returns their number.
    pub(crate) sweep: SqlStr,
    /// Deletes leases whose claim has ended.
    pub(crate) sweep_leases: SqlStr,
    /// Those about records with steps.
    pub(crate) steps: StepStatements,
    /// Those of operators.
    pub(crate) operator: OperatorStatements,
}

/// The columns that a claim writes over an older row.
const REPLACE: &str = "key = $2, token = $3, attempt = $4, fingerprint = $5, lease_ms = $6, ttl_ms = $7, \
     began_ms = $8, owner = $9, \
     lease_until = clock_timestamp() + $6 * interval '1 millisecond', \
     expires_at = clock_timestamp() + ($6 + $7) * interval '1 millisecond', \
     sweep_at = clock_timestamp() + ($6 + $7) * interval '1 millisecond', payload = NULL";

/// The columns that are read of a row, in the order of [`crate::record::Row`]. `renewed` is the row of its lease, if there is one.
const RECORD: &str = "record.state, record.token, record.attempt, record.fingerprint, record.lease_ms, record.ttl_ms, \
     record.began_ms, record.owner, record.payload, greatest(record.expires_at, renewed.expires_at) <= clock_timestamp() AS expired, \
     ceil(extract(epoch FROM greatest(record.lease_until, renewed.lease_until) - clock_timestamp()) * 1000)::bigint \
     AS remaining";

/// Fails where a statement is a transaction by itself: such a statement has the time of its transaction. There is no function that
/// raises an error, so a text that is no boolean says what is wrong. It has the value of a column in it, because a constant would be
/// converted in any case.
const IN_TRANSACTION: &str = "CASE WHEN transaction_timestamp() <> statement_timestamp() THEN true \
     ELSE ('idem: execute this statement in the transaction of the rows, after a BEGIN by itself; state ' || state)::boolean END";

/// How long an ended lease is kept: longer than a statement can take that has seen the lease's claim in place.
const GRACE: &str = "interval '1 minute'";

/// What a completion writes. Within the lease, `sweep_at` does not change, so its index is not updated: unless the outcome is kept for
/// much shorter than usual.
const COMPLETED: &str = "state = $3, payload = $4, expires_at = clock_timestamp() + $5 * interval '1 millisecond', \
     sweep_at = CASE WHEN $5 < ttl_ms / 2 THEN clock_timestamp() + $5 * interval '1 millisecond' \
     ELSE greatest(sweep_at, clock_timestamp() + $5 * interval '1 millisecond') END";

/// The claim with the token `$2`, if it has not expired.
fn own(leases: &str) -> String {
    format!("id = $1 AND state IN (1, 4) AND token = $2 AND {}", lives(leases, "$2"))
}

/// Whether a claim with this token has not expired.
fn lives(leases: &str, token: &str) -> String {
    format!(
        "(expires_at > clock_timestamp() OR EXISTS (SELECT FROM {leases} \
         AS renewed WHERE renewed.id = $1 AND renewed.token = {token} AND renewed.expires_at > clock_timestamp()))"
    )
}

/// Whether the lease of the claim with the token `$2` may be renewed. It may not if it has been ended, unless its owner has repeated the
/// claim since then and has acquired it anew. A renewal that is late does not see that claim, nor the end in its snapshot.
fn may_renew(records: &str) -> String {
    format!(
        "(NOT renewed.is_over OR renewed.lease_until < (SELECT lease_until - lease_ms * interval '1 millisecond' \
         FROM {records} WHERE id = $1 AND token = $2))"
    )
}

/// Tells the waiters. They hold the lock in shared mode. If there are none, this transaction takes the lock until its end. A waiter
/// that comes meanwhile does not get the lock, and is told to look again.
fn tell(lock: &str, channel: &str, message: &str) -> String {
    format!("RETURNING CASE WHEN NOT pg_try_advisory_xact_lock({lock}) THEN pg_notify({channel}, {message})::text END")
}

fn text(text: String) -> SqlStr {
    AssertSqlSafe(text).into_sql_str().clone()
}

impl Statements {
    #[expect(clippy::too_many_lines, reason = "a table of the text of every statement")]
    pub(crate) fn on(name: &Name) -> Self {
        let records = &name.qualified();
        let leases = &name.qualified_with("_leases");
        let steps = &name.qualified_with("_steps");
        let own = own(leases);
        let lives = lives(leases, "$10");
        // Locks the record that `whose` selects, and ends the lease of its claim, unless a renewal was faster. The lock comes first, so
        // that a claim that has changed meanwhile keeps its lease.
        let seize = |whose: &str, unless_renewed: &str| {
            format!(
                "WITH locked AS MATERIALIZED (SELECT id, token, state FROM {records} WHERE id = $1 AND {whose} FOR NO KEY UPDATE), \
                 seized AS (INSERT INTO {leases} AS renewed (id, token, lease_until, expires_at, is_over) \
                 SELECT id, token, clock_timestamp(), clock_timestamp(), true FROM locked WHERE state IN (1, 4) \
                 ON CONFLICT (id, token) DO UPDATE SET is_over = true, lease_until = clock_timestamp(), \
                 expires_at = clock_timestamp() WHERE renewed.{unless_renewed} <= clock_timestamp() \
                 RETURNING token) "
            )
        };
        Self {
            // Reads the existing row first, so that a replay writes nothing and waits for no lock.
            claim: text(format!(
                "WITH found AS MATERIALIZED (SELECT {RECORD} FROM {records} AS record LEFT JOIN {leases} AS renewed \
                 ON record.state IN (1, 4) AND renewed.id = record.id AND renewed.token = record.token WHERE record.id = $1), \
                 claimed AS (INSERT INTO {records} \
                 (id, key, state, token, attempt, fingerprint, lease_ms, ttl_ms, began_ms, owner, lease_until, expires_at, sweep_at) \
                 SELECT $1, $2, 1, $3, $4, $5, $6, $7, $8, $9, clock_timestamp() + $6 * interval '1 millisecond', \
                 clock_timestamp() + ($6 + $7) * interval '1 millisecond', \
                 clock_timestamp() + ($6 + $7) * interval '1 millisecond' WHERE NOT EXISTS (SELECT FROM found) \
                 ON CONFLICT (id) DO NOTHING RETURNING true) \
                 SELECT * FROM found \
                 UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM claimed"
            )),
            claim_expired: text(format!(
                "{}, claimed AS (UPDATE {records} SET state = 1, {REPLACE} WHERE id = $1 AND EXISTS (SELECT FROM locked \
                 WHERE state NOT IN (1, 4) OR token IN (SELECT token FROM seized)) RETURNING true), \
                 gone AS (DELETE FROM {steps} WHERE id = $1 AND EXISTS (SELECT FROM claimed)) SELECT * FROM claimed",
                seize("expires_at <= clock_timestamp()", "expires_at")
            )),
            take_over: text(format!(
                "{} UPDATE {records} SET state = CASE WHEN state IN (4, 7) THEN 4 ELSE 1 END, {REPLACE} \
                 WHERE id = $1 AND EXISTS (SELECT FROM locked WHERE state = 7 OR token IN (SELECT token FROM seized)) RETURNING true",
                seize(
                    // Steps that have expired are not taken over, and the claim is made anew.
                    &format!(
                        "token = $10 AND (state = $11 AND lease_until <= clock_timestamp() AND (state = 1 OR {lives}) \
                         OR state = 7 AND $11 = 4 AND expires_at > clock_timestamp())"
                    ),
                    "lease_until"
                )
            )),
            renew: text(format!(
                "INSERT INTO {leases} AS renewed (id, token, lease_until, expires_at) \
                 SELECT id, token, clock_timestamp() + lease_ms * interval '1 millisecond', \
                 clock_timestamp() + (lease_ms + ttl_ms) * interval '1 millisecond' FROM {records} WHERE {own} \
                 ON CONFLICT (id, token) DO UPDATE SET lease_until = excluded.lease_until, \
                 expires_at = excluded.expires_at, is_over = false WHERE {} RETURNING true",
                may_renew(records)
            )),
            complete: text(format!(
                "UPDATE {records} SET {COMPLETED} WHERE {own} {}",
                tell("$6", "$7", "$8")
            )),
            complete_in: text(format!(
                "UPDATE {records} SET {COMPLETED} WHERE id = $1 AND state IN (1, 4) AND token = $2 \
                 AND current_setting('idem.transaction', true) = $9 {}",
                tell("$6", "$7", "$8")
            )),
            complete_by_hand: text(format!(
                "UPDATE {records} SET {COMPLETED} WHERE id = $1 AND state IN (1, 4) AND token = $2 AND {IN_TRANSACTION} {}",
                tell("$6", "$7", "$8")
            )),
            has_ended: text(format!(
                "SELECT state NOT IN (1, 4, 7) FROM {records} WHERE id = $1 AND token = $2"
            )),
            is_completed: text(format!(
                "SELECT true FROM {records} \
                 WHERE id = $1 AND token = $2 AND state IN (2, 3, 6) AND expires_at > clock_timestamp()"
            )),
            release: text(format!("DELETE FROM {records} WHERE {own} {}", tell("$3", "$4", "$5"))),
            read: text(format!(
                "SELECT {RECORD} FROM {records} AS record LEFT JOIN {leases} AS renewed \
                 ON record.state IN (1, 4) AND renewed.id = record.id AND renewed.token = record.token WHERE record.id = $1"
            )),
            is_claimed: text(format!("SELECT true FROM {records} WHERE id = $1 AND state IN (1, 4)")),
            check: text(format!(
                "SELECT count(*) FROM (SELECT owner FROM {records} LIMIT 1) AS any_record, \
                 (SELECT count(*) FROM (SELECT FROM {leases} LIMIT 1) AS any_lease) AS leases, \
                 (SELECT count(*) FROM (SELECT FROM {steps} LIMIT 1) AS any_step) AS steps \
                 HAVING current_setting('transaction_read_only') = 'off'"
            )),
            // `statement_timestamp()` is constant, unlike `clock_timestamp()`, so the index scan can use it as a bound. The rows
            // are chosen once, in an array; a plan could otherwise run the subquery again for each row.
            sweep: text(format!(
                "WITH swept AS (DELETE FROM {records} WHERE id = ANY (ARRAY(SELECT id FROM {records} AS record \
                 WHERE sweep_at <= statement_timestamp() AND expires_at <= statement_timestamp() AND NOT (state IN (1, 4) \
                 AND EXISTS (SELECT FROM {leases} AS renewed WHERE renewed.id = record.id \
                 AND renewed.token = record.token AND renewed.expires_at > statement_timestamp())) \
                 ORDER BY sweep_at LIMIT $1 FOR UPDATE SKIP LOCKED)) \
                 RETURNING true) SELECT count(*) FROM swept"
            )),
            sweep_leases: text(format!(
                "DELETE FROM {leases} AS renewed WHERE renewed.lease_until < statement_timestamp() - {GRACE} \
                 AND NOT EXISTS (SELECT FROM {records} AS record WHERE record.id = renewed.id \
                 AND record.token = renewed.token AND record.state IN (1, 4))"
            )),
            steps: StepStatements::on(name),
            operator: OperatorStatements::on(name),
        }
    }

    /// The statement that renews the lease of `claim`.
    pub(crate) fn renew_of(&self, claim: &Claim) -> &SqlStr {
        if claim.has_steps {
            &self.steps.renew
        } else {
            &self.renew
        }
    }

    /// The statement that completes `claim`. Only a claim with steps pays for deleting them.
    pub(crate) fn complete_of(&self, claim: &Claim) -> &SqlStr {
        if claim.has_steps {
            &self.steps.complete
        } else {
            &self.complete
        }
    }

    /// The same, in a transaction of another client.
    pub(crate) fn complete_by_hand_of(&self, claim: &Claim) -> &SqlStr {
        if claim.has_steps {
            &self.steps.complete_by_hand
        } else {
            &self.complete_by_hand
        }
    }

    /// The same, in a handler's transaction.
    pub(crate) fn complete_in_of(&self, claim: &Claim) -> &SqlStr {
        if claim.has_steps {
            &self.steps.complete_in
        } else {
            &self.complete_in
        }
    }
}
