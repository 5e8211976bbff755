//! The backend: each operation of the contract as a read or as a change.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use idem_core::inspect::Inspector;
use idem_core::steps::StepStore;
use idem_core::{
    Acquisition, Backend, BackendError, Changed, Claim, Completion, EndError, EndKind, Fenced, Record, RecordKey,
};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use crate::change::{Change, OwnStep, existing};
use crate::clock::Clock;
use crate::connecting;
use crate::error::backend_error;
use crate::joint::{self, JointTransaction};
use crate::migrations;
use crate::record::{Found, Parameters, Row};
use crate::store::{Changes, Store};
use crate::table::Name;

/// How often [`SqliteBackend::open`] deletes what has expired.
const SWEEPING: Duration = Duration::from_mins(1);

/// Records in one file of SQLite, shared by every process of this machine that opens the file.
///
/// Clones share the connections and the thread that writes. Calls have no deadline of their own: the engine sets one.
#[derive(Clone)]
pub struct SqliteBackend {
    pub(crate) changes: Arc<Changes>,
    /// For the transactions of handlers.
    application: SqlitePool,
}

impl SqliteBackend {
    /// Opens the database file at `path`, or creates it so that only its owner can read it. Creates the table or brings it up to
    /// date, and deletes expired records every minute.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or created, or is on a network file system.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("idem.db");
    /// let backend = idem_sqlite::SqliteBackend::open(path).await?;
    /// # drop(backend);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref();
        connecting::create(path)?;
        let options = SqliteConnectOptions::new().filename(path);
        let pool = SqlitePoolOptions::new().connect_lazy_with(options);
        let backend = Self::new(pool).with_sweeper(SWEEPING);
        backend.migrate().await?;
        Ok(backend)
    }

    /// A backend that stores records in the table `idem_records` of the database that `pool` connects to, beside the
    /// application's own tables. [`migrate`](Self::migrate) creates the table.
    ///
    /// Records have connections of their own, which are opened with the pool's connect options. The database must be a file, and
    /// it is given a write-ahead log. A connection of the pool is used for each handler's transaction.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        let store = Store::new(pool.connect_options(), Name::new(), None);
        Self::of(store, pool)
    }

    fn of(store: Store, application: SqlitePool) -> Self {
        let changes = Arc::new(Changes::of(store));
        Self { changes, application }
    }

    /// Sets the name of the table. The default is `idem_records`.
    ///
    /// If two services use one file, give each a table of its own. Otherwise equal routes of the two services are one operation,
    /// and one service replays the other's answers. Call [`migrate`](Self::migrate) afterwards.
    ///
    /// # Panics
    ///
    /// When `table` is not 1 to 31 ASCII letters, digits and `_`.
    #[must_use]
    pub fn with_table(self, table: impl AsRef<str>) -> Self {
        let store = self.store();
        let named = Store::new(store.options.clone(), Name::of(table.as_ref()), store.sweeping);
        Self::of(named, self.application)
    }

    /// Deletes expired records every `interval`, in batches, until the last clone of this backend is dropped. Sweeping affects
    /// only the size of the file.
    ///
    /// # Panics
    ///
    /// When `interval` is zero.
    #[must_use]
    pub fn with_sweeper(self, interval: Duration) -> Self {
        assert!(!interval.is_zero(), "an interval is longer than nothing");
        let store = self.store();
        let swept = Store::new(store.options.clone(), store.name.clone(), Some(interval));
        Self::of(swept, self.application)
    }

    /// Deletes up to `limit` expired records, and returns how many it has deleted.
    ///
    /// Use this method to sweep at times of your choice; otherwise use [`with_sweeper`](Self::with_sweeper).
    ///
    /// # Errors
    ///
    /// When the database cannot be opened or written.
    pub async fn sweep(&self, limit: u32) -> Result<u64, BackendError> {
        self.changes.make(|answer| Change::Sweep { limit, answer }).await
    }

    /// Creates the table, or brings it up to date. If several processes start together, they migrate one after the other.
    ///
    /// # Errors
    ///
    /// When the database cannot be opened or written.
    pub async fn migrate(&self) -> Result<(), BackendError> {
        let store = self.store();
        migrations::run(&store.options, &store.name).await
    }

    /// Begins a transaction on a connection of the application's pool, for [`complete_in`](Self::complete_in). From here to its end
    /// it is the one writer of the database: all claims wait.
    ///
    /// If the pool lends a connection that is still in another transaction, or that cannot write, the connection is closed and
    /// another one is taken. A commit hook of the application's on the connection is removed.
    ///
    /// # Errors
    ///
    /// When the pool has no connection, the database cannot be written, or another process writes for longer than the connection's
    /// `busy_timeout`.
    pub async fn begin(&self) -> sqlx::Result<JointTransaction> {
        JointTransaction::begin(&self.application, &self.store().turns).await
    }

    /// Completes `claim` in `transaction` for `ttl` and commits, so that the transaction's writes and the completion take effect
    /// together or not at all. If the claim was superseded, the transaction is rolled back.
    ///
    /// The transaction must be in the database that has the table. `asked` is called just before the commit is sent; if the
    /// future is dropped before that, nothing is committed.
    ///
    /// # Errors
    ///
    /// [`EndError::kind`] tells what is known of the transaction. If it is [`EndKind::Unknown`], call
    /// [`release`](Backend::release) to find out, because it waits for the end of the transaction. The result is
    /// [`Fenced::Applied`] if the transaction was rolled back; the claim is released then.
    pub async fn complete_in(
        &self,
        transaction: JointTransaction,
        (key, claim): (&RecordKey, &Claim),
        (completion, ttl): (&Completion, Duration),
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        let clock = self
            .changes
            .clock()
            .map_err(|error| EndError::new(EndKind::Refused).with_source(error))?;
        let completing = joint::Completing {
            store: self.store(),
            clock,
            key,
            claim,
            completion,
            ttl,
        };
        transaction.complete(completing, asked).await
    }

    pub(crate) fn store(&self) -> &Store {
        self.changes.store()
    }

    /// The record under `key`, unless it has expired.
    async fn find(&self, key: &RecordKey) -> Result<Option<Found>, BackendError> {
        const READING: &str = "reading a record";
        let clock = self.changes.clock()?;
        let parameters = Parameters::of(key).map_err(|error| backend_error(READING, sqlx::Error::Encode(error)))?;
        let store = self.store();
        let row = store
            .readers
            .read(&store.statements.read, parameters.into_arguments())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let row = Row::of(&row).map_err(|error| backend_error(READING, error).not_written())?;
        row.decode((clock, Clock::now()))
    }

    pub(crate) async fn own(&self, key: &RecordKey, claim: &Claim, step: OwnStep) -> Result<Fenced, BackendError> {
        let (key, claim) = (key.clone(), claim.clone());
        self.changes
            .make(|answer| Change::Own {
                key,
                claim,
                step,
                answer,
            })
            .await
    }
}

