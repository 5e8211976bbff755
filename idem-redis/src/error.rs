//! From the client's errors to the backend's kinds.

use std::io;

use idem_core::{BackendError, BackendErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Wraps what the client reported while doing `what`.
///
/// A permission or a password that is wrong now passes as an outage does: somebody rotates it, or takes it back. What
/// waits to be recorded waits for that.
pub(crate) fn backend_error(what: &'static str, error: RedisError) -> BackendError {
    let kind = if is_about_permission(&error) {
        BackendErrorKind::Unavailable
    } else {
        kind(&error)
    };
    BackendError::new(kind, what).with_source(error)
}

/// Wraps what the client reported when the backend was made. What is refused then is mostly not set up as it should be.
pub(crate) fn start_error(error: RedisError) -> BackendError {
    let kind = if is_about_permission(&error) {
        BackendErrorKind::Refused
    } else {
        kind(&error)
    };
    BackendError::new(kind, "connecting to Redis").with_source(error)
}

/// What a call is told whose link could not be opened. Whatever the server said to that, it has refused a connection, and
/// not the call: a wrong password, too many clients, a database that is loading.
pub(crate) fn not_opened(error: RedisError) -> RedisError {
    match kind(&error) {
        BackendErrorKind::Refused | BackendErrorKind::Unreadable => io::Error::other(error).into(),
        _ => error,
    }
}

fn is_about_permission(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "NOPERM" | "WRONGPASS"))
}

fn kind(error: &RedisError) -> BackendErrorKind {
    match error.code() {
        // The key holds a list, a hash, …: somebody else's, and not to be taken for absent.
        Some("WRONGTYPE") => return BackendErrorKind::Unreadable,
        // What passes by itself: a slow script, a disk or memory that is full, replicas that lag.
        Some("BUSY" | "MISCONF" | "NOREPLICAS" | "OOM") => return BackendErrorKind::Unavailable,
        _ => {}
    }
    match error.kind() {
        _ if error.is_timeout() => BackendErrorKind::Timeout,
        ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => BackendErrorKind::Config,
        ErrorKind::UnexpectedReturnType => BackendErrorKind::Unreadable,
        ErrorKind::Server(
            ServerErrorKind::Ask
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::Moved
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::TryAgain,
        ) => BackendErrorKind::Unavailable,
        ErrorKind::AuthenticationFailed | ErrorKind::Extension | ErrorKind::Server(_) => BackendErrorKind::Refused,
        _ => BackendErrorKind::Unavailable,
    }
}
