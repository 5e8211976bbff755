//! Converting the client's errors to backend errors.
//!
//! Owns the kind of each error, whether the call has certainly changed nothing, and whether the connection is of use afterwards.

use idem_core::{BackendError, BackendErrorKind};

/// Wraps an error of the client during `what`.
pub(crate) fn backend_error(what: &'static str, error: sqlx::Error) -> BackendError {
    let is_undone = code(&error).is_some_and(|code| is_undone(&code));
    let error = repeated_error(what, error);
    if is_undone { error.not_written() } else { error }
}

/// Wraps an error of a statement that was sent before, over a connection that broke. The statement may have taken effect then,
/// whatever the error says about the repetition.
pub(crate) fn repeated_error(what: &'static str, error: sqlx::Error) -> BackendError {
    let kind = kind(&error);
    let code = code(&error);
    let described = match code.as_deref().and_then(advice) {
        Some(advice) => BackendError::new(kind, format!("{what}; {advice}")),
        None => BackendError::new(kind, what),
    };
    described.with_source(error)
}

/// Whether a statement with this error code has certainly changed nothing. Only codes about the statement itself count, because
/// a pooler has codes of its own for a server that it has lost.
fn is_undone(code: &str) -> bool {
    matches!(code, "25006" | "55P03" | "57014" | "40001" | "40P01" | "53100")
        || code.starts_with("42")
        || code.starts_with("22")
}

/// Whether the statement collided with another transaction, so that it may succeed at once if it is repeated.
pub(crate) fn is_collision(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01"))
}

/// Whether the connection is of no use any more after this error: it is broken or being closed, its server takes no writes, or its
/// role lacks a permission.
pub(crate) fn ends_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => code(error).is_some_and(|code| {
            // 57014 (query canceled) is about the statement only.
            let is_about_connection = ["08", "25", "57"].iter().any(|class| code.starts_with(class));
            code == "42501" || is_about_connection && code != "57014"
        }),
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::Decode(_) => false,
        _ => true,
    }
}

pub(crate) fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

fn kind(error: &sqlx::Error) -> BackendErrorKind {
    match error {
        sqlx::Error::Database(_) => code(error).map_or(BackendErrorKind::Refused, |code| kind_of_code(&code)),
        sqlx::Error::Configuration(_) => BackendErrorKind::Config,
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::TypeNotFound { .. } => BackendErrorKind::Unreadable,
        _ => BackendErrorKind::Unavailable,
    }
}

/// The kind of a server's error, by its SQLSTATE.
fn kind_of_code(code: &str) -> BackendErrorKind {
    match code {
        // A statement, or its wait for a row, took longer than the server's settings allow.
        "57014" | "55P03" => BackendErrorKind::Timeout,
        // The server shuts down, starts up or is a replica, or two transactions collided. Or a password, a role or a permission is
        // missing, which passes if an operator is rotating it.
        "57P01" | "57P02" | "57P03" | "57P05" | "25006" | "40001" | "40P01" | "28P01" | "28000" | "42501" => {
            BackendErrorKind::Unavailable
        }
        // The connection failed; or connections, memory or disk have run out.
        _ if code.starts_with("08") || code.starts_with("53") => BackendErrorKind::Unavailable,
        _ if advice(code).is_some() => BackendErrorKind::Config,
        _ => BackendErrorKind::Refused,
    }
}

/// Advice to the operator about an error.
fn advice(code: &str) -> Option<&'static str> {
    match code {
        "42P01" | "3F000" => Some("a table is not there: run `PostgresBackend::migrate`, or see `with_schema`"),
        "42703" => Some("the table is of another version: run `PostgresBackend::migrate`"),
        "3D000" => Some("the database is not there"),
        "26000" | "42P05" => Some(
            "prepared statements get lost between here and the server: a pooler that lends connections for one \
             transaction needs to know them (PgBouncer 1.21, `max_prepared_statements`)",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_was_refused_has_changed_nothing_and_of_a_lost_one_nobody_knows() {
        for refused in ["25006", "57014", "55P03", "53100", "42501"] {
            assert!(is_undone(refused), "{refused}");
        }
        for lost in ["08006", "57P01", "40003", "58000", "XX000", "53300"] {
            assert!(!is_undone(lost), "{lost}");
        }
    }

    #[test]
    fn what_may_pass_is_transient_and_what_the_application_has_to_mend_is_not() {
        for passing in [
            "08006", "40001", "40P01", "53100", "53200", "53300", "57P01", "57P03", "57014", "55P03", "25006", "28P01",
            "28000", "42501",
        ] {
            assert!(BackendError::new(kind_of_code(passing), "").is_transient(), "{passing}");
        }
        for (lasting, kind) in [
            ("XX000", BackendErrorKind::Refused),
            ("42P01", BackendErrorKind::Config),
            ("3F000", BackendErrorKind::Config),
            ("3D000", BackendErrorKind::Config),
            ("26000", BackendErrorKind::Config),
        ] {
            assert_eq!(kind_of_code(lasting), kind, "{lasting}");
        }
    }
}
