//! What the Postgres backend stores, needs and says, on a real server.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use idem_axum::sqlx::{self, AssertSqlSafe, PgPool};
use idem_axum::{BackendErrorKind, PostgresBackend};
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use idem_tests::{Order, PostgresServer, Service, in_time};
use tokio::task::JoinSet;

const LONG: Duration = Duration::from_mins(10);

fn record_key(key: &str) -> RecordKey {
    RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of(key)).expect("a valid key")
}

fn claim() -> Claim {
    Claim::first(Fingerprint::NONE, &ClaimPolicy::new(LONG).with_lease(LONG))
}

/// How many of 16 concurrent claims on `key` are acquired.
async fn race(backends: &[PostgresBackend], key: &str) -> usize {
    let mut claims = JoinSet::new();
    for backend in backends.iter().cycle().take(16) {
        let (backend, key) = (backend.clone(), record_key(key));
        claims.spawn(async move { backend.claim(&key, &claim()).await.expect("a healthy server") });
    }
    let claimed = claims.join_all().await;
    claimed
        .into_iter()
        .filter(|claimed| *claimed == Acquisition::Acquired)
        .count()
}

/// A pool with `settings` of the server's for each of its connections.
fn pool_with(url: &str, settings: &[(&str, &str)]) -> PgPool {
    let options: PgConnectOptions = url.parse().expect("a valid URL");
    PgPoolOptions::new()
        .max_connections(8)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options.options(settings.iter().copied()))
}

