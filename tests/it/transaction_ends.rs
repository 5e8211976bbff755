//! IDEM-16 and IDEM-17: every way in which a handler's transaction can end, with a key, without one, and in an outage.
//!
//! `docs/transactions.md` has the table that this makes. `IDEM_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::FutureExt as _;
use idem_axum::sqlx::postgres::PgPoolOptions;
use idem_axum::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use idem_axum::{PostgresBackend, Transaction, idempotent};
use idem_tests::{Answer, Log, PostgresServer, Service, in_time, until};
use reqwest::Method;
use tokio::sync::Barrier;

/// A way in which a handler may end: what it is called in the table, what it does after it has written its row, and with
/// which status it answers. A row is refused at the commit with the code in its column `fails`.
struct Way {
    name: &'static str,
    fails: &'static str,
    then: &'static str,
    status: u16,
}

const fn way(name: &'static str, fails: &'static str, then: &'static str, status: u16) -> Way {
    Way {
        name,
        fails,
        then,
        status,
    }
}

const WAYS: &[Way] = &[
    way("nothing fails, and it answers with 201", "", "", 201),
    way("nothing fails, and it answers with 303", "", "", 303),
    way(
        "a statement fails inside a savepoint, and it answers with 201",
        "",
        "savepoint",
        201,
    ),
    way(
        "it sets a role, and answers with 201",
        "",
        "SET LOCAL ROLE nobody_at_all",
        201,
    ),
    way(
        "it sets a time limit of 1 ms, and answers with 201",
        "",
        "SET LOCAL statement_timeout = 1",
        201,
    ),
    way("nothing fails, and it answers with 404", "", "", 404),
    way(
        "a row is there already, and it answers with 409",
        "",
        "INSERT INTO taken VALUES (1)",
        409,
    ),
    way("it answers with 500", "", "", 500),
    way("it answers with 503", "", "", 503),
    way("it panics", "", "panic", 201),
    way(
        "a statement fails, and it answers with 201 all the same",
        "",
        "SELECT nothing",
        201,
    ),
    way(
        "a statement fails, and it answers with 303 all the same",
        "",
        "SELECT nothing",
        303,
    ),
    way("a constraint fails at the commit (23503)", "23503", "", 201),
    way("a value is out of range at the commit (22003)", "22003", "", 201),
    way("a trigger raises an exception at the commit (P0001)", "P0001", "", 201),
    way(
        "a role of its own may not write at the commit (42501)",
        "42501",
        "",
        201,
    ),
    way(
        "it makes its transaction read only",
        "",
        "SET TRANSACTION READ ONLY",
        201,
    ),
    way("it cannot be serialized (40001)", "40001", "", 201),
    way("it is in a deadlock (40P01)", "40P01", "", 201),
    way("the disk is full (53100)", "53100", "", 201),
    way("somebody cancels the commit (57014)", "57014", "", 201),
    way(
        "its connection is lost before the commit",
        "",
        "SELECT pg_terminate_backend(pg_backend_pid())",
        201,
    ),
    way("its connection is lost in a deferred trigger", "lost", "", 201),
    way("it is idle in its transaction for too long (25P03)", "", "idle", 201),
    way("it commits by SQL text", "", "COMMIT", 201),
    way("it rolls back by SQL text", "", "ROLLBACK", 201),
    way(
        "it rolls back by SQL text, and begins again",
        "",
        "ROLLBACK; BEGIN",
        201,
    ),
    way("it commits by SQL text, and answers with 404", "", "COMMIT", 404),
    way("it commits by SQL text, and answers with 500", "", "COMMIT", 500),
    way(
        "a savepoint cannot begin, it writes on, and answers with 500",
        "",
        "escape",
        500,
    ),
];

