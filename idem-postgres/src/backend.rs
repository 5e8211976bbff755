//! The backend itself: statements out, records in.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use idem_core::{
    Acquisition, Backend, BackendError, BackendErrorKind, Changed, Claim, Completion, Fenced, Record, RecordKey,
};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgPool, Postgres, SqlStr, Transaction};

use crate::connections::Lent;
use crate::error::backend_error;
use crate::migrations;
use crate::record::{self, Id, millis};
use crate::subscriptions::Subscriptions;
use crate::sweeper::{self, Sweeper};
use crate::table::{Name, Table};

const CLAIMING: &str = "claiming";

/// How often a look at a record that keeps changing is repeated before the call is given up as unavailable.
const LOOKS: usize = 8;

/// Records in a table of Postgres, shared by every process that uses it.
///
/// Clones share the application's pool, the connection that waiters rely on, and the sweeper. Calls have no deadline of
/// their own; the engine's ends them.
#[derive(Clone)]
pub struct PostgresBackend {
    table: Table,
    subscriptions: Arc<OnceLock<Subscriptions>>,
    sweeper: Option<Arc<Sweeper>>,
}

impl PostgresBackend {
    /// Records in the table `public.idem_records` of the database that `pool` leads to, which
    /// [`migrate`](Self::migrate) makes.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self {
            table: Table::new(pool, Name::new()),
            subscriptions: Arc::default(),
            sweeper: None,
        }
    }

    /// Puts the table into another schema than `public`.
    ///
    /// # Panics
    ///
    /// When `schema` is not 1 to 31 ASCII letters, digits and `_`. Upper case counts, as in a quoted name.
    #[must_use]
    pub fn with_schema(self, schema: &str) -> Self {
        self.renamed(|name| name.set_schema(schema))
    }

    /// Calls the table something else than `idem_records`.
    ///
    /// # Panics
    ///
    /// When `table` is not 1 to 31 ASCII letters, digits and `_`. Upper case counts, as in a quoted name.
    #[must_use]
    pub fn with_table(self, table: &str) -> Self {
        self.renamed(|name| name.set_table(table))
    }

    fn renamed(self, rename: impl FnOnce(&mut Name)) -> Self {
        let Table {
            connections, mut name, ..
        } = self.table;
        rename(&mut name);
        let renamed = Self {
            table: Table::new(connections.pool, name),
            subscriptions: Arc::default(),
            sweeper: None,
        };
        match self.sweeper {
            Some(sweeper) => renamed.with_sweeper(sweeper.interval),
            None => renamed,
        }
    }

    /// Deletes expired rows every `interval`, in batches, until the last clone of this backend is dropped. Several
    /// processes may do so at once; none waits for another. A row is deleted within a lease after it has expired.
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

    /// Deletes up to `limit` expired rows, and says how many. Fewer than `limit` means that another sweep is at the others,
    /// or that those that are there expired less than their lease ago.
    ///
    /// For those who sweep at a time of their own; others use [`with_sweeper`](Self::with_sweeper). Whether and when it
    /// is done changes nothing but the size of the table.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or refuses.
    pub async fn sweep(&self, limit: u32) -> Result<u64, BackendError> {
        sweeper::sweep(&self.table, limit).await
    }

    /// Makes the table, or brings it up to date; and the schema, where it is not there. Processes that start together
    /// do so one after the other. Which migrations were run is noted in a table of that name with `_migrations` behind
    /// it, apart from the application's own.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, or its role may not create tables.
    pub async fn migrate(&self) -> Result<(), BackendError> {
        migrations::run(&self.table.connections.pool, &self.table.name).await
    }

    /// Begins a transaction on a connection of the pool, for [`complete_in`](Self::complete_in).
    ///
    /// # Errors
    ///
    /// When the pool has no connection, or the database cannot be reached.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        self.table.connections.pool.begin().await
    }

    /// Completes `claim` through `transaction` and commits it, so that what was written in it and the completion are
    /// there together, or neither is. Superseded, it is rolled back.
    ///
    /// The transaction has to be one of the database that has the table.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or refuses. Whether the transaction was committed is then unknown, unless it
    /// was the server that said no. [`release`](Backend::release) waits for its end: it is [`Fenced::Applied`] if the
    /// transaction was rolled back, and the claim is gone then.
    pub async fn complete_in(
        &self,
        mut transaction: Transaction<'static, Postgres>,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
    ) -> Result<Fenced, BackendError> {
        let failed = |error| backend_error("completing in a transaction", error);
        let completing = self.completing(Id::of(key), claim, completion);
        let completed = completing.fetch_optional(&mut *transaction).await.map_err(failed)?;
        if completed.is_none() {
            transaction.rollback().await.map_err(failed)?;
            return Ok(Fenced::Superseded);
        }
        transaction.commit().await.map_err(failed)?;
        Ok(Fenced::Applied)
    }

    fn completing<'q>(&self, id: Id, claim: &Claim, completion: &'q Completion) -> Query<'q, Postgres, PgArguments> {
        let (state, payload) = record::completed(completion);
        sqlx::query(self.table.statements.complete.clone())
            .bind(id.as_bytes().to_vec())
            .bind(claim.token.to_bytes())
            .bind(state)
            .bind(payload)
            .bind(self.table.name.channel())
            .bind(id.message())
    }

    /// Executes a statement that is about `claim`, and returns its first row.
    async fn write(
        connection: &mut Lent,
        what: &'static str,
        statement: &SqlStr,
        (id, key): (Id, &RecordKey),
        claim: &Claim,
        lapsed: Option<&Claim>,
    ) -> Result<Option<PgRow>, BackendError> {
        let write = || {
            let query = sqlx::query(statement.clone())
                .bind(id.as_bytes().to_vec())
                .bind(key.as_str())
                .bind(claim.token.to_bytes())
                .bind(i64::from(claim.attempt))
                .bind(claim.fingerprint.to_bytes())
                .bind(millis(claim.lease))
                .bind(millis(claim.ttl));
            match lapsed {
                Some(lapsed) => query.bind(lapsed.token.to_bytes()),
                None => query,
            }
        };
        connection.ask(what, write).await
    }

    /// As `claim`, on a connection that is there: what is claimed over an expired row waits for one only once.
    async fn claim_on(
        &self,
        connection: &mut Lent,
        key: &RecordKey,
        claim: &Claim,
    ) -> Result<Acquisition, BackendError> {
        let row = (Id::of(key), key);
        let statements = &self.table.statements;
        for _ in 0..LOOKS {
            let Some(found) = Self::write(connection, CLAIMING, &statements.claim, row, claim, None).await? else {
                continue;
            };
            let Some(found) = record::read(&found).map_err(|error| backend_error(CLAIMING, error))? else {
                return Ok(Acquisition::Acquired);
            };
            if let Some(found) = record::decode(found)? {
                // Written by an earlier try of this call, whose answer was lost.
                let is_ours = matches!(found.record, Record::Claimed { .. }) && found.token == claim.token;
                return Ok(if is_ours {
                    Acquisition::Acquired
                } else {
                    Acquisition::Existing(found.record)
                });
            }
            let expired = &statements.claim_expired;
            if Self::write(connection, CLAIMING, expired, row, claim, None)
                .await?
                .is_some()
            {
                return Ok(Acquisition::Acquired);
            }
        }
        Err(busy())
    }

    /// Executes a statement of the owner's.
    async fn owned<'q>(
        &self,
        what: &'static str,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<Fenced, BackendError> {
        let row: Option<PgRow> = self.table.ask(what, query).await?;
        Ok(row.map_or(Fenced::Superseded, |_| Fenced::Applied))
    }
}