/// The URL of another database of the same server.
fn in_database(url: &str, database: &str) -> String {
    let server = url.rsplit_once('/').expect("a URL with a database").0;
    format!("{server}/{database}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_and_one_without_the_table_are_not_ready() {
    let server = PostgresServer::shared().await;
    let (backend, schema) = server.backend().await;
    backend.check().await.expect("it is healthy");
    let standby = pool_with(&server.url(), &[("default_transaction_read_only", "on")]);
    let error = PostgresBackend::new(standby).with_schema(&schema).check().await;
    assert_eq!(
        error.expect_err("no claim would do").kind(),
        BackendErrorKind::Unavailable
    );
    let pool = pool_with(&server.url(), &[]);
    let error = PostgresBackend::new(pool).with_schema("nowhere").check().await;
    assert_eq!(error.expect_err("it is not migrated").kind(), BackendErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_one_row_with_a_readable_key() {
    let server = PostgresServer::shared().await;
    let (backend, schema) = server.backend().await;
    let service = Service::start(backend, Router::new(), None).await;
    service.client.order("k", &Order::new("o")).send().await;
    let found: (String, i16, bool, i64) = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT key, state, id = sha256(key::bytea), extract(epoch FROM expires_at - now())::bigint \
         FROM {schema}.idem_records"
    )))
    .fetch_one(&mut server.connection().await)
    .await
    .expect("one row");
    let (key, state, is_found_by_its_hash, left) = found;
    assert_eq!((key.as_str(), state), ("POST%20/orders:acme:k", 2));
    assert!(is_found_by_its_hash);
    let day = 24 * 60 * 60;
    assert!(left <= day && left > day - 60, "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_row_is_absent_at_once_and_won_by_exactly_one_of_many() {
    let server = PostgresServer::shared().await;
    let (one, schema) = server.backend().await;
    let other = PostgresBackend::new(server.pool().await).with_schema(&schema);
    let backends = [one, other];
    for round in 0..20 {
        let key = format!("k{round}");
        let old = claim();
        assert_eq!(
            backends[0].claim(&record_key(&key), &old).await.expect("claims"),
            Acquisition::Acquired
        );
        if round % 2 == 0 {
            let completed = backends[0]
                .complete(&record_key(&key), &old, &Completion::NotStored, old.ttl)
                .await;
            assert_eq!(completed.expect("completes"), Fenced::Applied);
        }
        server
            .execute(&format!(
                "UPDATE {schema}.idem_records SET expires_at = now() - interval '1 second'"
            ))
            .await;
        for ended in [
            backends[0].renew(&record_key(&key), &old).await,
            backends[0]
                .complete(&record_key(&key), &old, &Completion::NotStored, old.ttl)
                .await,
            backends[0].release(&record_key(&key), &old).await,
        ] {
            assert_eq!(
                ended.expect("a healthy server"),
                Fenced::Superseded,
                "an expired claim is nobody's"
            );
        }
        assert_eq!(race(&backends, &key).await, 1, "of 16 claims over an expired row");
    }
    let rows: i64 = server
        .query(&format!("SELECT count(*) FROM {schema}.idem_records"))
        .await;
    assert_eq!(rows, 20, "each was written over");
}

/// Where the database is set up to refuse what it cannot serialize, statements that meet are repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_database_that_serializes_one_of_many_wins_and_nobody_fails() {
    let server = PostgresServer::shared().await;
    for isolation in ["serializable", "repeatable read"] {
        let (_, schema) = server.backend().await;
        let pool = pool_with(&server.url(), &[("default_transaction_isolation", isolation)]);
        let backend = PostgresBackend::new(pool).with_schema(&schema);
        for round in 0..20 {
            assert_eq!(race(std::slice::from_ref(&backend), &format!("k{round}")).await, 1);
        }
        server
            .execute(&format!(
                "UPDATE {schema}.idem_records SET expires_at = now() - interval '1 second'"
            ))
            .await;
        for round in 0..20 {
            assert_eq!(race(std::slice::from_ref(&backend), &format!("k{round}")).await, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_15_what_cannot_be_read_is_an_error_and_not_absent() {
    let server = PostgresServer::shared().await;
    let (backend, schema) = server.backend().await;
    let service = Service::start(backend, Router::new(), None).await;
    let order = Order::new("o");
    service.client.order("k", &order).send().await;
    for (spoilt, mended) in [
        ("state = 0", "state = 2"),
        ("state = 4", "state = 2"),
        ("state = 1", "state = 2"),
        ("token = '\\x00'", "token = decode(repeat('00', 16), 'hex')"),
        ("fingerprint = ''", "fingerprint = decode(repeat('00', 33), 'hex')"),
        ("payload = NULL", "payload = ''"),
        ("payload = 'no response'", "payload = ''"),
    ] {
        server
            .execute(&format!("UPDATE {schema}.idem_records SET {spoilt}"))
            .await;
        let answer = service.client.order("k", &order).send().await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{spoilt}");
        assert_eq!(answer.problem(), "backend-unavailable");
        server
            .execute(&format!("UPDATE {schema}.idem_records SET {mended}"))
            .await;
    }
    assert_eq!(service.app.executions("o"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_or_a_table_of_its_own_keeps_two_applications_apart() {
    let server = PostgresServer::shared().await;
    let (backend, schema) = server.backend().await;
    let other = backend.clone().with_table("Other_1");
    other.migrate().await.expect("the table can be made");
    for backend in [backend, other] {
        let service = Service::start(backend, Router::new(), None).await;
        assert!(!service.client.order("k", &Order::new("o")).send().await.is_replay());
    }
    for table in ["idem_records", "\"Other_1\""] {
        let rows: i64 = server.query(&format!("SELECT count(*) FROM {schema}.{table}")).await;
        assert_eq!(rows, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_together_migrate_one_after_the_other_and_again() {
    let server = PostgresServer::shared().await;
    let mut migrations = JoinSet::new();
    for _ in 0..8 {
        let backend = PostgresBackend::new(server.pool().await).with_schema("migrated_together");
        migrations.spawn(async move { backend.migrate().await });
    }
    while let Some(migrated) = migrations.join_next().await {
        migrated.expect("no panic").expect("it can be migrated");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sql_for_those_who_migrate_by_themselves_makes_the_same_table() {
    let server = PostgresServer::shared().await;
    server.execute("CREATE DATABASE by_hand").await;
    let url = in_database(&server.url(), "by_hand");
    let pool = PgPool::connect(&url).await.expect("the server answers");
    for (_, sql) in idem_postgres::MIGRATIONS {
        sqlx::raw_sql(*sql).execute(&pool).await.expect("it is SQL");
    }
    let backend = PostgresBackend::new(pool);
    assert_eq!(race(std::slice::from_ref(&backend), "k").await, 1);
    backend.migrate().await.expect("and what is there is taken as it is");
}

/// The permissions in the documentation of `idem-postgres` are enough for everything but migrating.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_permissions_are_enough_and_without_them_it_is_an_outage() {
    let server = PostgresServer::shared().await;
    let (_, schema) = server.backend().await;
    let role = format!("app_of_{schema}");
    server
        .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter2'"))
        .await;
    let url = server.url().replace("postgres@", &format!("{role}:hunter2@"));
    let backend = PostgresBackend::new(pool_with(&url, &[])).with_schema(&schema);
    let refused = backend
        .claim(&record_key("k"), &claim())
        .await
        .expect_err("no permission");
    assert_eq!(refused.kind(), BackendErrorKind::Unavailable, "{refused:?}");
    assert!(!format!("{refused:?}{refused}{backend:?}").contains("hunter2"));

    server
        .execute(&format!(
            "GRANT USAGE ON SCHEMA {schema} TO {role};
             GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.idem_records, {schema}.idem_records_leases TO {role}"
        ))
        .await;
    let (key, mine) = (record_key("k"), claim());
    assert_eq!(backend.claim(&key, &mine).await.expect("claims"), Acquisition::Acquired);
    assert_eq!(backend.renew(&key, &mine).await.expect("renews"), Fenced::Applied);
    let changed = backend.changed(&key).await.expect("listens");
    assert_eq!(backend.release(&key, &mine).await.expect("releases"), Fenced::Applied);
    in_time(changed).await;
    assert_eq!(backend.claim(&key, &mine).await.expect("claims"), Acquisition::Acquired);
    let completed = backend.complete(&key, &mine, &Completion::NotStored, mine.ttl).await;
    assert_eq!(completed.expect("completes"), Fenced::Applied);
    assert_eq!(backend.sweep(10).await.expect("sweeps"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_says_what_to_do_and_no_password() {
    let server = PostgresServer::shared().await;
    let nowhere = "postgres://app:hunter2@127.0.0.1:1/shop";
    let (_, schema) = server.backend().await;
    let not_migrated = PostgresBackend::new(server.pool().await)
        .with_schema(&schema)
        .with_table("nothing");
    let no_schema = PostgresBackend::new(server.pool().await).with_schema("nowhere");
    let no_database = in_database(&server.url(), "nowhere");
    for (backend, kind, advice) in [
        (not_migrated, BackendErrorKind::Config, "PostgresBackend::migrate"),
        (no_schema, BackendErrorKind::Config, "PostgresBackend::migrate"),
        (
            PostgresBackend::new(pool_with(nowhere, &[])),
            BackendErrorKind::Unavailable,
            "",
        ),
        (
            PostgresBackend::new(pool_with(&no_database, &[])),
            BackendErrorKind::Config,
            "database",
        ),
    ] {
        let claimed = tokio::time::timeout(Duration::from_secs(40), backend.claim(&record_key("k"), &claim())).await;
        let error = claimed.expect("the pool gives up").expect_err("nothing is there");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(advice), "{error}");
        let mut said = format!("{error:?}");
        let mut cause: Option<&dyn Error> = Some(&error);
        while let Some(error) = cause {
            said = format!("{said}\n{error}");
            cause = error.source();
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}
