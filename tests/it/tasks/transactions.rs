//! What a task writes, and its record, in one commit of Postgres or SQLite.

use std::process::Stdio;

use idem_task::sqlx::{self, AssertSqlSafe, Postgres, Sqlite};
use idem_task::{
    PostgresBackend, SqliteBackend, StepErrorKind, Transaction, TransactionConnection, TransactionDatabase, idempotent,
};
use idem_tests::until;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::*;

/// Executes statements over a connection of a transaction.
trait Sql: TransactionDatabase<Connection: TransactionConnection> {
    fn execute(connection: &mut Self::Connection, sql: String) -> impl Future<Output = sqlx::Result<()>> + Send;
}

impl Sql for Postgres {
    async fn execute(connection: &mut Self::Connection, sql: String) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }
}

impl Sql for Sqlite {
    async fn execute(connection: &mut Self::Connection, sql: String) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }
}

enum Database {
    Postgres(Arc<PostgresServer>),
    Sqlite(SqliteFile),
}

/// Two consumers, and a table beside their records.
struct Ledger {
    engines: [Engine; 2],
    database: Database,
    /// What is before the name of a table.
    schema: String,
}

impl Ledger {
    async fn postgres() -> Self {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let engines = [Engine::new(backend.clone()), Engine::new(backend)];
        Self::with_tables(engines, Database::Postgres(server), format!("{schema}.")).await
    }

    async fn sqlite() -> Self {
        let file = SqliteFile::create().await;
        let engines = [file.backend().await, file.backend().await].map(Engine::new);
        Self::with_tables(engines, Database::Sqlite(file), String::new()).await
    }

    async fn with_tables(engines: [Engine; 2], database: Database, schema: String) -> Self {
        let ledger = Self {
            engines,
            database,
            schema,
        };
        ledger.execute("CREATE TABLE @accounts (id TEXT PRIMARY KEY)").await;
        let foreign = "TEXT REFERENCES @accounts (id) DEFERRABLE INITIALLY DEFERRED";
        ledger
            .execute(&format!("CREATE TABLE @ledger (entry TEXT, account {foreign})"))
            .await;
        ledger
    }

    /// SQL about a table, before whose name `@` stands.
    fn sql(&self, sql: &str) -> String {
        sql.replace('@', &self.schema)
    }

    /// Executes a statement as a stranger.
    async fn execute(&self, sql: &str) {
        match &self.database {
            Database::Postgres(server) => server.execute(&self.sql(sql)).await,
            Database::Sqlite(file) => drop(file.execute(&self.sql(sql)).await),
        }
    }

    async fn count(&self, sql: &str) -> i64 {
        match &self.database {
            Database::Postgres(server) => server.query(&self.sql(sql)).await,
            Database::Sqlite(file) => file.query(&self.sql(sql)).await,
        }
    }

    async fn rows(&self) -> i64 {
        self.count("SELECT count(*) FROM @ledger").await
    }

    async fn records(&self) -> i64 {
        self.count("SELECT count(*) FROM @idem_records").await
    }

    /// As if another attempt had taken the task over.
    async fn supersede(&self) {
        let token = match self.database {
            Database::Postgres(_) => "decode(repeat('00', 16), 'hex')",
            Database::Sqlite(_) => "zeroblob(16)",
        };
        self.execute(&format!("UPDATE @idem_records SET token = {token}")).await;
    }

    fn task(&self, consumer: usize, key: &str) -> Task<Scope, idem_task::IdempotencyKey, Duration> {
        let task = self.engines[consumer].task("charge").global().key(key);
        task.ttl(DAY).lease(LEASE)
    }

    /// Delivers a message whose task writes a row, and then does this.
    async fn deliver<D: Sql>(&self, consumer: usize, key: &str, then: Then) -> Result<u32, ShipError> {
        let insert = self.sql("INSERT INTO @ledger (entry) VALUES ('row')");
        let task = self.task(consumer, key);
        task.run(move |execution| charge::<D>(execution, insert, then)).await
    }
}

