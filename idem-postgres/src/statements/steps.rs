//! The text of the statements about records with steps.
//!
//! Owns their atomicity. The lease's row decides between recording a step and a takeover, as for a renewal. The record's row, which is
//! written each time, decides between recording a step and the end of the claim.
//!
//! A version from before steps reads the expiry of such a record in the record's row alone, and claims over a row that has expired. So
//! the row's expiry is put off before it is near.

use sqlx::SqlStr;

use super::{COMPLETED, IN_TRANSACTION, may_renew, own, tell, text};
use crate::table::Name;

/// Whether the row expires in less than half of the ttl, or before two leases have passed. So a row is written a few times in its ttl at
/// most, because a handler's transaction above READ COMMITTED cannot record a step in a row that has changed after its snapshot.
const IS_NEAR: &str = "expires_at <= clock_timestamp() + (2 * lease_ms + ttl_ms / 2) * interval '1 millisecond'";

const PUT_OFF: &str = "clock_timestamp() + (lease_ms + ttl_ms) * interval '1 millisecond'";

/// The text of each statement.
pub(crate) struct StepStatements {
    /// As `complete`, and deletes the steps.
    pub(crate) complete: SqlStr,
    /// As `complete_in`, and deletes the steps.
    pub(crate) complete_in: SqlStr,
    /// As `complete_by_hand`, and deletes the steps.
    pub(crate) complete_by_hand: SqlStr,
    /// `$1` id, `$2` token, `$3` name, `$4` step, `$5` the state with steps if the owner knows of a step, otherwise the one without. Returns
    /// whether the steps are lost; if they are not, the step is recorded. No row if
    /// the claim is not in place. Whether they are lost is told by one snapshot: of two first steps, one waits for the other.
    pub(crate) record: SqlStr,
    /// Records a step in a handler's transaction. Values as for `record`, and `$6` the mark of the transaction. Returns a row if
    /// the step is recorded. Does not renew the lease, because the transaction's snapshot may be older than the last renewal, but puts the
    /// expiry off, so that no claim of the next request is written over the record meanwhile.
    pub(crate) record_in: SqlStr,
    /// `$1` id, `$2` token. Returns a row if the lease was renewed. Locks the record first if its row is written, as a takeover does.
    pub(crate) renew: SqlStr,
    /// `$1` id, `$2` token. Returns a row with `NULL`s if the claim is in place, and a row for each of its steps.
    pub(crate) read: SqlStr,
    /// `$1` id, `$2` token, `$3` lock of waiters, `$4` channel, `$5` message. Returns a row if the claim was parked or released.
    pub(crate) park: SqlStr,
}

/// Renews the lease of the claim that `from` selects.
fn renewed(records: &str, leases: &str, from: &str) -> String {
    format!(
        "renewed AS (INSERT INTO {leases} AS renewed (id, token, lease_until, expires_at) \
         SELECT id, token, clock_timestamp() + lease_ms * interval '1 millisecond', {PUT_OFF} FROM {from} \
         ON CONFLICT (id, token) DO UPDATE SET lease_until = excluded.lease_until, \
         expires_at = excluded.expires_at, is_over = false WHERE {} RETURNING id)",
        may_renew(records)
    )
}

/// Puts the expiry of a row off if it is near. Otherwise the columns do not change, nor does the index.
fn put_off() -> String {
    format!(
        "expires_at = CASE WHEN {IS_NEAR} THEN {PUT_OFF} ELSE expires_at END, \
         sweep_at = CASE WHEN {IS_NEAR} THEN greatest(sweep_at, {PUT_OFF}) ELSE sweep_at END"
    )
}

fn renew(records: &str, leases: &str, own: &str, token: &str) -> String {
    // The count is compared so that the lock is taken first, and with any result.
    let renewed = renewed(
        records,
        leases,
        &format!("{records} WHERE {own} AND (SELECT count(*) FROM near) >= 0"),
    );
    format!(
        "WITH near AS MATERIALIZED (SELECT id FROM {records} WHERE {own} AND state = 4 AND {IS_NEAR} FOR NO KEY UPDATE), \
         {renewed}, written AS (UPDATE {records} SET {} WHERE {token} AND id IN (SELECT id FROM near) \
         AND EXISTS (SELECT FROM renewed)) SELECT true FROM renewed",
        put_off()
    )
}

