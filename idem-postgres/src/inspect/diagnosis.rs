//! Whether the server and the tables are as they should be.
//!
//! Owns the checks.

use idem_core::inspect::Finding;
use idem_core::{Backend as _, BackendError};

use crate::PostgresBackend;

/// All findings. Fails if the server cannot be reached.
pub(super) async fn diagnose(backend: &PostgresBackend) -> Result<Vec<Finding>, BackendError> {
    backend.check().await?;
    Ok(vec![Finding::good(
        "writing",
        "the tables can be read, and the server takes writes",
    )])
}
