//! The databases in which the rows of a handler or a task and their record can be committed together.
//!
//! Owns the choice between them. What each of them does is its backend's.

use std::time::Duration;

use bytes::Bytes;
use idem_core::steps::StepBackend as _;
use idem_core::{Backend as _, BackendError, Claim, Completion, EndError, Engine, Fenced, RecordKey};

/// A backend whose records can be written in a handler's transaction.
#[derive(Clone, Debug)]
pub enum SqlBackend {
    /// Records in Postgres.
    #[cfg(feature = "postgres")]
    Postgres(idem_postgres::PostgresBackend),
    /// Records in SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(idem_sqlite::SqliteBackend),
}

/// A transaction that was begun.
#[derive(Debug)]
pub enum Begun {
    /// In Postgres.
    #[cfg(feature = "postgres")]
    Postgres(idem_postgres::JointTransaction),
    /// In SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(idem_sqlite::JointTransaction),
}

/// A connection to a database in which the rows of a step can be committed with its record: `sqlx::PgConnection`, with the feature
/// `postgres`, or `sqlx::SqliteConnection`, with the feature `sqlite`.
pub trait TransactionConnection: sealed::ConnectionOf + Send + 'static {}

/// What no other crate implements.
mod sealed {
    use super::{Begun, Kind};

    pub trait ConnectionOf: Sized {
        /// The connection, if the transaction is one of this database.
        fn of(begun: &mut Begun) -> Option<&mut Self>;
    }

    pub trait Database: sqlx::Database {
        const KIND: Kind;

        /// The connection, if the transaction is one of this database.
        fn connection(begun: &Begun) -> Option<&Self::Connection>;

        /// The connection for statements, if the transaction is one of this database.
        fn connection_mut(begun: &mut Begun) -> Option<&mut Self::Connection>;
    }
}

#[cfg(feature = "postgres")]
impl TransactionConnection for sqlx::PgConnection {}

#[cfg(feature = "postgres")]
impl sealed::ConnectionOf for sqlx::PgConnection {
    fn of(begun: &mut Begun) -> Option<&mut Self> {
        begun.connection_mut::<sqlx::Postgres>()
    }
}

#[cfg(feature = "sqlite")]
impl TransactionConnection for sqlx::SqliteConnection {}

#[cfg(feature = "sqlite")]
impl sealed::ConnectionOf for sqlx::SqliteConnection {
    fn of(begun: &mut Begun) -> Option<&mut Self> {
        begun.connection_mut::<sqlx::Sqlite>()
    }
}

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Postgres.
    #[cfg(feature = "postgres")]
    Postgres,
    /// SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite,
}

/// A database whose transaction a handler or a task can take: `sqlx::Postgres`, with the feature `postgres`, or `sqlx::Sqlite`, with the
/// feature `sqlite`.
pub trait TransactionDatabase: sealed::Database {}

#[cfg(feature = "postgres")]
impl TransactionDatabase for sqlx::Postgres {}

#[cfg(feature = "postgres")]
impl sealed::Database for sqlx::Postgres {
    const KIND: Kind = Kind::Postgres;

    fn connection(begun: &Begun) -> Option<&Self::Connection> {
        match begun {
            Begun::Postgres(begun) => Some(begun.as_ref()),
            #[cfg(feature = "sqlite")]
            Begun::Sqlite(_) => None,
        }
    }

    fn connection_mut(begun: &mut Begun) -> Option<&mut Self::Connection> {
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
impl sealed::Database for sqlx::Sqlite {
    const KIND: Kind = Kind::Sqlite;

    fn connection(begun: &Begun) -> Option<&Self::Connection> {
        match begun {
            #[cfg(feature = "postgres")]
            Begun::Postgres(_) => None,
            Begun::Sqlite(begun) => Some(begun.as_ref()),
        }
    }

    fn connection_mut(begun: &mut Begun) -> Option<&mut Self::Connection> {
        match begun {
            #[cfg(feature = "postgres")]
            Begun::Postgres(_) => None,
            Begun::Sqlite(begun) => Some(begun.connection()),
        }
    }
}

impl Kind {
    /// That of the database `D`.
    #[must_use]
    pub fn of<D: TransactionDatabase>() -> Self {
        D::KIND
    }

    /// Whether one transaction holds up all others that write, so that a record is not written beside it.
    #[must_use]
    pub fn has_one_writer(self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => false,
            #[cfg(feature = "sqlite")]
            Self::Sqlite => true,
        }
    }

    /// What a handler wants that takes a transaction in this database, for the log.
    #[must_use]
    pub fn wants(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "Transaction, which needs records in a `PostgresBackend`",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "Transaction, which needs records in a `SqliteBackend`",
        }
    }
}

impl SqlBackend {
    /// The backend of an engine, if it is one of those.
    #[must_use]
    pub fn of(engine: &Engine) -> Option<Self> {
        #[cfg(feature = "postgres")]
        if let Some(postgres) = engine.backend::<idem_postgres::PostgresBackend>() {
            return Some(Self::Postgres(postgres.clone()));
        }
        #[cfg(feature = "sqlite")]
        if let Some(sqlite) = engine.backend::<idem_sqlite::SqliteBackend>() {
            return Some(Self::Sqlite(sqlite.clone()));
        }
        None
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Kind::Postgres,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Kind::Sqlite,
        }
    }

    /// Begins a transaction on a connection of the application's pool.
    ///
    /// # Errors
    ///
    /// If the pool has no connection or the database cannot be reached.
    pub async fn begin(&self) -> sqlx::Result<Begun> {
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
    #[must_use]
    pub fn completion_sql(&self, record: (&RecordKey, &Claim), outcome: (&Completion, Duration)) -> String {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => backend.completion_sql(record, outcome),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.completion_sql(record, outcome),
        }
    }

    /// A statement that does nothing, for a handler that runs without a claim.
    #[must_use]
    pub fn nothing_sql(&self) -> String {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "SELECT WHERE false".to_owned(),
            // Some clients refuse to execute a `SELECT`.
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "DROP TABLE IF EXISTS temp.idem_of_no_request".to_owned(),
        }
    }

    /// Whether a claim has been completed; `None` if its record is gone, or is another claim's.
    ///
    /// # Errors
    ///
    /// If the database cannot be asked.
    pub async fn is_completed(&self, record: &RecordKey, claim: &Claim) -> Result<Option<bool>, BackendError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => backend.is_completed(record, claim).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.is_completed(record, claim).await,
        }
    }

    /// Releases a claim. Waits for the end of a transaction that has completed it.
    ///
    /// # Errors
    ///
    /// If the database cannot be asked.
    pub async fn release(&self, record: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
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
    /// Its connection, if it is one of this database.
    #[must_use]
    pub fn connection<D: TransactionDatabase>(&self) -> Option<&D::Connection> {
        D::connection(self)
    }

    /// Its connection for statements, if it is one of this database.
    pub fn connection_mut<D: TransactionDatabase>(&mut self) -> Option<&mut D::Connection> {
        D::connection_mut(self)
    }

    /// Completes the claim and commits. The transaction is one of the `backend`'s database, which has begun it.
    pub(crate) async fn complete(
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

    /// Commits it without a record.
    pub(crate) async fn commit(self, asked: impl FnOnce()) -> Result<(), EndError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(begun) => begun.commit(asked).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(begun) => begun.commit(asked).await,
        }
    }

    /// Rolls it back.
    ///
    /// # Errors
    ///
    /// If it was ended by other means, so that it may be committed.
    pub async fn roll_back(self) -> Result<(), EndError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(begun) => begun.roll_back().await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(begun) => begun.roll_back().await,
        }
    }
}
