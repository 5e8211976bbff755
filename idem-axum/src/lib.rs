#![doc = include_str!("tutorial.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bounds;
mod captured;
mod described;
mod engine_source;
mod execution;
mod guarded;
// Nothing but documentation, so nothing of it is compiled into a service.
#[cfg(any(doc, doctest))]
pub mod guide;
mod idempotency;
mod identity;
mod integrations;
mod layer;
mod memory_notice;
#[cfg(feature = "utoipa")]
pub mod openapi;
mod problem;
mod request_body;
mod run;
mod steps;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "transaction")]
mod transaction;

pub use idem_core::{AfterCrash, Backend, BackendError, BackendErrorKind, MemoryBackend};
#[cfg(feature = "macros")]
pub use idem_macros::idempotent;
#[cfg(feature = "postgres")]
pub use idem_postgres::PostgresBackend;
#[cfg(feature = "redis")]
pub use idem_redis::{RedisBackend, RedisClient, redis};
#[cfg(feature = "sqlite")]
pub use idem_sqlite::SqliteBackend;
/// The client of Postgres and SQLite whose pools their backends take.
#[cfg(feature = "transaction")]
pub use sqlx;

pub use idem_http::{Compared, IdempotencyProblem, InFlight, OnOutage, Policy, StoredAnswers, Verdict};

pub use self::execution::{Execution, FencingToken};
pub use self::guarded::unguarded;
pub use self::idempotency::Idempotency;
pub use self::layer::{IdempotencyLayer, IdempotencyService, NoScope, RequestScope, Scoped};
pub use self::problem::ProblemDetails;
pub use self::steps::{StepError, Steps};
#[cfg(feature = "transaction")]
pub use self::transaction::{Joint, JointError, JointErrorKind, JointRecord, Transaction};
pub use idem_core::steps::{AtLeastOnce, AtMostOnce, Reconciled, Step, StepErrorKind, StepLimits, StepRun};
#[cfg(feature = "transaction")]
pub use idem_sql::{StepBody, StepTransaction, TransactionConnection, TransactionDatabase};

/// What operators see and settle of a service's records, by [`Idempotency::operator`].
pub mod operator {
    pub use idem_core::inspect::*;
    pub use idem_core::{Completion, IdempotencyKey, RecordKey, Scope};
    pub use idem_http::stored::{decode as decode_answer, encode as encode_answer};
    pub use idem_http::why;
}

/// What the expansion of `#[idempotent]` names. Not part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use axum::response::Response;
    pub use futures_util::future::BoxFuture;

    pub use crate::described::DescribedAbove;
    pub use idem_http::Operation;

    pub use crate::engine_source::{
        Compares, ComparesNothing, ComparesRequest, ComparesValue, EngineSource, FromArgument, FromLayer,
        FromLayerByHeader, ScopedByLast,
    };
    pub use crate::guarded::{Guard, Guarded, ViaGuard};
    pub use crate::identity::{Identity, SerdeForm, fingerprint, key, scope};
    #[cfg(feature = "utoipa")]
    pub use crate::openapi::mark::Mark;
    pub use crate::run::{into_response, never, run};
}
