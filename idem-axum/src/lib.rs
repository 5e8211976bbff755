#![doc = include_str!("../README.md")]

mod answer;
mod execution;
mod fingerprint;
#[cfg(fuzzing)]
mod fuzz;
mod guarded;
mod identity;
mod key;
mod layer;
mod policy;
mod problem;
mod run;
mod settings;
mod stored;
#[cfg(feature = "postgres")]
mod transaction;

pub use idem_core::{Backend, BackendError, BackendErrorKind, MemoryBackend};
#[cfg(feature = "macros")]
pub use idem_macros::idempotent;
#[cfg(feature = "postgres")]
pub use idem_postgres::{PostgresBackend, sqlx};
#[cfg(feature = "redis")]
pub use idem_redis::{RedisBackend, RedisClient, redis};

pub use self::execution::{Execution, FencingToken};
pub use self::layer::Idempotency;
pub use self::problem::{IdempotencyProblem, ProblemDetails};
#[cfg(feature = "postgres")]
pub use self::transaction::Transaction;

/// What the expansion of `#[idempotent]` names. Not part of the public interface.
#[doc(hidden)]
pub mod __private {
    use axum::response::IntoResponse;
    pub use axum::response::Response;
    pub use idem_core::{AfterCrash, IdempotencyKey, Scope};

    pub use crate::guarded::{Guard, Guarded, ViaGuard};
    pub use crate::identity::{Comparable, Compared, Identity, SerdeForm};
    pub use crate::policy::{Policy, StoredAnswers};
    pub use crate::run::run;

    /// Spanned on the handler's return type, where a missing implementation is reported.
    pub fn into_response<R: IntoResponse>(answer: R) -> Response {
        answer.into_response()
    }
}

/// The door for the targets in `fuzz`. Not part of the public interface.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::fuzz::{key, read_and_write};
}