impl Backend for SqliteBackend {
    /// Reads first, so that a replay writes nothing and waits for no writer.
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        if let Some(found) = self.find(key).await? {
            return Ok(existing(found.record, found.token, claim));
        }
        let (key, claim) = (key.clone(), claim.clone());
        self.changes
            .make(|answer| Change::Acquire {
                key,
                claim,
                lapsed: None,
                answer,
            })
            .await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        let (key, claim, lapsed) = (key.clone(), claim.clone(), Some((lapsed.token, lapsed.has_steps)));
        self.changes
            .make(|answer| Change::Acquire {
                key,
                claim,
                lapsed,
                answer,
            })
            .await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.own(key, claim, OwnStep::Renew).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        self.own(key, claim, OwnStep::Complete(completion.clone(), ttl)).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.own(key, claim, OwnStep::Release).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        Ok(self.find(key).await?.map(|found| found.record))
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        let waiter = self.store().waiters.add(key);
        match self.find(key).await? {
            Some(Found {
                record: Record::Claimed { .. },
                token,
            }) => {
                self.changes.watch()?;
                Ok(waiter.wait_for(token))
            }
            // The claim has ended already.
            _ => Ok(Changed::new(std::future::ready(()))),
        }
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.changes.make(|answer| Change::Check { answer }).await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        Some(StepStore::of(self))
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        Some(Inspector::of(self))
    }
}

impl fmt::Debug for SqliteBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBackend")
            .field("file", &self.store().options.get_filename())
            .finish_non_exhaustive()
    }
}
