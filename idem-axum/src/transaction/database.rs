//! The databases in which a handler's rows and the record of its answer can be committed together.
//!
//! Owns the choice between them. What each of them does is its backend's.

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use idem_core::steps::StepBackend as _;
use idem_core::{Backend, BackendError, Claim, Completion, EndError, Fenced, RecordKey};

/// A backend whose records can be written in a handler's transaction.
#[derive(Clone, Debug)]
pub(crate) enum SqlBackend {
    #[cfg(feature = "postgres")]
    Postgres(idem_postgres::PostgresBackend),
    #[cfg(feature = "sqlite")]
    Sqlite(idem_sqlite::SqliteBackend),
}

/// A transaction that was begun.
#[derive(Debug)]
pub enum Begun {
    #[cfg(feature = "postgres")]
    Postgres(idem_postgres::JointTransaction),
    #[cfg(feature = "sqlite")]
    Sqlite(idem_sqlite::JointTransaction),
}

/// A connection to a database in which the rows of a step can be committed with its record: `sqlx::PgConnection`, with the feature
/// `postgres`, or `sqlx::SqliteConnection`, with the feature `sqlite`.
pub trait TransactionConnection: ConnectionOf + Send + 'static {}

pub trait ConnectionOf: Sized {
    /// The connection, if the transaction is one of this database.
    fn of(begun: &mut Begun) -> Option<&mut Self>;
}

#[cfg(feature = "postgres")]
impl TransactionConnection for sqlx::PgConnection {}

#[cfg(feature = "postgres")]
impl ConnectionOf for sqlx::PgConnection {
    fn of(begun: &mut Begun) -> Option<&mut Self> {
        sqlx::Postgres::connection(begun)
    }
}

#[cfg(feature = "sqlite")]
impl TransactionConnection for sqlx::SqliteConnection {}

#[cfg(feature = "sqlite")]
impl ConnectionOf for sqlx::SqliteConnection {
    fn of(begun: &mut Begun) -> Option<&mut Self> {
        sqlx::Sqlite::connection(begun)
    }
}

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

/// A database whose transaction a handler can take as [`Transaction`](crate::Transaction): `sqlx::Postgres`, with the feature
/// `postgres`, or `sqlx::Sqlite`, with the feature `sqlite`.
pub trait TransactionDatabase: Sealed {}

pub trait Sealed: sqlx::Database {
    const KIND: Kind;

    /// The connection, if the transaction is one of this database.
    fn connection(begun: &mut Begun) -> Option<&mut Self::Connection>;
}

#[cfg(feature = "postgres")]
impl TransactionDatabase for sqlx::Postgres {}

#[cfg(feature = "postgres")]
impl Sealed for sqlx::Postgres {
    const KIND: Kind = Kind::Postgres;

    fn connection(begun: &mut Begun) -> Option<&mut Self::Connection> {
        match begun {
            Begun::Postgres(begun) => Some(begun.connection()),
            #[cfg(feature = "sqlite")]
            Begun::Sqlite(_) => None,
        }
    }
}

#[cfg(feature = "sqlite")]
impl TransactionDatabase for sqlx::Sqlite {}

#[cfg(feature = "sqlite")]
impl Sealed for sqlx::Sqlite {
    const KIND: Kind = Kind::Sqlite;

    fn connection(begun: &mut Begun) -> Option<&mut Self::Connection> {
        match begun {
            #[cfg(feature = "postgres")]
            Begun::Postgres(_) => None,
            Begun::Sqlite(begun) => Some(begun.connection()),
        }
    }
}

impl Kind {
    /// Whether one transaction holds up all others that write, so that a record is not written beside it.
    pub(super) fn has_one_writer(self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => false,
            #[cfg(feature = "sqlite")]
            Self::Sqlite => true,
        }
    }

    /// What a handler wants that takes a transaction in this database, for the log.
    pub(super) fn wants(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "Transaction, which needs records in a `PostgresBackend`",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "Transaction, which needs records in a `SqliteBackend`",
        }
    }
}

