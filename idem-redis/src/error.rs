//! Converting the client's errors to backend errors.
//!
//! Owns the kind of each error, and whether the call has certainly changed nothing. Does not own which errors end a link:
//! [`Link`](crate::link::Link).

use std::error::Error;
use std::sync::Arc;
use std::{fmt, io};

use idem_core::{BackendError, BackendErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Wraps an error of the client during `what`.
///
/// A wrong password or permission counts as [`BackendErrorKind::Unavailable`], because it can pass as an outage does: an
/// operator may be rotating the password. Outcomes that wait to be recorded wait for that.
pub(crate) fn backend_error(what: &'static str, error: RedisError) -> BackendError {
    let kind = if is_about_permission(&error) {
        BackendErrorKind::Unavailable
    } else {
        kind(&error)
    };
    // A call that was refused or not sent has changed nothing.
    let is_not_written = error.code().is_some_and(is_refusal) || is_not_sent(&error);
    let error = BackendError::new(kind, what).with_source(error);
    if is_not_written { error.not_written() } else { error }
}

/// Whether a server that answers with this code has not executed the command. Other codes may come from a proxy.
fn is_refusal(code: &str) -> bool {
    let codes = [
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "WRONGTYPE",
    ];
    codes.contains(&code)
}

/// Wraps an error of the client while the backend was made. A refusal at that time usually means a wrong configuration.
pub(crate) fn start_error(error: RedisError) -> BackendError {
    let kind = if is_about_permission(&error) {
        BackendErrorKind::Refused
    } else {
        kind(&error)
    };
    BackendError::new(kind, "connecting to Redis").with_source(error)
}

/// The error of a call whose link could not be opened. The server has refused the connection, not the call: a wrong password,
/// too many clients, a database that is loading.
pub(crate) fn not_opened(error: RedisError) -> RedisError {
    let is_told_apart = error.kind() == ErrorKind::InvalidClientConfig || error.kind() == ErrorKind::RESP3NotSupported;
    if is_told_apart || is_not_sent(&error) {
        return error;
    }
    let kind = if error.is_timeout() {
        io::ErrorKind::TimedOut
    } else {
        io::ErrorKind::Other
    };
    io::Error::new(kind, NotSent(error)).into()
}

/// The error of a call if there is no link, and it is too early to open another one.
pub(crate) fn too_early() -> RedisError {
    not_opened(io::Error::other("the connection has failed, and the next attempt is not due yet").into())
}

/// Marks the error of a call that was not sent because there was no link.
#[derive(Debug)]
struct NotSent(RedisError);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for NotSent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

fn is_not_sent(error: &RedisError) -> bool {
    // The client wraps shared causes in an `Arc`.
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let cause = cause
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .and_then(io::Error::get_ref);
    cause.is_some_and(<dyn Error + Send + Sync>::is::<NotSent>)
}

fn is_about_permission(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "NOPERM" | "WRONGPASS"))
}

fn kind(error: &RedisError) -> BackendErrorKind {
    match error.code() {
        // Another application has a list, a hash or the like under this key. It must not be taken for absent.
        Some("WRONGTYPE") => return BackendErrorKind::Unreadable,
        // These pass: a slow script, a full disk, full memory, replicas that lag.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_or_not_sent_is_told_from_what_may_have_arrived() {
        let server = |kind| RedisError::from((kind, "said"));
        let readonly = backend_error("claiming", server(ErrorKind::Server(ServerErrorKind::ReadOnly)));
        assert!(readonly.is_not_written(), "{readonly:?}");
        let broken = || RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!backend_error("claiming", broken()).is_not_written());
        let not_sent = backend_error("claiming", not_opened(broken()));
        assert!(not_sent.is_not_written(), "{not_sent:?}");
        assert_eq!(not_sent.kind(), BackendErrorKind::Unavailable);
        let late = RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
        let late = backend_error("claiming", not_opened(not_opened(late)));
        assert!(late.is_not_written(), "{late:?}");
        assert_eq!(late.kind(), BackendErrorKind::Timeout);
        let refused = not_opened(server(ErrorKind::AuthenticationFailed));
        assert_eq!(backend_error("claiming", refused).kind(), BackendErrorKind::Unavailable);
    }
}
