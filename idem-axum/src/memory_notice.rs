//! The warning that records of real clients are in this process's memory.
//!
//! Owns when it is written: once for each [`Idempotency`](crate::Idempotency), with the first claim of a request that came over
//! a connection. Tests that call a router directly send requests without a host, and stay silent.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::header::HOST;
use axum::http::{HeaderMap, Uri};

/// Whether the warning is still to be written.
#[derive(Debug)]
pub(crate) struct MemoryNotice {
    is_due: AtomicBool,
}

impl MemoryNotice {
    /// It is due if records are kept in this process.
    pub(crate) fn new(is_in_process: bool) -> Self {
        Self {
            is_due: is_in_process.into(),
        }
    }

    /// Whether it is worth a look at where a request came from.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due.load(Ordering::Relaxed)
    }

    /// Writes the warning, if that has not been done.
    pub(crate) fn write(&self) {
        if self.is_due() && self.is_due.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                "clients are served over a connection, and their records are in this process's memory: the records are lost when the \
                 process ends, and other processes do not see them. `MemoryBackend` is for tests: keep the records of one machine in a \
                 file, by `SqliteBackend`, and those of many machines in Redis or Postgres"
            );
        }
    }
}

/// Whether a request came over a connection: a client of HTTP/1.1 sends `Host`, and one of HTTP/2 an authority.
pub(crate) fn came_over_a_connection(uri: &Uri, headers: &HeaderMap) -> bool {
    uri.authority().is_some() || headers.contains_key(HOST)
}
