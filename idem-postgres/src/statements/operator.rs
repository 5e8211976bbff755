//! The text of the statements of operators.
//!
//! Owns their atomicity. A settlement is two statements in one transaction at READ COMMITTED: the first one waits for the record's row,
//! and the second one sees everything that was committed until then, also steps. It then ends the claim's lease as a takeover does, so
//! that it and a renewal write the same row and one of the two finds the effect of the other. Rows are locked in the order of all other
//! statements: the record, its lease, its steps.

use idem_core::columns::State;
use idem_core::inspect::{HEAD_LEN, LiveClaim, Phase, STEP_HEAD_LEN, Settlement, StepChange};
use sqlx::SqlStr;

use super::{COMPLETED, RECORD, tell, text};
use crate::table::Name;

/// What follows the columns of a row that an operator sees: how long until the record expires, in milliseconds.
const EXPIRES_IN: &str = "ceil(extract(epoch FROM least(greatest(record.expires_at, renewed.expires_at, \
    clock_timestamp() - interval '100 years'), clock_timestamp() + interval '100 years') - clock_timestamp()) * 1000)::bigint";

/// When the lease of a record ends, in [`RECORD`].
const LEASE_END: &str = "greatest(record.lease_until, renewed.lease_until)";

/// The same within a hundred years. Of an infinite time, which somebody has written by hand, no difference can be told, and one such row
/// must not keep all others from being listed.
const FINITE_LEASE_END: &str = "least(greatest(record.lease_until, renewed.lease_until, clock_timestamp() - interval '100 years'), \
    clock_timestamp() + interval '100 years')";

/// A digest of a row: the version of a record that cannot be read. `bytea_output` does not affect it.
const DIGEST: &str = "substring(sha256(convert_to(ROW(record.state, encode(record.token, 'hex'), record.attempt, \
    encode(record.fingerprint, 'hex'), record.lease_ms, record.ttl_ms, record.began_ms, record.owner, \
    encode(record.payload, 'hex'))::text, 'UTF8')) FROM 1 FOR 16)";

/// What a settlement begins with. An operator who has waited for the record in vain must not have it changed later.
const BEGINNING: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '5s';";

/// The length of an id in bytes.
const ID_LEN: usize = 32;

/// How long ago a record must have been due for a sweep for a diagnosis to say so.
const LATE: &str = "interval '1 hour'";

/// The text of each statement.
pub(crate) struct OperatorStatements {
    /// `$1` the first id, `$2` the most rows. Returns the columns with the beginning of the payload, and the id, the key and the length of
    /// the payload.
    pub(crate) scan: SqlStr,
    /// `$1` id. Returns the columns, and the name and the bytes of a step: a row for each step, or one without a name.
    pub(crate) inspect: SqlStr,
    /// `$1` ids, one after the other. Returns the id and the digest of each row.
    pub(crate) digests: SqlStr,
    /// Removes a row that cannot be read. `$1` id, `$2` its digest, `$3` to `$5` lock of waiters, channel, message. For
    /// [`Wanted::LastOfText`](crate::protocol::Wanted). Returns whether the row is removed.
    pub(crate) forget_unreadable: SqlStr,
    /// Returns how many records should have been swept an hour ago or earlier, 1,000 at most, and for how many seconds the first one is due.
    pub(crate) late: SqlStr,
    records: String,
    leases: String,
    steps: String,
}

