//! The table of one backend: its name, its statements and its migrations.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use crate::inspect::OperatorStatements;

/// The longest name, as for the other backends.
const MAX_NAME_LEN: usize = 31;

/// The columns that are read, in this order, with the payload after them.
pub(crate) const COLUMNS: &str =
    "state, token, attempt, fingerprint, lease_ms, ttl_ms, began_ms, owner, boot, lapses_ns, expires_ms";

/// Whether a record has expired.
pub(crate) const EXPIRED: &str = "expires_ms <= ?13 AND (state NOT IN (1, 4) OR boot <> ?11 OR lapses_ns <= ?12)";

/// The name of the table of records.
#[derive(Clone, Debug)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn new() -> Self {
        Self("idem_records".to_owned())
    }

    /// # Panics
    ///
    /// When `name` contains a character that would need escaping, or is too long.
    pub(crate) fn of(name: &str) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        assert!(
            !name.is_empty() && name.len() <= MAX_NAME_LEN && name.bytes().all(plain),
            "the name of a table is 1 to {MAX_NAME_LEN} ASCII letters, digits and `_`"
        );
        Self(name.to_owned())
    }

    pub(crate) fn plain(&self) -> &str {
        &self.0
    }

    pub(crate) fn quoted(&self) -> String {
        self.quoted_with("")
    }

    pub(crate) fn quoted_with(&self, suffix: &str) -> String {
        format!(r#""{}{suffix}""#, self.0)
    }
}

/// The text of every statement.
///
/// Parameters that several statements have in common: `?1` the key, `?2` the token; `?11` the boot id, `?12` now by the boot clock
/// and `?13` now by the time of day, which together tell whether a record has expired.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) read: SqlStr,
    /// Writes a claim where there is no record, or one that has expired. Returns a row if it was written.
    pub(crate) claim: SqlStr,
    /// As `claim`, and also over exactly the claim with token `?14` and the state `?15` whose lease has lapsed, or which is parked and was
    /// seen with steps.
    pub(crate) take_over: SqlStr,
    pub(crate) renew: SqlStr,
    pub(crate) complete: SqlStr,
    /// Completes in a transaction of another client. Values as for `complete`, but none of the clocks: nobody can renew a claim while
    /// the transaction writes. Returns no row, because some clients refuse to execute a statement that does.
    pub(crate) complete_by_hand: String,
    /// Returns a row, which says whether the claim has been completed, if the record is of the claim with this token, also if it has
    /// expired.
    pub(crate) has_ended: SqlStr,
    /// Whether a record is the completion of the claim with this token.
    pub(crate) is_completed: SqlStr,
    pub(crate) release: SqlStr,
    /// `?3` the name and `?4` the bytes of a step; in two statements, of which the first one is this and the second one
    /// `write_step`. `?15` is the state with steps if the owner knows of a step. Returns whether the steps are lost, and writes nothing then.
    pub(crate) hold_for_step: SqlStr,
    /// `?1` the key, `?2` the name and `?3` the bytes of a step.
    pub(crate) write_step: SqlStr,
    /// Returns a row without a name if the claim is in place, and a row for each of its steps.
    pub(crate) read_steps: SqlStr,
    pub(crate) park: SqlStr,
    /// Whether a record is the parked claim with this token.
    pub(crate) is_parked: SqlStr,
    /// Of an array of pairs of a key and a token in hexadecimal digits, the positions of those whose claim is not in place any more.
    pub(crate) ended: SqlStr,
    pub(crate) check: SqlStr,
    pub(crate) sweep: SqlStr,
    /// Those of operators.
    pub(crate) operator: OperatorStatements,
}

/// Writes a claim where there is no record, or over the record that a condition after this selects.
fn insert(table: &str, expired: &str) -> String {
    format!(
        "INSERT INTO {table} (key, state, token, attempt, fingerprint, lease_ms, ttl_ms, began_ms, owner, boot, lapses_ns, \
         expires_ms, payload) VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?11, ?9, ?10, NULL) \
         ON CONFLICT (key) DO UPDATE SET state = CASE WHEN state IN (4, 7) AND NOT ({expired}) THEN 4 ELSE 1 END, token = ?2, attempt = ?3, fingerprint = ?4, lease_ms = ?5, ttl_ms = ?6, \
         began_ms = ?7, owner = ?8, boot = ?11, lapses_ns = ?9, expires_ms = ?10, payload = NULL WHERE"
    )
}