const TABLES: &str = "
    CREATE TABLE ledger (entry text NOT NULL, fails text NOT NULL);
    CREATE TABLE taken (id int PRIMARY KEY);
    INSERT INTO taken VALUES (1);
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.fails = 'lost' THEN PERFORM pg_terminate_backend(pg_backend_pid());
        ELSIF NEW.fails <> '' THEN RAISE EXCEPTION 'refused on purpose' USING ERRCODE = NEW.fails;
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER failing AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail();
    CREATE ROLE nobody_at_all;";

async fn act(connection: &mut PgConnection, entry: &str, way: &Way) -> sqlx::Result<()> {
    let row = sqlx::query("INSERT INTO ledger VALUES ($1, $2)")
        .bind(entry.to_owned())
        .bind(way.fails);
    row.execute(&mut *connection).await?;
    match way.then {
        "" => {}
        "panic" => panic!("on purpose"),
        "savepoint" => {
            let mut savepoint = connection.begin().await?;
            let _ = sqlx::raw_sql("SELECT nothing").execute(&mut *savepoint).await;
            savepoint.rollback().await?;
        }
        "idle" => {
            sqlx::raw_sql("SET LOCAL idle_in_transaction_session_timeout = 50")
                .execute(connection)
                .await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // After a statement that failed, sqlx rolls the whole transaction back where a savepoint cannot begin.
        "escape" => {
            let _ = sqlx::raw_sql("SELECT nothing").execute(&mut *connection).await;
            assert!(connection.begin().await.is_err(), "it is aborted");
            let row = sqlx::query("INSERT INTO ledger VALUES ($1, '')").bind(entry.to_owned());
            row.execute(connection).await?;
        }
        // Its error is swallowed.
        sql => {
            let _ = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
        }
    }
    Ok(())
}

async fn work(transaction: &mut Transaction, entry: &str, number: usize) -> Response {
    let way = &WAYS[number];
    let Ok(connection) = transaction.begin().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    if act(connection, entry, way).await.is_err() {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let status = StatusCode::from_u16(way.status).expect("a status");
    (status, "the handler's own").into_response()
}

#[idempotent(ttl = "24h", scope = global, required = false)]
async fn protected(Path(way): Path<usize>, mut transaction: Transaction, entry: String) -> Response {
    work(&mut transaction, &entry, way).await
}

#[idempotent(ttl = "24h", scope = global, on_outage = "run")]
async fn in_outage(Path(way): Path<usize>, mut transaction: Transaction, entry: String) -> Response {
    work(&mut transaction, &entry, way).await
}

/// An answer as the table has it.
fn shown(answer: Option<&Answer>) -> String {
    let Some(answer) = answer else {
        return String::from("its connection breaks");
    };
    let mut shown = answer.status.as_u16().to_string();
    if answer.body != "the handler's own" {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match body["code"].as_str() {
            Some(code) => shown = format!("{shown} `{code}`"),
            None => shown += " of a panic",
        }
    }
    if answer.headers.contains_key("retry-after") {
        shown += ", try again";
    }
    if answer.is_replay() {
        shown = format!("replay of {shown}");
    }
    shown
}

/// A service whose records are kept, and one whose backend is away, on one ledger.
struct Services {
    server: PostgresServer,
    protected: Service,
    unprotected: Service,
}

impl Services {
    async fn start() -> Self {
        let server = PostgresServer::start().await;
        server.execute(TABLES).await;
        let pool = PgPoolOptions::new().max_connections(3).connect(&server.url()).await;
        let backend = PostgresBackend::new(pool.expect("the server answers"));
        backend.migrate().await.expect("a table");
        let away = backend.clone().with_table("not_there");
        let protected = Service::start(backend, Router::new().route("/{way}", post(protected)), None).await;
        let unprotected = Service::start(away, Router::new().route("/{way}", post(in_outage)), None).await;
        Self {
            server,
            protected,
            unprotected,
        }
    }

    /// Sends a request, and says how it was answered, unless its connection broke, and how many rows are there.
    async fn send(&self, service: &Service, way: usize, key: Option<&str>, entry: &str) -> (Option<Answer>, i64) {
        let call = service
            .client
            .call(Method::POST, &format!("/{way}"))
            .body(entry.to_owned());
        let answer = match key {
            Some(key) => call.key(key).try_send().await,
            None => call.try_send().await,
        };
        let answer = answer.ok();
        let rows = format!("SELECT count(*) FROM ledger WHERE entry = '{entry}'");
        (answer, self.server.query(&rows).await)
    }

    /// The record of a key: its state, or that there is none.
    async fn record(&self, key: &str) -> &'static str {
        let state = format!("SELECT coalesce((SELECT state FROM idem_records WHERE key LIKE '%:{key}'), 0)::int");
        match self.server.query::<i32>(&state).await {
            0 => "released",
            1 => "claimed",
            2 => "completed",
            _ => "without an answer",
        }
    }

    async fn line(&self, number: usize) -> String {
        let key = format!("with-{number}");
        let (keyed, rows) = self.send(&self.protected, number, Some(&key), &key).await;
        let record = self.record(&key).await;
        let (next, _) = self.send(&self.protected, number, Some(&key), &key).await;
        let (unkeyed, unkeyed_rows) = self
            .send(&self.protected, number, None, &format!("without-{number}"))
            .await;
        let outage = format!("outage-{number}");
        let (outage, outage_rows) = self.send(&self.unprotected, number, Some(&outage), &outage).await;
        for (answer, rows) in [(&keyed, rows), (&unkeyed, unkeyed_rows), (&outage, outage_rows)] {
            let status = answer.as_ref().map(|answer| answer.status);
            let is_success = status.is_some_and(|status| status.is_success() || status.is_redirection());
            assert!(
                !is_success || rows == 1,
                "{}: {answer:?} for {rows} rows",
                WAYS[number].name
            );
        }
        format!(
            "| {} | {} | {rows} | {record} | {} | {} | {unkeyed_rows} | {} | {outage_rows} |\n",
            WAYS[number].name,
            shown(keyed.as_ref()),
            shown(next.as_ref()),
            shown(unkeyed.as_ref()),
            shown(outage.as_ref())
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_transaction_is_as_the_documentation_has_it() {
    in_time(async {
        let services = Services::start().await;
        let mut table = String::from(
            "| the handler writes a row, and then … | with a key | rows | key | the next request | without a key | rows | in \
             an outage | rows |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for number in 0..WAYS.len() {
            let _ = write!(table, "{}", services.line(number).await);
        }
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/transactions.md");
        let text = std::fs::read_to_string(page).expect("the page is there");
        let (before, rest) = text.split_once("<!-- ends -->\n").expect("the mark before the table");
        let (documented, after) = rest.split_once("<!-- /ends -->").expect("the mark behind the table");
        if std::env::var_os("IDEM_BLESS").is_some() {
            let text = format!("{before}<!-- ends -->\n{table}<!-- /ends -->{after}");
            std::fs::write(page, text).expect("the page can be written");
            return;
        }
        assert_eq!(documented, table, "IDEM_BLESS=1 writes the table anew");
    })
    .await;
}

#[tokio::test]
async fn the_log_names_what_the_database_refused_and_what_to_do() {
    in_time(async {
        let (log, _guard) = Log::listen(tracing::Level::WARN);
        let services = Services::start().await;
        for (sqlstate, advice) in [
            ("23503", "check for this in the handler"),
            ("40001", "told to try again"),
        ] {
            let number = WAYS.iter().position(|way| way.fails == sqlstate).expect("it is listed");
            let (answer, _) = services
                .send(&services.protected, number, Some(sqlstate), sqlstate)
                .await;
            assert_eq!(answer.expect("an answer").problem(), "rolled-back");
            let lines = log.lines_with(advice);
            assert_eq!(lines.len(), 1, "{}", log.text());
            assert!(
                lines[0].contains("refused on purpose") && lines[0].contains(sqlstate),
                "{lines:?}"
            );
        }
    })
    .await;
}

/// The text says no more than is known: it ran, and nobody knows. Without a key, nothing invites a second run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_does_not_come_is_unknown_and_its_retry_finds_out() {
    in_time(async {
        let services = Services::start().await;
        let server = &services.server;
        // A commit that wants to be on a standby waits for ever, once it is written here. All others do not want to.
        server.set("synchronous_commit", "local").await;
        server.set("synchronous_standby_names", "nobody").await;
        let routes = Router::new().route("/waits", post(waiting_for_a_standby));
        let pool = PgPoolOptions::new().max_connections(3).connect(&server.url()).await;
        let service = Service::start(PostgresBackend::new(pool.expect("it answers")), routes, None).await;
        let send = |key: Option<&str>| {
            let call = service.client.call(Method::POST, "/waits").body("waits");
            key.map_or(call, |_| {
                service.client.call(Method::POST, "/waits").body("waits").key("k")
            })
            .send()
        };
        for key in [Some("k"), None] {
            let answer = send(key).await;
            assert_eq!(answer.problem(), "not-committed", "{answer:?}");
            assert_eq!(answer.headers.contains_key("retry-after"), key.is_some(), "{answer:?}");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(
                text.contains("The request ran") && !text.contains("did not run"),
                "{text}"
            );
            assert_eq!(text.contains("send it again"), key.is_some(), "{text}");
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            until("it waits", async || server.query::<i64>(waiting).await == 1).await;
            server
                .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                .await;
            until("it is gone", async || server.query::<i64>(waiting).await == 0).await;
        }
        service.idempotency.drain().await;
        let retry = send(Some("k")).await;
        assert!(retry.is_replay() && retry.status == StatusCode::CREATED, "{retry:?}");
        assert_eq!(
            server.query::<i64>("SELECT count(*) FROM ledger").await,
            2,
            "one of each"
        );
    })
    .await;
}

#[idempotent(ttl = "24h", scope = global, required = false)]
async fn waiting_for_a_standby(mut transaction: Transaction, entry: String) -> Result<StatusCode, StatusCode> {
    let failed = |_| StatusCode::BAD_GATEWAY;
    let connection = transaction.begin().await.map_err(failed)?;
    let row = sqlx::query("INSERT INTO ledger VALUES ($1, '')").bind(entry);
    row.execute(&mut *connection).await.map_err(failed)?;
    sqlx::raw_sql("SET LOCAL synchronous_commit = on")
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(StatusCode::CREATED)
}

/// As the isolation level demands, the handler's snapshot is older than a renewal of its lease and than a waiter's mark.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_read_committed_a_long_handler_and_one_that_is_waited_for_can_be_committed() {
    in_time(async {
        let services = Services::start().await;
        let routes = Router::new().route("/{level}", post(isolated));
        let pool = PgPoolOptions::new()
            .connect(&services.server.url())
            .await
            .expect("it answers");
        let service = Service::start(PostgresBackend::new(pool), routes, None).await;
        for (key, level) in [("repeatable", "REPEATABLE%20READ"), ("serializable", "SERIALIZABLE")] {
            let send = || {
                tokio::spawn(
                    service
                        .client
                        .call(Method::POST, &format!("/{level}"))
                        .key(key)
                        .body(level)
                        .send(),
                )
            };
            let first = send();
            let claimed = format!("SELECT count(*) FROM idem_records WHERE key LIKE '%:{key}'");
            until("it is claimed", async || {
                services.server.query::<i64>(&claimed).await == 1
            })
            .await;
            let second = send();
            let (first, second) = (first.await.expect("no panic"), second.await.expect("no panic"));
            assert_eq!(first.status, StatusCode::CREATED, "{level}: {first:?}");
            second.assert_replays(&first);
            let rows = format!("SELECT count(*) FROM ledger WHERE entry = '{level}'");
            assert_eq!(services.server.query::<i64>(&rows).await, 1);
            let renewed = "SELECT count(*) FROM idem_records_leases";
            assert!(
                services.server.query::<i64>(renewed).await > 0,
                "it was long enough to be renewed"
            );
        }
    })
    .await;
}

/// A handler that gives a statement up while it waits for a lock of somebody else's.
#[idempotent(ttl = "24h", scope = global, lease = "30s")]
async fn giving_up(mut transaction: Transaction) -> StatusCode {
    let Ok(connection) = transaction.begin().await else {
        return StatusCode::BAD_GATEWAY;
    };
    let waiting = sqlx::raw_sql("UPDATE taken SET id = 2").execute(connection);
    let _gave_up = tokio::time::timeout(Duration::from_millis(100), waiting).await;
    StatusCode::CONFLICT
}

/// The rollback of a transaction whose statement still waits does not hold up its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_the_handler_has_given_up_does_not_hold_up_its_answer() {
    in_time(async {
        let services = Services::start().await;
        let pool = PgPoolOptions::new()
            .connect(&services.server.url())
            .await
            .expect("it answers");
        let routes = Router::new().route("/giving-up", post(giving_up));
        let service = Service::start(PostgresBackend::new(pool), routes, None).await;
        let _holder = services.server.hold("UPDATE taken SET id = 3").await;
        let send = || service.client.call(Method::POST, "/giving-up").key("k").send();
        let first = send().await;
        assert_eq!(first.status, StatusCode::CONFLICT);
        send().await.assert_replays(&first);
        service.idempotency.drain().await;
    })
    .await;
}

/// What is deferred to the commit is done by the role that the application's pool has chosen, and not by idem's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferred_trigger_runs_as_the_role_of_the_pool() {
    in_time(async {
        let services = Services::start().await;
        services
            .server
            .execute(
                "CREATE ROLE app; CREATE ROLE service LOGIN NOINHERIT; GRANT app TO service; \
                 GRANT ALL ON idem_records, idem_records_leases TO service; GRANT ALL ON ledger TO app; \
                 CREATE TABLE audit (who text); GRANT INSERT ON audit TO app; \
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN INSERT INTO audit VALUES (current_user); RETURN NULL; END $$; \
                 CREATE CONSTRAINT TRIGGER noting AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED \
                 FOR EACH ROW EXECUTE FUNCTION note()",
            )
            .await;
        let url = services.server.url().replace("postgres@", "service@");
        let as_app = PgPoolOptions::new().after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql("SET ROLE app").execute(connection).await.map(|_| ()) })
        });
        let pool = as_app.connect(&url).await.expect("it answers");
        let service = Service::start(
            PostgresBackend::new(pool),
            Router::new().route("/{way}", post(protected)),
            None,
        )
        .await;
        let answer = service
            .client
            .call(Method::POST, "/0")
            .key("k")
            .body("by app")
            .send()
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(
            services
                .server
                .query::<String>("SELECT string_agg(who, ',') FROM audit")
                .await,
            "app"
        );
    })
    .await;
}

