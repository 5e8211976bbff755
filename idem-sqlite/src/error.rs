//! Converting the client's errors to backend errors.
//!
//! Owns the kind of each error, and the advice to the operator. Whether a call has changed something is known where it was made.

use idem_core::{BackendError, BackendErrorKind};

/// Wraps an error of the client during `what`.
pub(crate) fn backend_error(what: &'static str, error: sqlx::Error) -> BackendError {
    let (kind, advice) = sort(&error);
    let described = match advice {
        Some(advice) => BackendError::new(kind, format!("{what}; {advice}")),
        None => BackendError::new(kind, what),
    };
    described.with_source(error)
}

/// Whether another connection holds what the statement needs, so that it may succeed if it is repeated. It has changed nothing.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary(error), Some(BUSY | LOCKED))
}

/// Whether the cause of a refusal may pass: another connection, or a lack of disk or memory.
pub(crate) fn may_pass(error: &sqlx::Error) -> bool {
    sort(error).0 == BackendErrorKind::Unavailable
}

const ERROR: i32 = 1;
const PERM: i32 = 3;
pub(crate) const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NO_MEMORY: i32 = 7;
const READ_ONLY: i32 = 8;
const IO: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;
const PROTOCOL: i32 = 15;
pub(crate) const CONSTRAINT: i32 = 19;
const NOT_A_DATABASE: i32 = 26;

/// SQLite's result code, without its extension.
pub(crate) fn primary(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xFF)
}

fn sort(error: &sqlx::Error) -> (BackendErrorKind, Option<&'static str>) {
    use BackendErrorKind::{Config, Refused, Unavailable, Unreadable};
    match error {
        sqlx::Error::Database(database) => match primary(error) {
            Some(BUSY | LOCKED | PROTOCOL) => (Unavailable, Some("another connection has locked the database")),
            Some(FULL) => (Unavailable, Some("its disk is full")),
            Some(READ_ONLY) => (Unavailable, Some("its file, folder or file system is read-only")),
            Some(CANNOT_OPEN | PERM) => (
                Unavailable,
                Some("its file cannot be opened: check that it exists, and the permissions of file and folder"),
            ),
            Some(NO_MEMORY | IO) => (Unavailable, None),
            Some(CORRUPT | NOT_A_DATABASE) => (Refused, Some("its file is damaged, or is no database of SQLite")),
            Some(ERROR) if database.message().contains("no such table") => (
                Config,
                Some("a table is not there: run `SqliteBackend::migrate`, or see `with_table`"),
            ),
            Some(ERROR) if database.message().contains("column") => (
                Config,
                Some("the table is of another version: run `SqliteBackend::migrate`"),
            ),
            _ => (Refused, None),
        },
        sqlx::Error::Configuration(_) => (Config, None),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::TypeNotFound { .. } => (Unreadable, None),
        _ => (Unavailable, None),
    }
}
