//! From the client's errors to the backend's kinds.

use idem_core::{BackendError, BackendErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Wraps what the client reported while doing `what`.
pub(crate) fn backend_error(what: &'static str, error: RedisError) -> BackendError {
    BackendError::new(kind(&error), what).with_source(error)
}

fn kind(error: &RedisError) -> BackendErrorKind {
    // The key holds a list, a hash, …: somebody else's, and not to be taken for absent.
    if error.code() == Some("WRONGTYPE") {
        return BackendErrorKind::Unreadable;
    }
    match error.kind() {
        _ if error.is_timeout() => BackendErrorKind::Timeout,
        ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => BackendErrorKind::Config,
        ErrorKind::UnexpectedReturnType => BackendErrorKind::Unreadable,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::TryAgain,
        ) => BackendErrorKind::Unavailable,
        ErrorKind::AuthenticationFailed | ErrorKind::Extension | ErrorKind::Server(_) => BackendErrorKind::Refused,
        _ => BackendErrorKind::Unavailable,
    }
}
