//! The backend: each operation of the contract as a statement.
//!
//! Owns the choice of the statement, and the meaning of its rows for the contract. Does not own the text of the statements, nor
//! the connections.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idem_core::inspect::Inspector;
use idem_core::steps::StepStore;
use idem_core::{
    Acquisition, Backend, BackendError, BackendErrorKind, Changed, Claim, Completion, EndError, Fenced, Record,
    RecordKey,
};
use sqlx::{PgPool, SqlStr};
use tokio::time::sleep;

use crate::claims::{self, CLAIMING};
use crate::connections::{Connections, DEFAULT_MOST};
use crate::error::backend_error;
use crate::joint::{self, JointTransaction};
use crate::migrations;
use crate::protocol::{Call, Route, Value};
use crate::record::{self, Id};
use crate::subscriptions::Subscriptions;
use crate::sweeper::Sweeper;
use crate::table::{Name, Table};

/// The pauses of a waiter that subscribes while the claim is being ended, before each further try.
const ENDING: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(125),
];

/// Records in a table of Postgres, shared by every process that uses the table.
///
/// Clones share the connections, the connection of the waiters, and the sweeper. Calls have no deadline of their own: the engine
/// sets one.
#[derive(Clone)]
pub struct PostgresBackend {
    pub(crate) table: Table,
    subscriptions: Arc<Mutex<Option<Subscriptions>>>,
    sweeper: Option<Arc<Sweeper>>,
}