impl OperatorStatements {
    pub(super) fn on(name: &Name) -> Self {
        let records = name.qualified();
        let leases = name.qualified_with("_leases");
        let steps = name.qualified_with("_steps");
        // The row of the lease, which is looked up for each record by itself.
        let renewed = format!(
            "LEFT JOIN LATERAL (SELECT lease.lease_until, lease.expires_at FROM {leases} AS lease \
             WHERE record.state IN (1, 4) AND lease.id = record.id AND lease.token = record.token LIMIT 1) AS renewed ON true"
        );
        // Postgres reads the beginning of a payload without the rest.
        let head = format!("substring(record.payload FROM 1 FOR {HEAD_LEN})");
        let record = RECORD.replace(LEASE_END, FINITE_LEASE_END);
        let listed = record.replace("record.payload", &head);
        Self {
            scan: text(format!(
                "SELECT {listed}, {EXPIRES_IN}, record.id, record.key, octet_length(record.payload)::bigint \
                 FROM (SELECT * FROM {records} WHERE id >= $1 ORDER BY id LIMIT $2) AS record {renewed} ORDER BY record.id"
            )),
            inspect: text(format!(
                "SELECT {record}, {EXPIRES_IN}, step.name, step.step FROM {records} AS record {renewed} \
                 LEFT JOIN {steps} AS step ON record.state IN (4, 7) AND step.id = record.id WHERE record.id = $1"
            )),
            // Each row is looked up by itself.
            digests: text(format!(
                "SELECT found.id, found.digest FROM generate_series(1, octet_length($1), {ID_LEN}) AS first \
                 CROSS JOIN LATERAL (SELECT record.id, {DIGEST} AS digest FROM {records} AS record \
                 WHERE record.id = substring($1 FROM first FOR {ID_LEN}) LIMIT 1) AS found"
            )),
            forget_unreadable: text(format!(
                "{BEGINNING} SELECT count(*) FROM (SELECT FROM {records} WHERE id = $1 FOR UPDATE) AS locked; \
                 WITH changed AS (DELETE FROM {records} AS record WHERE record.id = $1 AND {DIGEST} = $2 {} AS told) \
                 SELECT EXISTS (SELECT FROM changed), (SELECT count(told) FROM changed)",
                tell("$3", "$4", "$5")
            )),
            // A claim that was renewed has not expired, although its own row says so.
            late: text(format!(
                "SELECT count(*), extract(epoch FROM statement_timestamp() - min(record.sweep_at))::bigint \
                 FROM (SELECT id, token, state, sweep_at, expires_at FROM {records} \
                 WHERE sweep_at <= statement_timestamp() - {LATE} ORDER BY sweep_at LIMIT 1000) AS record {renewed} \
                 WHERE greatest(record.expires_at, renewed.expires_at) <= statement_timestamp() - {LATE}"
            )),
            records,
            leases,
            steps,
        }
    }

    /// The statements that settle a record at `phase`, for [`Wanted::LastOfText`](crate::protocol::Wanted).
    ///
    /// | value | [`Settlement::Forget`] and [`Settlement::Rerun`] | [`Settlement::Complete`] |
    /// |---|---|---|
    /// | `$1`, `$2` | id, token | id, token |
    /// | `$3` to `$5` | lock of waiters, channel, message | state, payload, ttl |
    /// | `$6` to `$8` | signature of the steps, when attempt 1 began, the new token | lock of waiters, channel, message |
    /// | `$9`, `$10` | name and bytes of the step | signature of the steps, the new token |
    ///
    /// Returns whether the record is settled; and if it is not because its claim is live, for how many milliseconds. A lease that was
    /// renewed after the second statement has looked has just begun.
    pub(crate) fn settle(&self, phase: Phase, settlement: &Settlement, live: LiveClaim) -> SqlStr {
        let Self { records, .. } = self;
        let change = match settlement {
            Settlement::Rerun { step, .. } if phase != Phase::Completed => self.rerun(step.as_ref()),
            Settlement::Forget | Settlement::Rerun { .. } => {
                let tell = tell("$3", "$4", "$5");
                format!("changed AS (DELETE FROM {records} WHERE id = $1 AND EXISTS (SELECT FROM won) {tell} AS told)")
            }
            Settlement::Complete { .. } => self.complete(),
        };
        let repeated = match settlement {
            Settlement::Forget => "WHERE false".to_owned(),
            Settlement::Rerun { .. } => {
                format!("FROM {records} WHERE id = $1 AND token = $8 AND state = 7 AND expires_at > clock_timestamp()")
            }
            Settlement::Complete { .. } => {
                format!(
                    "FROM {records} WHERE id = $1 AND token = $10 AND state IN (2, 3, 6) AND expires_at > clock_timestamp()"
                )
            }
        };
        let signature = match settlement {
            Settlement::Complete { .. } => "$9",
            Settlement::Forget | Settlement::Rerun { .. } => "$6",
        };
        let won = self.won(phase, live, signature);
        text(format!(
            "{BEGINNING} SELECT count(*) FROM (SELECT FROM {records} WHERE id = $1 FOR UPDATE) AS locked; \
             WITH repeated AS MATERIALIZED (SELECT {repeated}), {won}, {change} \
             SELECT EXISTS (SELECT FROM repeated) OR EXISTS (SELECT FROM won), \
             (SELECT CASE WHEN remaining > 0 THEN remaining ELSE lease_ms END FROM found), (SELECT count(told) FROM changed)"
        ))
    }