impl StepStatements {
    pub(super) fn on(name: &Name) -> Self {
        let records = &name.qualified();
        let leases = &name.qualified_with("_leases");
        let steps = &name.qualified_with("_steps");
        let own = own(leases);
        let token = "id = $1 AND state IN (1, 4) AND token = $2";
        // The record says that it has steps and there are none, or the owner knows that it had some.
        let lost = format!("(state < $5 OR state = 4 AND NOT EXISTS (SELECT FROM {steps} AS step WHERE step.id = $1))");
        let write = format!(
            "written AS (INSERT INTO {steps} (id, name, step) SELECT id, $3, $4 FROM held \
             ON CONFLICT (id, name) DO UPDATE SET step = excluded.step)"
        );
        let put_off = put_off();
        let complete = |whose: &str| {
            let tell = tell("$6", "$7", "$8");
            text(format!(
                "WITH ended AS (UPDATE {records} SET {COMPLETED} WHERE {whose} {tell} AS told), \
                 gone AS (DELETE FROM {steps} WHERE id = $1 AND EXISTS (SELECT FROM ended)) SELECT told FROM ended"
            ))
        };
        Self {
            complete: complete(&own),
            complete_in: complete(&format!("{token} AND current_setting('idem.transaction', true) = $9")),
            complete_by_hand: complete(&format!("{token} AND {IN_TRANSACTION}")),
            record: text(format!(
                "WITH lost AS MATERIALIZED (SELECT FROM {records} AS record WHERE {own} AND {lost}), \
                 locked AS MATERIALIZED (SELECT id, token, lease_ms, ttl_ms FROM {records} \
                 WHERE {own} AND NOT EXISTS (SELECT FROM lost) FOR NO KEY UPDATE), \
                 {}, \
                 held AS (UPDATE {records} SET state = 4, {put_off} WHERE {token} AND EXISTS (SELECT FROM renewed) \
                 RETURNING id), {write} SELECT false FROM held UNION ALL SELECT true FROM lost",
                renewed(records, leases, "locked"),
            )),
            renew: text(renew(records, leases, &own, token)),
            record_in: text(format!(
                "WITH lost AS MATERIALIZED (SELECT FROM {records} AS record WHERE {token} AND {lost}), \
                 held AS (UPDATE {records} SET state = 4, expires_at = greatest(expires_at, {PUT_OFF}) \
                 WHERE {token} AND NOT EXISTS (SELECT FROM lost) \
                 AND current_setting('idem.transaction', true) = $6 RETURNING id), {write} SELECT true FROM held"
            )),
            read: text(format!(
                "SELECT step.name, step.step FROM (SELECT id FROM {records} WHERE {own}) AS record \
                 LEFT JOIN {steps} AS step ON step.id = record.id"
            )),
            // The lock first: a transaction of the handler's that records a step may be about to end.
            park: text(format!(
                "WITH locked AS MATERIALIZED (SELECT id, state FROM {records} WHERE {own} FOR UPDATE), \
                 parked AS (UPDATE {records} AS record SET state = 7, lease_until = clock_timestamp(), \
                 expires_at = clock_timestamp() + ttl_ms * interval '1 millisecond', \
                 sweep_at = greatest(sweep_at, clock_timestamp() + ttl_ms * interval '1 millisecond') \
                 FROM locked WHERE record.id = locked.id AND locked.state = 4 {tell} AS told), \
                 released AS (DELETE FROM {records} AS record USING locked \
                 WHERE record.id = locked.id AND locked.state = 1 {tell} AS told) \
                 SELECT told FROM parked UNION ALL SELECT told FROM released \
                 UNION ALL SELECT NULL FROM {records} WHERE id = $1 AND token = $2 AND state = 7",
                tell = tell("$3", "$4", "$5"),
            )),
        }
    }
}
