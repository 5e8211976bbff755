//! What `#[idempotent]` is to an HTTP handler, for message consumers, jobs and batches.
//!
//! A broker delivers a message again when an acknowledgement was lost, a consumer died, or a partition moved. A task runs once for all
//! deliveries of a message: each later one gets the result of the first.
//!
//! ```
//! use std::fmt;
//! use std::time::Duration;
//!
//! use idem_task::{Engine, MemoryBackend, Refused, TaskError, TaskExt as _, Verdict};
//!
//! #[derive(Debug)]
//! enum ShipError {
//!     Refused(Refused),
//!     NoSuchAddress,
//! }
//!
//! impl fmt::Display for ShipError {
//!     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
//!         match self {
//!             Self::Refused(refused) => refused.fmt(f),
//!             Self::NoSuchAddress => f.write_str("there is no such address"),
//!         }
//!     }
//! }
//!
//! impl From<Refused> for ShipError {
//!     fn from(refused: Refused) -> Self {
//!         Self::Refused(refused)
//!     }
//! }
//!
//! impl TaskError for ShipError {
//!     fn verdict(&self) -> Verdict {
//!         match self {
//!             Self::Refused(refused) => refused.verdict(),
//!             Self::NoSuchAddress => Verdict::SetAside, // final: the task does not run again
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ShipError> {
//! const WEEK: Duration = Duration::from_hours(7 * 24);
//! let engine = Engine::new(MemoryBackend::new());
//! let ship = async |order: &'static str| {
//!     let task = engine.task("ship").scope(&"orders").key(&order).ttl(WEEK);
//!     task.run(move |execution| async move {
//!         match order {
//!             "nowhere" => Err(ShipError::NoSuchAddress),
//!             order => Ok(format!("{order} was shipped by attempt {}", execution.attempt())),
//!         }
//!     })
//!     .await
//! };
//! assert_eq!(ship("o-1").await?, "o-1 was shipped by attempt 1");
//! assert_eq!(ship("o-1").await?, "o-1 was shipped by attempt 1"); // delivered again, and not shipped again
//! assert_eq!(ship("nowhere").await.map_err(|error| error.verdict()), Err(Verdict::SetAside));
//! # Ok(())
//! # }
//! ```
//!
//! [`idempotent`] writes that for an `async fn`. The modules:
//!
//! | module | owns | does not own |
//! |---|---|---|
//! | [`task`] | what identifies a task, and its settings | the run |
//! | [`execution`] | what a running task knows of itself | |
//! | [`refused`] | why a task has no result, and what to tell the broker | how a broker is told |
//! | [`batch`] | one verdict for each message of a batch, in order | what a message is |
//! | `transaction` | which results commit what a task has written; with the features `postgres` and `sqlite` | commits: `idem-sql` |
//! | `run` | the order of claiming, running, recording and answering | claims, leases, stores |
//! | `stored` | the layout of a recorded result | where it is recorded |
//! | [`guide`] | a program and the choices for each broker | |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod batch;
pub mod execution;
pub mod guide;
pub mod refused;
mod run;
mod stored;
pub mod task;
#[cfg(feature = "transaction")]
mod transaction;

pub use idem_core::steps::{AtLeastOnce, AtMostOnce, Step, StepRun};
pub use idem_core::{
    AfterCrash, Backend, Engine, IdempotencyKey, MemoryBackend, Scope, StepError, StepErrorKind, StepLimits,
};
pub use idem_core::{BackendError, ClaimPolicy};
#[cfg(feature = "macros")]
pub use idem_macros::idempotent_task as idempotent;
#[cfg(feature = "postgres")]
pub use idem_postgres::PostgresBackend;
#[cfg(feature = "redis")]
pub use idem_redis::RedisBackend;
#[cfg(feature = "sqlite")]
pub use idem_sqlite::SqliteBackend;

#[cfg(feature = "transaction")]
pub use idem_sql::{StepBody, StepTransaction, TransactionConnection, TransactionDatabase, sqlx};

pub use self::batch::Batch;
pub use self::execution::{Execution, Steps};
pub use self::refused::{Refused, RefusedKind, TaskError, Verdict, verdict};
pub use self::task::{Task, TaskExt, TaskResult};
#[cfg(feature = "transaction")]
pub use self::transaction::Transaction;

/// What operators see and settle of the records of tasks, by [`Engine::operator`].
pub mod operator {
    pub use idem_core::inspect::*;
    pub use idem_core::{Completion, RecordKey};
}

/// What the expansion of `#[idempotent]` names. Not part of the public interface.
#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod __private {
    pub use crate::task::expansion::{key, never, scope, task};
}