    /// The record that is at the version of the operator, as `found`; and as `won`, if it may be settled. Ends its lease then.
    fn won(&self, phase: Phase, live: LiveClaim, signature: &str) -> String {
        let Self {
            records, leases, steps, ..
        } = self;
        let states: Vec<_> = State::of_phase(phase).map(|state| state.number().to_string()).collect();
        let states = states.join(", ");
        let (has_lapsed, is_not_renewed) = match live {
            LiveClaim::Force => ("true", "true"),
            LiveClaim::Refuse => ("remaining <= 0", "renewed.lease_until <= clock_timestamp()"),
        };
        format!(
            "found AS MATERIALIZED (SELECT record.id, record.token, record.state, record.lease_ms, \
             ceil(extract(epoch FROM {FINITE_LEASE_END} - clock_timestamp()) * 1000)::bigint AS remaining FROM {records} AS record LEFT JOIN {leases} AS renewed \
             ON record.state IN (1, 4) AND renewed.id = record.id AND renewed.token = record.token \
             WHERE record.id = $1 AND record.token = $2 AND record.state IN ({states}) \
             AND greatest(record.expires_at, renewed.expires_at) > clock_timestamp() AND NOT EXISTS (SELECT FROM repeated) \
             AND coalesce((SELECT string_agg(name || '=' || encode(substring(step FROM 1 FOR {STEP_HEAD_LEN}), 'hex'), ',' \
             ORDER BY name COLLATE \"C\") FROM {steps} WHERE id = $1 AND record.state IN (4, 7)), '') = {signature}), \
             seized AS (INSERT INTO {leases} AS renewed (id, token, lease_until, expires_at, is_over) \
             SELECT id, token, clock_timestamp(), clock_timestamp(), true FROM found WHERE state IN (1, 4) AND {has_lapsed} \
             ON CONFLICT (id, token) DO UPDATE SET is_over = true, lease_until = clock_timestamp(), \
             expires_at = clock_timestamp() WHERE {is_not_renewed} RETURNING id), \
             won AS MATERIALIZED (SELECT id FROM found WHERE state NOT IN (1, 4) UNION ALL SELECT id FROM seized)"
        )
    }

    /// Parks the record if it has steps after the change, and deletes it otherwise. Its steps are deleted with it. Steps beside a claim
    /// without steps (state 1) were left behind by an earlier record.
    fn rerun(&self, step: Option<&StepChange>) -> String {
        let Self { records, steps, .. } = self;
        let tell = tell("$3", "$4", "$5");
        let (has_steps, change) = match step {
            None => (
                format!("state IN (4, 7) AND EXISTS (SELECT FROM {steps} WHERE id = $1)"),
                String::new(),
            ),
            Some(StepChange::Done { .. }) => (
                "true".to_owned(),
                format!(
                    ", left_behind AS (DELETE FROM {steps} WHERE id = $1 AND name <> $9 AND EXISTS (SELECT FROM parked) \
                     AND (SELECT state FROM found) = 1), written AS (INSERT INTO {steps} (id, name, step) SELECT id, $9, $10 FROM won \
                     ON CONFLICT (id, name) DO UPDATE SET step = excluded.step)"
                ),
            ),
            Some(StepChange::NotDone { .. }) => (
                format!("state IN (4, 7) AND EXISTS (SELECT FROM {steps} WHERE id = $1 AND name <> $9)"),
                format!(
                    ", dropped AS (DELETE FROM {steps} WHERE id = $1 AND name = $9 AND EXISTS (SELECT FROM parked))"
                ),
            ),
        };
        format!(
            "parked AS (UPDATE {records} SET state = 7, began_ms = $7, token = $8, lease_until = clock_timestamp(), \
             expires_at = clock_timestamp() + ttl_ms * interval '1 millisecond', \
             sweep_at = greatest(sweep_at, clock_timestamp() + ttl_ms * interval '1 millisecond') \
             WHERE id = $1 AND EXISTS (SELECT FROM won) AND ({has_steps}) {tell} AS told), \
             gone AS (DELETE FROM {records} WHERE id = $1 AND EXISTS (SELECT FROM won) AND NOT ({has_steps}) {tell} AS told), \
             changed AS (SELECT told FROM parked UNION ALL SELECT told FROM gone){change}"
        )
    }

    /// Completes the record, and deletes its steps.
    fn complete(&self) -> String {
        let Self { records, steps, .. } = self;
        let tell = tell("$6", "$7", "$8");
        format!(
            "changed AS (UPDATE {records} SET token = $10, {COMPLETED} WHERE id = $1 AND EXISTS (SELECT FROM won) {tell} AS told), \
             gone AS (DELETE FROM {steps} WHERE id = $1 AND EXISTS (SELECT FROM changed))"
        )
    }
}