/// Two serializable handlers that have nothing in common but the table of records, which is small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_handlers_of_different_keys_do_not_meet_in_the_table_of_records() {
    in_time(async {
        let services = Services::start().await;
        let pool = PgPoolOptions::new()
            .connect(&services.server.url())
            .await
            .expect("it answers");
        let service = Service::start(
            PostgresBackend::new(pool),
            Router::new().route("/", post(serializable)),
            None,
        )
        .await;
        services
            .server
            .execute("CREATE TABLE one (id int); CREATE TABLE two (id int); ANALYZE")
            .await;
        for round in 0..5 {
            let send = |table: &'static str| {
                service
                    .client
                    .call(Method::POST, "/")
                    .key(&format!("{table}-{round}"))
                    .body(table)
                    .send()
            };
            let (one, two) = tokio::join!(send("one"), send("two"));
            assert_eq!([one.status, two.status], [StatusCode::CREATED; 2], "{one:?} {two:?}");
            services.server.execute("ANALYZE idem_records").await;
        }
    })
    .await;
}

#[idempotent(ttl = "24h", scope = global)]
async fn serializable(mut transaction: Transaction, table: String) -> Result<StatusCode, StatusCode> {
    let failed = |_| StatusCode::BAD_GATEWAY;
    let connection = transaction.begin().await.map_err(failed)?;
    let begin = format!("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM {table}");
    sqlx::raw_sql(AssertSqlSafe(begin))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    BOTH.get_or_init(|| Barrier::new(2)).wait().await;
    let insert = format!("INSERT INTO {table} VALUES (1)");
    sqlx::raw_sql(AssertSqlSafe(insert))
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(StatusCode::CREATED)
}