fn busy() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, "the record changed at every look")
}

impl Backend for PostgresBackend {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let mut connection = self.table.connections.lend(CLAIMING).await?;
        self.claim_on(&mut connection, key, claim).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        const WHAT: &str = "taking over a lapsed claim";
        let mut connection = self.table.connections.lend(WHAT).await?;
        let statement = &self.table.statements.take_over;
        let row = (Id::of(key), key);
        if Self::write(&mut connection, WHAT, statement, row, claim, Some(lapsed))
            .await?
            .is_some()
        {
            return Ok(Acquisition::Acquired);
        }
        self.claim_on(&mut connection, key, claim).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let id = Id::of(key);
        let renew = || {
            sqlx::query(self.table.statements.renew.clone())
                .bind(id.as_bytes().to_vec())
                .bind(claim.token.to_bytes())
        };
        self.owned("renewing a lease", renew).await
    }

    async fn complete(&self, key: &RecordKey, claim: &Claim, completion: &Completion) -> Result<Fenced, BackendError> {
        let id = Id::of(key);
        let complete = || self.completing(id, claim, completion);
        if self.owned("completing", complete).await? == Fenced::Applied {
            return Ok(Fenced::Applied);
        }
        let is_completed = || {
            sqlx::query(self.table.statements.is_completed.clone())
                .bind(id.as_bytes().to_vec())
                .bind(claim.token.to_bytes())
        };
        self.owned("looking for a completion", is_completed).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let id = Id::of(key);
        let release = || {
            sqlx::query(self.table.statements.release.clone())
                .bind(id.as_bytes().to_vec())
                .bind(claim.token.to_bytes())
                .bind(self.table.name.channel())
                .bind(id.message())
        };
        self.owned("releasing a claim", release).await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        const WHAT: &str = "marking a claim as waited for";
        let id = Id::of(key);
        let subscriptions = self.subscriptions.get_or_init(|| {
            let options = self.table.connections.pool.connect_options().as_ref().clone();
            Subscriptions::start(options, self.table.name.channel())
        });
        let subscription = subscriptions.listen(id.message()).await?;
        for statement in [&self.table.statements.mark, &self.table.statements.is_marked] {
            let mark = || sqlx::query(statement.clone()).bind(id.as_bytes().to_vec());
            if self.table.ask(WHAT, mark).await?.is_some() {
                return Ok(Changed::new(subscription.told()));
            }
        }
        // There is no claim whose end could be told. One may be there in a moment, so whoever asks has to look.
        Ok(Changed::new(std::future::ready(())))
    }

    async fn check(&self) -> Result<(), BackendError> {
        let check = || sqlx::query(self.table.statements.check.clone());
        match self.table.ask("checking", check).await? {
            Some(_) => Ok(()),
            None => Err(BackendError::new(
                BackendErrorKind::Unavailable,
                "the server takes no writes",
            )),
        }
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pool would show where it leads to, and as whom.
        f.debug_struct("PostgresBackend")
            .field("table", &self.table.name.channel())
            .finish_non_exhaustive()
    }
}