enum Then {
    Succeed,
    Fail(fn() -> ShipError),
    Panic,
    /// Executes this, and succeeds.
    Execute(String),
    /// Tells the first one, waits for the second one, and succeeds.
    Wait(Arc<Notify>, Arc<Notify>),
    /// Succeeds, and leaves its transaction to something else.
    Outlive,
}

async fn charge<D: Sql>(execution: Execution, insert: String, then: Then) -> Result<u32, ShipError> {
    let mut transaction = execution.transaction::<D>().await?;
    let executed = D::execute(&mut transaction, insert).await;
    executed.map_err(|_| ShipError::Carrier)?;
    match then {
        Then::Succeed => {}
        Then::Fail(error) => return Err(error()),
        Then::Panic => panic!("on purpose"),
        Then::Execute(sql) => D::execute(&mut transaction, sql).await.expect("valid SQL"),
        Then::Wait(written, go_on) => {
            written.notify_one();
            go_on.notified().await;
        }
        Then::Outlive => drop(tokio::spawn(async move {
            let _kept: Transaction<D> = transaction;
            pending::<()>().await;
        })),
    }
    Ok(execution.attempt())
}

fn kind<T: fmt::Debug>(result: Result<T, ShipError>) -> Option<RefusedKind> {
    result.expect_err("it is refused").kind()
}

async fn a_success_commits_and_its_redelivery_gets_the_value_and_writes_nothing<D: Sql>(ledger: Ledger) {
    let [written, go_on] = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let first = ledger.deliver::<D>(0, "o-1", Then::Wait(written.clone(), go_on.clone()));
    let looking = async {
        written.notified().await;
        assert_eq!(ledger.rows().await, 0, "nothing is there before the task has ended");
        go_on.notify_one();
    };
    let (first, ()) = tokio::join!(first, looking);
    assert_eq!(first.expect("committed"), 1);
    for consumer in [1, 0] {
        let again = ledger.deliver::<D>(consumer, "o-1", Then::Succeed).await;
        assert_eq!((again.expect("its value"), ledger.rows().await), (1, 1));
    }
}

async fn an_error_and_a_panic_roll_back_and_an_error_that_is_final_is_recorded<D: Sql>(ledger: Ledger) {
    for _ in 0..2 {
        let failed = ledger.deliver::<D>(0, "o-1", Then::Fail(|| ShipError::Carrier)).await;
        assert!(matches!(failed, Err(ShipError::Carrier)), "{failed:?}");
        let panicked = ledger.deliver::<D>(0, "o-1", Then::Panic).await;
        assert_eq!(kind(panicked), Some(RefusedKind::Panicked));
        assert_eq!((ledger.rows().await, ledger.records().await), (0, 0));
    }
    let failed = ledger
        .deliver::<D>(0, "o-1", Then::Fail(|| ShipError::NoSuchAddress))
        .await;
    assert!(matches!(failed, Err(ShipError::NoSuchAddress)), "{failed:?}");
    let again = ledger.deliver::<D>(1, "o-1", Then::Succeed).await;
    assert_eq!(kind(again), Some(RefusedKind::Failed(Verdict::SetAside)));
    assert_eq!((ledger.rows().await, ledger.records().await), (0, 1));
}

async fn where_the_commit_is_refused_neither_the_row_nor_the_record_is_there<D: Sql>(ledger: Ledger) {
    let defer = || Then::Execute(ledger.sql("UPDATE @ledger SET account = 'nobody'"));
    let refused = ledger.deliver::<D>(0, "o-1", defer()).await;
    assert_eq!(verdict(&refused), Verdict::SetAside);
    assert_eq!(kind(refused), Some(RefusedKind::RolledBack { may_pass: false }));
    assert_eq!((ledger.rows().await, ledger.records().await), (0, 0));
    let again = ledger.deliver::<D>(1, "o-1", Then::Succeed).await;
    assert_eq!((again.expect("it runs"), ledger.rows().await), (1, 1));
}