impl SqlBackend {
    /// The backend, if it is one of those.
    pub(crate) fn of(backend: &impl Backend) -> Option<Self> {
        let backend: &dyn Any = backend;
        #[cfg(feature = "postgres")]
        if let Some(postgres) = backend.downcast_ref::<idem_postgres::PostgresBackend>() {
            return Some(Self::Postgres(postgres.clone()));
        }
        #[cfg(feature = "sqlite")]
        if let Some(sqlite) = backend.downcast_ref::<idem_sqlite::SqliteBackend>() {
            return Some(Self::Sqlite(sqlite.clone()));
        }
        None
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Kind::Postgres,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Kind::Sqlite,
        }
    }

    pub(crate) async fn begin(&self) -> sqlx::Result<Begun> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => backend.begin().await.map(Begun::Postgres),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.begin().await.map(Begun::Sqlite),
        }
    }
}

impl SqlBackend {
    /// The statement that completes a claim in a transaction of another client.
    pub(super) fn completion_sql(&self, record: (&RecordKey, &Claim), outcome: (&Completion, Duration)) -> String {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => backend.completion_sql(record, outcome),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.completion_sql(record, outcome),
        }
    }

    /// A statement that does nothing, for a handler that runs without a claim.
    pub(super) fn nothing_sql(&self) -> String {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "SELECT WHERE false".to_owned(),
            // Some clients refuse to execute a `SELECT`.
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "DROP TABLE IF EXISTS temp.idem_of_no_request".to_owned(),
        }
    }

    /// Whether a claim has been completed; `None` if its record is gone, or is another claim's.
    pub(super) async fn is_completed(&self, record: &RecordKey, claim: &Claim) -> Result<Option<bool>, BackendError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => backend.is_completed(record, claim).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.is_completed(record, claim).await,
        }
    }

    /// Releases a claim. Waits for the end of a transaction that has completed it.
    pub(super) async fn release(&self, record: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) if claim.has_steps => backend.park(record, claim).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => backend.release(record, claim).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) if claim.has_steps => backend.park(record, claim).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.release(record, claim).await,
        }
    }
}

impl Begun {
    /// Completes the claim and commits. The transaction is one of the `backend`'s database, which has begun it.
    pub(super) async fn complete(
        self,
        backend: &SqlBackend,
        record: (&RecordKey, &Claim),
        outcome: (&Completion, Duration),
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        match (self, backend) {
            #[cfg(feature = "postgres")]
            (Self::Postgres(begun), SqlBackend::Postgres(backend)) => {
                backend.complete_in(begun, record, outcome, asked).await
            }
            #[cfg(feature = "sqlite")]
            (Self::Sqlite(begun), SqlBackend::Sqlite(backend)) => {
                backend.complete_in(begun, record, outcome, asked).await
            }
            #[cfg(all(feature = "postgres", feature = "sqlite"))]
            (Self::Postgres(_), SqlBackend::Sqlite(_)) | (Self::Sqlite(_), SqlBackend::Postgres(_)) => {
                Err(EndError::new(idem_core::EndKind::Refused))
            }
        }
    }

    /// Records a step and commits. The transaction is one of the `backend`'s database, which has begun it.
    pub(crate) async fn record_step(
        self,
        backend: &SqlBackend,
        record: (&RecordKey, &Claim),
        step: (&str, &Bytes),
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        match (self, backend) {
            #[cfg(feature = "postgres")]
            (Self::Postgres(begun), SqlBackend::Postgres(backend)) => {
                backend.record_step_in(begun, record, step, asked).await
            }
            #[cfg(feature = "sqlite")]
            (Self::Sqlite(begun), SqlBackend::Sqlite(backend)) => {
                backend.record_step_in(begun, record, step, asked).await
            }
            #[cfg(all(feature = "postgres", feature = "sqlite"))]
            (Self::Postgres(_), SqlBackend::Sqlite(_)) | (Self::Sqlite(_), SqlBackend::Postgres(_)) => {
                Err(EndError::new(idem_core::EndKind::Refused))
            }
        }
    }

    pub(crate) async fn commit(self, asked: impl FnOnce()) -> Result<(), EndError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(begun) => begun.commit(asked).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(begun) => begun.commit(asked).await,
        }
    }

    pub(crate) async fn roll_back(self) -> Result<(), EndError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(begun) => begun.roll_back().await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(begun) => begun.roll_back().await,
        }
    }
}