#[idempotent(ttl = "24h", scope = global, lease = "1s", in_flight = "wait")]
async fn isolated(
    Path(level): Path<String>,
    mut transaction: Transaction,
    entry: String,
) -> Result<StatusCode, StatusCode> {
    let failed = |_| StatusCode::BAD_GATEWAY;
    let connection = transaction.begin().await.map_err(failed)?;
    let level = format!("SET TRANSACTION ISOLATION LEVEL {level}; SELECT count(*) FROM ledger");
    sqlx::raw_sql(AssertSqlSafe(level))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    // Longer than a third of its lease, and longer than the second request takes to wait.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let row = sqlx::query("INSERT INTO ledger VALUES ($1, '')").bind(entry);
    row.execute(connection).await.map_err(failed)?;
    Ok(StatusCode::CREATED)
}

static BEGUN: AtomicU32 = AtomicU32::new(0);

static BOTH: OnceLock<Barrier> = OnceLock::new();

/// Gives its first `begin` up before the server has answered.
#[idempotent(ttl = "24h", scope = global)]
async fn impatient(mut transaction: Transaction, entry: String) -> Result<StatusCode, StatusCode> {
    let failed = |_| StatusCode::BAD_GATEWAY;
    if BEGUN.fetch_add(1, Ordering::SeqCst) == 0 {
        let mut beginning = Box::pin(transaction.begin());
        for _ in 0..3 {
            if (&mut beginning).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let connection = transaction.begin().await.map_err(failed)?;
    let row = sqlx::query("INSERT INTO ledger VALUES ($1, '')").bind(entry);
    row.execute(connection).await.map_err(failed)?;
    Ok(StatusCode::CREATED)
}

/// Whatever others have left on it, a handler's transaction is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_does_not_join_one_that_others_have_left_open_or_that_cannot_write() {
    in_time(async {
        let server = PostgresServer::start().await;
        server.execute(TABLES).await;
        for (number, left) in [
            "BEGIN",
            "BEGIN; INSERT INTO ledger VALUES ('somebody else''s', '')",
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM idem_records",
            "BEGIN; SELECT nothing",
            "SET default_transaction_read_only = on",
            "BEGIN READ ONLY",
        ]
        .into_iter()
        .enumerate()
        {
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .connect(&server.url())
                .await
                .expect("it answers");
            let backend = PostgresBackend::new(pool.clone());
            backend.migrate().await.expect("a table");
            let routes = Router::new()
                .route("/{way}", post(protected))
                .route("/impatient", post(impatient));
            let service = Service::start(backend, routes, None).await;
            {
                let mut connection = pool.acquire().await.expect("it is free");
                let _ = sqlx::raw_sql(left).execute(&mut *connection).await;
            }
            let send = |path: &'static str, key: String| {
                service
                    .client
                    .call(Method::POST, path)
                    .key(&key)
                    .body(key.clone())
                    .send()
            };
            for path in ["/0", "/impatient"] {
                let answer = send(path, format!("{number}{path}")).await;
                assert_eq!(answer.status, StatusCode::CREATED, "{left}: {answer:?}");
                let rows = format!("SELECT count(*) FROM ledger WHERE entry = '{number}{path}'");
                assert_eq!(server.query::<i64>(&rows).await, 1, "{left}");
            }
        }
        let others = "SELECT count(*) FROM ledger WHERE entry LIKE 'somebody%'";
        assert_eq!(
            server.query::<i64>(others).await,
            0,
            "what others had left open is not committed"
        );
    })
    .await;
}