async fn a_task_that_commits_by_itself_is_not_run_again<D: Sql>(ledger: Ledger) {
    let first = ledger.deliver::<D>(0, "o-1", Then::Execute("COMMIT".to_owned())).await;
    assert_eq!(verdict(&first), Verdict::Redeliver(Duration::from_secs(1)));
    assert_eq!(kind(first), Some(RefusedKind::NotCommitted));
    let again = ledger.deliver::<D>(1, "o-1", Then::Succeed).await;
    assert_eq!(kind(again), Some(RefusedKind::OutcomeUnknown));
    assert_eq!(ledger.rows().await, 1);
}

async fn an_attempt_that_was_superseded_commits_nothing<D: Sql>(ledger: Ledger) {
    let [begun, go_on] = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let insert = ledger.sql("INSERT INTO @ledger (entry) VALUES ('row')");
    let (is_begun, gate) = (begun.clone(), go_on.clone());
    // In SQLite, nobody can take it over while its transaction is open.
    let first = ledger.task(0, "o-1").run(move |execution| async move {
        is_begun.notify_one();
        gate.notified().await;
        charge::<D>(execution, insert, Then::Succeed).await
    });
    let superseding = async {
        begun.notified().await;
        ledger.supersede().await;
        go_on.notify_one();
    };
    let (first, ()) = tokio::join!(first, superseding);
    assert!(matches!(verdict(&first), Verdict::Redeliver(after) if !after.is_zero()));
    assert!(matches!(kind(first), Some(RefusedKind::InFlight(_))));
    assert_eq!((ledger.rows().await, ledger.records().await), (0, 1));
}

async fn a_step_is_committed_with_its_rows_and_no_later_attempt_runs_it<D: Sql>(ledger: Ledger) {
    let bodies = Arc::new(AtomicU32::new(0));
    let attempt = async |is_debited: bool, is_shipped: bool| {
        let insert = ledger.sql("INSERT INTO @ledger (entry) VALUES ('row')");
        let counted = bodies.clone();
        let task = ledger.task(0, "o-1").run(move |execution| async move {
            let debit = async |connection: &mut D::Connection| {
                let executed = D::execute(connection, insert).await;
                executed.map_err(|error| StepFailed(error.to_string()))?;
                let body = counted.fetch_add(1, Ordering::SeqCst);
                is_debited.then_some(body).ok_or(StepFailed("of the body".to_owned()))
            };
            let debit: Result<u32, StepFailed> = execution.steps().transact("debit", debit).await;
            let debit = debit?;
            let sent = is_shipped.then_some((debit, execution.attempt()));
            sent.ok_or(StepFailed("of the task".to_owned()))
        });
        task.await
    };
    let failed = attempt(false, false).await.expect_err("its body fails");
    assert_eq!((&*failed.0, ledger.rows().await), ("of the body", 0));
    let failed = attempt(true, false).await.expect_err("it fails after the step");
    assert_eq!((&*failed.0, ledger.rows().await), ("of the task", 1));
    let done = attempt(true, true).await.expect("it goes on");
    assert_eq!((done, ledger.rows().await), ((1, 2), 1));
}

/// A transaction begins once, and no step waits for it.
async fn a_second_transaction_and_a_step_beside_one_are_refused<D: Sql>(ledger: Ledger) {
    let nested = ledger.task(0, "o-1").run(|execution| async move {
        let first = execution.transaction::<D>().await?;
        let second = execution.transaction::<D>().await;
        let second = second.expect_err("the second one").kind();
        assert_eq!(second, RefusedKind::NotConfigured);
        let body = async |_: &mut D::Connection| Ok::<_, Refused>(());
        let step = execution.steps().transact("debit", body).await;
        let step = step.expect_err("it would wait for the transaction").kind();
        assert_eq!(step, RefusedKind::Step(StepErrorKind::InTransaction));
        drop(first);
        Ok::<_, Refused>(())
    });
    nested.await.expect("its transaction is committed");
}

/// Where the records are, in a process that is to be killed.
const TO_BE_KILLED: &str = "IDEM_TESTS_TASK_TO_BE_KILLED";