impl PostgresBackend {
    /// A backend that stores records in the table `public.idem_records` of the database that `pool` connects to.
    /// [`migrate`](Self::migrate) creates the table.
    ///
    /// The backend takes two things from the pool: its connect options, each time that a connection is opened, and the
    /// connections of handlers' transactions. Records use [separate connections](crate#connections).
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::on(Connections::of(pool, DEFAULT_MOST), Name::new())
    }

    /// Connects to the database that `url` names, `postgres://user:password@host:port/database`. The backend has a pool of its own
    /// then, so the application may use any client and any version of it.
    ///
    /// With the feature `rustls`, `?sslmode=require` encrypts the connections. `?sslmode=verify-full` also checks the server's
    /// certificate, by the roots of the system or of `&sslrootcert=/path/root.pem`. The pool of handlers' transactions opens 10
    /// connections at most; use [`new`](Self::new) for another limit.
    ///
    /// ```no_run
    /// # async fn set_up() -> Result<(), Box<dyn std::error::Error>> {
    /// use idem_postgres::PostgresBackend;
    ///
    /// let backend = PostgresBackend::connect("postgres://app@localhost/shop").await?;
    /// backend.migrate().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`BackendErrorKind::Config`] if the URL cannot be used, or asks for TLS without the feature. The error does not show the URL.
    /// - The error of the server or the network, if the connection cannot be made within some seconds. The call is not repeated.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        let backend = Self::lazy(url)?;
        backend.table.connections.lend("connecting").await?;
        Ok(backend)
    }

    /// As [`connect`](Self::connect), but connects at the first call, so that a service can start before its database does.
    ///
    /// While the database is unreachable, requests get the same answer as in any outage.
    ///
    /// # Errors
    ///
    /// [`BackendErrorKind::Config`] if the URL cannot be used, or asks for TLS without the feature.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn lazy(url: &str) -> Result<Self, BackendError> {
        Ok(Self::new(crate::url::pool(url)?))
    }

    fn on(connections: Connections, name: Name) -> Self {
        Self {
            table: Table::new(connections, name),
            subscriptions: Arc::default(),
            sweeper: None,
        }
    }

    /// Sets the most connections that the backend opens for records. The default is 10; further concurrent calls wait.
    ///
    /// The waiters need one connection more. Each handler's transaction uses a connection of the application's pool.
    ///
    /// # Panics
    ///
    /// When `most` is zero.
    #[must_use]
    pub fn with_connections(self, most: u32) -> Self {
        assert!(most > 0, "a backend needs a connection");
        let pool = self.table.connections.application().clone();
        self.remade(Connections::of(pool, most), |_| ())
    }

    /// Sets the schema of the tables. The default is `public`.
    ///
    /// If two services use one database, give each a schema or a table of its own. Otherwise equal routes of the two services
    /// are one operation, and one service replays the other's answers.
    ///
    /// # Panics
    ///
    /// When `schema` is not 1 to 31 ASCII letters, digits and `_`. The name is case-sensitive, as a quoted name is.
    #[must_use]
    pub fn with_schema(self, schema: impl AsRef<str>) -> Self {
        let connections = self.table.connections.clone();
        self.remade(connections, |name| name.set_schema(schema.as_ref()))
    }

    /// Sets the name of the table of records. The default is `idem_records`.
    ///
    /// If two services use one database, give each a schema or a table of its own. Otherwise equal routes of the two services
    /// are one operation, and one service replays the other's answers.
    ///
    /// # Panics
    ///
    /// When `table` is not 1 to 31 ASCII letters, digits and `_`. The name is case-sensitive, as a quoted name is.
    #[must_use]
    pub fn with_table(self, table: impl AsRef<str>) -> Self {
        let connections = self.table.connections.clone();
        self.remade(connections, |name| name.set_table(table.as_ref()))
    }

    fn remade(self, connections: Connections, rename: impl FnOnce(&mut Name)) -> Self {
        let mut name = self.table.name;
        rename(&mut name);
        let remade = Self::on(connections, name);
        match self.sweeper {
            Some(sweeper) => remade.with_sweeper(sweeper.interval),
            None => remade,
        }
    }

    /// Starts a sweeper, which deletes expired rows every `interval`, in batches, until the last clone of this backend is
    /// dropped.
    ///
    /// Several processes may sweep at the same time; none waits for another. A row becomes due for deletion within a lease after
    /// it has expired.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, and when `interval` is zero.
    #[must_use]
    pub fn with_sweeper(mut self, interval: Duration) -> Self {
        assert!(!interval.is_zero(), "an interval is longer than nothing");
        self.sweeper = Some(Arc::new(Sweeper::start(self.table.clone(), interval)));
        self
    }

    /// Creates the tables, or brings them up to date. Creates the schema if it does not exist.
    ///
    /// If several processes start together, they migrate one after the other. The migrations that were run are listed in a table
    /// whose name ends in `_migrations`, separate from the application's own.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, or its role may not create tables.
    pub async fn migrate(&self) -> Result<(), BackendError> {
        migrations::run(&self.table.connections, &self.table.name).await
    }

    /// Begins a transaction on a connection of the application's pool, for [`complete_in`](Self::complete_in).
    ///
    /// If the pool lends a connection that is still in another transaction, or that cannot write, the connection is closed and
    /// another one is taken.
    ///
    /// # Errors
    ///
    /// When the pool has no connection, or the database cannot be reached.
    pub async fn begin(&self) -> sqlx::Result<JointTransaction> {
        JointTransaction::begin(self.table.connections.application()).await
    }

    /// Completes `claim` in `transaction` for `ttl` and commits, so that the transaction's writes and the completion take effect
    /// together or not at all. If the claim was superseded, the transaction is rolled back.
    ///
    /// The transaction must be in the database that has the table. `asked` is called just before the commit is sent; if the
    /// future is dropped before that, nothing is committed.
    ///
    /// # Errors
    ///
    /// [`EndError::kind`] tells what is known of the transaction. If it is [`EndKind::Unknown`](idem_core::EndKind::Unknown), call
    /// [`release`](Backend::release) to find out, because it waits for the end of the transaction. The result is
    /// [`Fenced::Applied`] if the transaction was rolled back; the claim is released then.
    pub async fn complete_in(
        &self,
        transaction: JointTransaction,
        (key, claim): (&RecordKey, &Claim),
        (completion, ttl): (&Completion, Duration),
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        let completing = joint::Completing {
            table: &self.table,
            key,
            claim,
            completion,
            ttl,
        };
        transaction.complete(completing, asked).await
    }

    /// Executes a statement of the claim's owner.
    pub(crate) async fn owned(
        &self,
        what: &'static str,
        statement: &SqlStr,
        values: &[Value<'_>],
    ) -> Result<Fenced, BackendError> {
        let call = Call {
            what,
            statement,
            values,
        };
        let row = self.table.ask(call).await?;
        Ok(row.map_or(Fenced::Superseded, |_| Fenced::Applied))
    }

    /// The subscriptions. If their task has ended with its runtime, starts a new one on the current runtime.
    fn subscriptions(&self) -> Subscriptions {
        let mut started = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        match &*started {
            Some(subscriptions) if subscriptions.is_running() => subscriptions.clone(),
            _ => {
                let application = self.table.connections.application().clone();
                let subscriptions = Subscriptions::start(application, self.table.name.channel());
                *started = Some(subscriptions.clone());
                subscriptions
            }
        }
    }
}