impl Statements {
    pub(crate) fn on(name: &Name) -> Arc<Self> {
        let table = name.quoted();
        let expired = EXPIRED;
        let steps = name.quoted_with("_steps");
        let own = format!("key = ?1 AND state IN (1, 4) AND token = ?2 AND NOT ({expired})");
        let insert = insert(&table, expired);
        let complete = format!("UPDATE {table} SET state = ?3, payload = ?4, expires_ms = ?10");
        Arc::new(Self {
            read: text(format!("SELECT {COLUMNS}, payload FROM {table} WHERE key = ?1")),
            claim: text(format!("{insert} {expired} RETURNING 1")),
            take_over: text(format!(
                "{insert} ({expired}) OR (token = ?14 AND (state = 7 AND ?15 = 4 \
                 OR state = ?15 AND (boot <> ?11 OR lapses_ns <= ?12))) RETURNING 1"
            )),
            renew: text(format!(
                "UPDATE {table} SET boot = ?11, lapses_ns = ?9, expires_ms = ?10 WHERE {own} RETURNING 1"
            )),
            complete: text(format!("{complete} WHERE {own} RETURNING 1")),
            complete_by_hand: format!("{complete} WHERE key = ?1 AND state IN (1, 4) AND token = ?2"),
            has_ended: text(format!(
                "SELECT state NOT IN (1, 4, 7) FROM {table} WHERE key = ?1 AND token = ?2"
            )),
            is_completed: text(format!(
                "SELECT 1 FROM {table} WHERE key = ?1 AND token = ?2 AND state IN (2, 3, 6) AND NOT ({expired})"
            )),
            release: text(format!("DELETE FROM {table} WHERE {own} RETURNING 1")),
            hold_for_step: text(format!(
                "UPDATE {table} SET state = 4, boot = ?11, lapses_ns = ?9, expires_ms = ?10 WHERE {own} \
                 AND state >= ?15 AND NOT (state = 4 AND NOT EXISTS (SELECT 1 FROM {steps} AS step WHERE step.key = ?1)) RETURNING 1"
            )),
            write_step: text(format!(
                "INSERT INTO {steps} (key, name, step) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (key, name) DO UPDATE SET step = ?3"
            )),
            read_steps: text(format!(
                "SELECT step.name, step.step FROM (SELECT key FROM {table} WHERE {own}) AS record \
                 LEFT JOIN {steps} AS step ON step.key = record.key"
            )),
            park: text(format!(
                "UPDATE {table} SET state = 7, boot = ?11, lapses_ns = ?12, expires_ms = ?10 WHERE {own} AND state = 4 RETURNING 1"
            )),
            is_parked: text(format!(
                "SELECT 1 FROM {table} WHERE key = ?1 AND token = ?2 AND state = 7 AND NOT ({expired})"
            )),
            ended: text(format!(
                "SELECT asked.key FROM json_each(?1) AS asked WHERE NOT EXISTS (SELECT 1 FROM {table} AS record \
                 WHERE record.key = asked.value ->> 0 AND record.state IN (1, 4) AND hex(record.token) = asked.value ->> 1)"
            )),
            check: text(format!(
                "SELECT (SELECT owner FROM {table} LIMIT 1), (SELECT name FROM {steps} LIMIT 1)"
            )),
            sweep: text(format!(
                "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {expired} ORDER BY expires_ms LIMIT ?1)"
            )),
            operator: OperatorStatements::on(name),
        })
    }
}

pub(crate) fn text(sql: String) -> SqlStr {
    AssertSqlSafe(sql).into_sql_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_need_escaping_is_not_taken() {
        for name in ["", "a b", "a\"b", "a;b", "a.b", "a-b", "ä", &"a".repeat(32)] {
            assert!(std::panic::catch_unwind(|| Name::of(name)).is_err(), "{name}");
        }
        assert_eq!(Name::of("Shop_1").quoted_with("_expiry"), r#""Shop_1_expiry""#);
    }
}