async fn a_task_whose_process_is_killed_before_its_commit_runs_again_and_writes_once<D: Sql>(ledger: Ledger) {
    let place = match &ledger.database {
        Database::Postgres(server) => format!("{} {}", server.url(), ledger.schema.trim_end_matches('.')),
        Database::Sqlite(file) => file.path().display().to_string(),
    };
    let test = "tasks::transactions::in_a_process_that_is_killed";
    let mut killed = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture"])
        .env(TO_BE_KILLED, place)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(killed.stdout.take().expect("a pipe")).lines();
    while !lines
        .next_line()
        .await
        .expect("text")
        .expect("it writes")
        .contains("written")
    {}
    killed.kill().await.expect("it is there");
    assert_eq!(ledger.rows().await, 0);
    let insert = ledger.sql("INSERT INTO @ledger (entry) VALUES ('row')");
    let again = ledger.task(1, "o-1").wait(Duration::from_secs(10));
    let again = again
        .run(move |execution| charge::<D>(execution, insert, Then::Succeed))
        .await;
    assert_eq!((again.expect("it runs again"), ledger.rows().await), (2, 1));
}

/// Writes a row, and waits for its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_process_that_is_killed() {
    let Ok(place) = std::env::var(TO_BE_KILLED) else {
        return;
    };
    let written = Arc::new(Notify::new());
    let then = Then::Wait(written.clone(), Arc::default());
    let telling = async {
        written.notified().await;
        println!("written");
    };
    if let Some((url, schema)) = place.split_once(' ') {
        let pool = sqlx::PgPool::connect(url).await.expect("it answers");
        let engine = Engine::new(PostgresBackend::new(pool).with_schema(schema));
        let insert = format!("INSERT INTO {schema}.ledger (entry) VALUES ('row')");
        let task = engine.task("charge").global().key("o-1").ttl(DAY).lease(LEASE);
        let _ = tokio::join!(
            task.run(|execution| charge::<Postgres>(execution, insert, then)),
            telling
        );
    } else {
        let engine = Engine::new(SqliteBackend::open(&place).await.expect("a file"));
        let insert = "INSERT INTO ledger (entry) VALUES ('row')".to_owned();
        let task = engine.task("charge").global().key("o-1").ttl(DAY).lease(LEASE);
        let _ = tokio::join!(task.run(|execution| charge::<Sqlite>(execution, insert, then)), telling);
    }
}

/// The records are away, and the rest of the database is there.
async fn an_unprotected_task_commits_and_rolls_back_by_the_same_rules<D: Sql>(ledger: Ledger) {
    ledger.execute("ALTER TABLE @idem_records RENAME TO away").await;
    let deliver = async |then: Then| {
        let insert = ledger.sql("INSERT INTO @ledger (entry) VALUES ('row')");
        let task = ledger.task(0, "o-1").run_in_outage();
        task.run(move |execution| charge::<D>(execution, insert, then)).await
    };
    for then in [
        Then::Fail(|| ShipError::Carrier),
        Then::Fail(|| ShipError::NoSuchAddress),
    ] {
        assert_eq!(kind(deliver(then).await), None);
    }
    let defer = Then::Execute(ledger.sql("UPDATE @ledger SET account = 'nobody'"));
    assert_eq!(
        kind(deliver(defer).await),
        Some(RefusedKind::RolledBack { may_pass: false })
    );
    assert_eq!(ledger.rows().await, 0);
    assert_eq!(deliver(Then::Succeed).await.expect("it is committed"), 1);
    let unknown = deliver(Then::Execute("COMMIT".to_owned())).await;
    assert_eq!(verdict(&unknown), Verdict::SetAside);
    assert_eq!(kind(unknown), Some(RefusedKind::OutcomeUnknown));
    assert_eq!(ledger.rows().await, 2);
}