impl Backend for PostgresBackend {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let mut connection = self.table.connections.lend(CLAIMING).await?;
        claims::claim(&self.table, &mut connection, key, claim).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        const WHAT: &str = "taking over a lapsed claim";
        let mut connection = self.table.connections.lend(WHAT).await?;
        let statement = &self.table.statements.take_over;
        let row = (Id::of(key), key);
        let written = claims::write(&mut connection, WHAT, statement, row, (claim, Some(lapsed))).await?;
        if written.is_some() {
            return Ok(Acquisition::Acquired);
        }
        claims::claim(&self.table, &mut connection, key, claim).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let (id, token) = (Id::of(key), claim.token.to_bytes());
        let values = [Value::Bytes(id.as_bytes()), Value::Bytes(&token)];
        let renew = self.table.statements.renew_of(claim);
        self.owned("renewing a lease", renew, &values).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        let end = record::End::new(key, claim, self.table.name.channel());
        let statements = &self.table.statements;
        let values = end.complete(completion, ttl);
        let complete = statements.complete_of(claim);
        if self.owned("completing", complete, &values).await? == Fenced::Applied {
            return Ok(Fenced::Applied);
        }
        self.owned("looking for a completion", &statements.is_completed, &end.owner())
            .await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let end = record::End::new(key, claim, self.table.name.channel());
        let release = &self.table.statements.release;
        self.owned("releasing a claim", release, &end.release()).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        const WHAT: &str = "reading a record";
        let id = Id::of(key);
        let call = Call {
            what: WHAT,
            statement: &self.table.statements.read,
            values: &[Value::Bytes(id.as_bytes())],
        };
        let Some(row) = self.table.ask(call).await? else {
            return Ok(None);
        };
        let row = record::Row::of(&row).map_err(|error| backend_error(WHAT, error))?;
        Ok(record::decode(row)?.map(|found| found.record))
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        const UNTOLD: &str = "waiters cannot be told: too many records are waited for, or a pooler stands in between";
        if self.table.connections.route().await? == Route::Pooled {
            return Err(BackendError::new(BackendErrorKind::Unavailable, UNTOLD));
        }
        let id = Id::of(key);
        let mut pauses = ENDING.iter();
        let subscription = loop {
            if let Some(subscription) = self.subscriptions().listen(id).await? {
                break subscription;
            }
            let untold = || BackendError::new(BackendErrorKind::Unavailable, UNTOLD);
            sleep(*pauses.next().ok_or_else(untold)?).await;
        };
        let values = [Value::Bytes(id.as_bytes())];
        let is_claimed = &self.table.statements.is_claimed;
        match self
            .owned("looking for a claim to wait for", is_claimed, &values)
            .await?
        {
            Fenced::Applied => Ok(Changed::new(subscription.told())),
            // No claim is stored, so no message would come. The waiter has to look again.
            Fenced::Superseded => Ok(Changed::new(std::future::ready(()))),
        }
    }

    async fn check(&self) -> Result<(), BackendError> {
        const WHAT: &str = "checking";
        let mut connection = self.table.connections.lend(WHAT).await?;
        let call = Call {
            what: WHAT,
            statement: &self.table.statements.check,
            values: &[],
        };
        if connection.ask(call).await?.is_some() {
            return Ok(());
        }
        // After a failover, a new connection may lead to a server that takes writes.
        connection.give_up();
        let context = "the server takes no writes";
        Err(BackendError::new(BackendErrorKind::Unavailable, context))
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        Some(StepStore::of(self))
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        Some(Inspector::of(self))
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pool would show the address and the user.
        f.debug_struct("PostgresBackend")
            .field("table", &self.table.name.channel())
            .finish_non_exhaustive()
    }
}
