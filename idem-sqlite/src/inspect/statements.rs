//! The text of the statements of operators.
//!
//! Owns which rows and columns they read and write. Each goes by the key, but for those of a diagnosis.

use idem_core::inspect::HEAD_LEN;
use sqlx::SqlStr;

use crate::table::{COLUMNS, EXPIRED, Name, text};

/// Up to this length, the beginning of a payload is read for a list. SQLite reads a payload as a whole.
const READ_FOR_HEAD: usize = 16 * 1024;

/// How long ago a record must have expired for a diagnosis to say so, in milliseconds.
const LATE_MS: u64 = 60 * 60 * 1000;

/// The text of each statement. Parameters as in [`Statements`](crate::table::Statements).
#[derive(Debug)]
pub(crate) struct OperatorStatements {
    /// `?1` the first key as bytes, `?2` the first key after the last, as text or as bytes, and `?3` the most rows. Returns the
    /// columns with the beginning of the payload, the key as bytes, and the length of the payload.
    pub(crate) scan: SqlStr,
    /// `?1` the most rows. Returns the columns of the rows that were written last, as `scan` does.
    pub(crate) sample: SqlStr,
    /// Returns the columns with the payload, and the name and the bytes of a step: a row for each step, or one without a name.
    pub(crate) inspect: SqlStr,
    /// Returns the columns without the payload.
    pub(crate) look: SqlStr,
    /// Returns the whole row as bytes, of which the version of a record that cannot be read is made.
    pub(crate) whole: SqlStr,
    pub(crate) forget: SqlStr,
    /// `?2` the new token, `?3` when attempt 1 began.
    pub(crate) rerun: SqlStr,
    /// `?2` the new token, `?3` and `?4` the state and the payload of the completion.
    pub(crate) complete: SqlStr,
    /// `?2` the name of a step.
    pub(crate) drop_step: SqlStr,
    /// Returns name and bytes of each step.
    pub(crate) steps: SqlStr,
    /// Returns a row if the record has steps.
    pub(crate) has_steps: SqlStr,
    /// Returns how many records have expired an hour ago or earlier, 1,000 at most, and how long ago the first one has, in
    /// milliseconds.
    pub(crate) late: SqlStr,
    /// Reads every column, and no row.
    pub(crate) columns: SqlStr,
    /// Returns the type and the name of the index and of each trigger that is there.
    pub(crate) beside: SqlStr,
}

/// The columns as one text, each as a literal.
fn quoted_columns() -> String {
    let columns = COLUMNS.split(", ").chain(["payload"]);
    let quoted: Vec<_> = columns.map(|column| format!("quote({column})")).collect();
    quoted.join(" || ',' || ")
}

impl OperatorStatements {
    pub(crate) fn on(name: &Name) -> Self {
        let table = &name.quoted();
        let steps = &name.quoted_with("_steps");
        let plain = name.plain();
        let listed = format!(
            "SELECT {COLUMNS}, CASE WHEN length(payload) <= {READ_FOR_HEAD} THEN substr(payload, 1, {HEAD_LEN}) END, \
             CAST(key AS BLOB), length(payload) FROM {table}"
        );
        Self {
            scan: text(format!(
                "{listed} WHERE key >= CAST(?1 AS TEXT) AND key < ?2 ORDER BY key LIMIT ?3"
            )),
            sample: text(format!("{listed} ORDER BY rowid DESC LIMIT ?1")),
            inspect: text(format!(
                "SELECT {COLUMNS}, payload, step.name, step.step FROM {table} AS record \
                 LEFT JOIN {steps} AS step ON step.key = record.key AND record.state IN (4, 7) WHERE record.key = ?1"
            )),
            look: text(format!("SELECT {COLUMNS}, NULL FROM {table} WHERE key = ?1")),
            whole: text(format!(
                "SELECT CAST({} AS BLOB) FROM {table} WHERE key = ?1",
                quoted_columns()
            )),
            forget: text(format!("DELETE FROM {table} WHERE key = ?1")),
            rerun: text(format!(
                "UPDATE {table} SET state = 7, token = ?2, began_ms = ?3, boot = ?11, lapses_ns = ?12, expires_ms = ?10 WHERE key = ?1"
            )),
            complete: text(format!(
                "UPDATE {table} SET token = ?2, state = ?3, payload = ?4, expires_ms = ?10 WHERE key = ?1"
            )),
            drop_step: text(format!("DELETE FROM {steps} WHERE key = ?1 AND name = ?2")),
            steps: text(format!(
                "SELECT name, step FROM {steps} WHERE key = ?1 AND EXISTS (SELECT 1 FROM {table} WHERE key = ?1 AND state IN (4, 7))"
            )),
            has_steps: text(format!("SELECT 1 FROM {steps} WHERE key = ?1 LIMIT 1")),
            late: text(format!(
                "SELECT count(*), ?13 - min(expires_ms) FROM (SELECT expires_ms FROM {table} \
                 WHERE expires_ms <= ?13 - {LATE_MS} AND {EXPIRED} ORDER BY expires_ms LIMIT 1000)"
            )),
            columns: text(format!(
                "SELECT {COLUMNS}, payload, key, (SELECT max(key, name, step) FROM {steps} LIMIT 1) FROM {table} LIMIT 0"
            )),
            beside: text(format!(
                "SELECT type, name FROM sqlite_schema WHERE type = 'index' AND name = '{plain}_expiry' \
                 OR type = 'trigger' AND name IN ('{plain}_steps_end', '{plain}_steps_deleted')"
            )),
        }
    }
}
