#![doc = include_str!("tutorial.md")]

mod answer;
mod described;
mod execution;
mod fingerprint;
#[cfg(fuzzing)]
mod fuzz;
mod guarded;
// Nothing but documentation, so nothing of it is compiled into a service.
#[cfg(any(doc, doctest))]
pub mod guide;
mod identity;
mod integrations;
mod interned;
mod key;
mod layer;
mod markers;
mod observe;
#[cfg(feature = "utoipa")]
pub mod openapi;
mod operation;
mod pieces;
mod policy;
mod problem;
mod request_body;
mod run;
mod settings;
mod stored;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "postgres")]
mod transaction;

pub use idem_core::{AfterCrash, Backend, BackendError, BackendErrorKind, MemoryBackend};
#[cfg(feature = "macros")]
pub use idem_macros::idempotent;
#[cfg(feature = "postgres")]
pub use idem_postgres::{PostgresBackend, sqlx};
#[cfg(feature = "redis")]
pub use idem_redis::{RedisBackend, RedisClient, redis};

pub use self::execution::{Execution, FencingToken};
pub use self::guarded::unguarded;
pub use self::layer::Idempotency;
pub use self::policy::{Compared, InFlight, OnOutage, Policy, StoredAnswers};
pub use self::problem::{IdempotencyProblem, ProblemDetails};
#[cfg(feature = "postgres")]
pub use self::transaction::Transaction;

/// What the expansion of `#[idempotent]` names. Not part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use axum::response::Response;
    pub use futures_util::future::BoxFuture;

    pub use crate::described::DescribedAbove;
    pub use crate::guarded::{
        Compares, ComparesNothing, ComparesRequest, ComparesValue, EngineSource, FromArgument, FromLayer,
        FromLayerByHeader, GivesEngine, Guard, Guarded, ScopedByLast, ViaGuard,
    };
    pub use crate::identity::{Comparable, Identity, Keying, Scoping, SerdeForm, fingerprint, key, scope};
    #[cfg(feature = "utoipa")]
    pub use crate::openapi::mark::Mark;
    pub use crate::operation::Operation;
    pub use crate::run::{Answer, into_response, never, run};
}

/// The door for the targets in `fuzz`, and for `bench/benches`. Not part of the public interface.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::fuzz::{fingerprint, key, read_and_write};
}