#[idempotent(engine = engine, name = "charge", scope = global, key = order, ttl = "7d")]
async fn charge_by_attribute(engine: Engine, order: &'static str) -> Result<u32, ShipError> {
    let execution = Execution::current().ok_or(ShipError::Carrier)?;
    let insert = format!("INSERT INTO ledger (entry) VALUES ('{order}')");
    charge::<Sqlite>(execution, insert, Then::Succeed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_with_the_attribute_commits_by_its_current_execution() {
    let ledger = Ledger::sqlite().await;
    for consumer in [0, 1] {
        let charged = charge_by_attribute(ledger.engines[consumer].clone(), "o-1").await;
        assert_eq!((charged.expect("committed"), ledger.rows().await), (1, 1));
    }
}

macro_rules! on_sql_backends {
    ($($backend:ident is $database:ident),*: $tests:tt) => {
        $(on_sql_backends!(@one $backend $database $tests);)*
    };
    (@one $backend:ident $database:ident [$($test:ident)*]) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::in_time(super::$test::<super::$database>(super::Ledger::$backend().await)).await;
                }
            )*
        }
    };
}

on_sql_backends! {
    postgres is Postgres, sqlite is Sqlite: [
        a_success_commits_and_its_redelivery_gets_the_value_and_writes_nothing
        an_error_and_a_panic_roll_back_and_an_error_that_is_final_is_recorded
        where_the_commit_is_refused_neither_the_row_nor_the_record_is_there
        a_task_that_commits_by_itself_is_not_run_again
        an_attempt_that_was_superseded_commits_nothing
        a_step_is_committed_with_its_rows_and_no_later_attempt_runs_it
        a_task_whose_process_is_killed_before_its_commit_runs_again_and_writes_once
        a_second_transaction_and_a_step_beside_one_are_refused
        an_unprotected_task_commits_and_rolls_back_by_the_same_rules
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_connection_is_lost_is_rolled_back_and_runs_again() {
    in_time(async {
        let ledger = Ledger::postgres().await;
        let [written, go_on] = [Arc::new(Notify::new()), Arc::new(Notify::new())];
        let first = ledger.deliver::<Postgres>(0, "o-1", Then::Wait(written.clone(), go_on.clone()));
        let losing = async {
            written.notified().await;
            let holds = "FROM pg_locks WHERE relation = '@ledger'::regclass AND mode = 'RowExclusiveLock'";
            ledger
                .execute(&format!("SELECT pg_terminate_backend(pid) {holds}"))
                .await;
            let gone = format!("SELECT count(*) {holds}");
            until("it is gone", async || ledger.count(&gone).await == 0).await;
            go_on.notify_one();
        };
        let (first, ()) = tokio::join!(first, losing);
        assert!(matches!(verdict(&first), Verdict::Redeliver(after) if !after.is_zero()));
        assert_eq!(kind(first), Some(RefusedKind::RolledBack { may_pass: true }));
        assert_eq!((ledger.rows().await, ledger.records().await), (0, 0));
        let again = ledger.deliver::<Postgres>(1, "o-1", Then::Succeed).await;
        assert_eq!((again.expect("it runs"), ledger.rows().await), (1, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_outlives_its_task_is_rolled_back() {
    in_time(async {
        let ledger = Ledger::postgres().await;
        let outlived = ledger.deliver::<Postgres>(0, "o-1", Then::Outlive).await;
        assert_eq!(kind(outlived), Some(RefusedKind::NotConfigured));
        assert_eq!((ledger.rows().await, ledger.records().await), (0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_backend_in_another_database_or_in_none_a_task_is_released() {
    let ledger = Ledger::sqlite().await;
    let refused = ledger.deliver::<Postgres>(0, "o-1", Then::Succeed).await;
    assert_eq!(kind(refused), Some(RefusedKind::NotConfigured));
    assert_eq!(ledger.records().await, 0);

    let engine = Engine::new(MemoryBackend::new());
    let task = || engine.task("charge").global().key("o-1").ttl(DAY);
    let refused = task().run(|execution| charge::<Postgres>(execution, String::new(), Then::Succeed));
    let refused = refused.await;
    assert_eq!(verdict(&refused), Verdict::Redeliver(Duration::from_secs(1)));
    assert_eq!(kind(refused), Some(RefusedKind::NotConfigured));
    let again = task().run(|execution| Carrier::default().ship(execution)).await;
    assert_eq!(again.expect("it was released"), Parcel { number: 1, by: 1 });
}
