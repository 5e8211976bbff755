//! From the client's errors to the backend's kinds.

use idem_core::{BackendError, BackendErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Wraps what the client reported while doing `what`.
pub(crate) fn backend_error(what: &'static str, error: RedisError) -> BackendError {
    BackendError::new(kind(&error), what).with_source(error)
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
