//! How the Postgres backend shares the application's pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use idem_axum::PostgresBackend;
use idem_axum::sqlx::PgPool;
use idem_axum::sqlx::postgres::PgPoolOptions;
use idem_core::{Acquisition, Backend as _, Claim, Completion, Fingerprint, IdempotencyKey, Policy, RecordKey, Scope};
use idem_tests::{PostgresServer, in_time, until};
use tokio::task::JoinSet;

/// A backend whose pool has one connection, which is open; and the schema of its table.
async fn backend_on_one(server: &PostgresServer, options: PgPoolOptions) -> (PostgresBackend, PgPool, String) {
    let (_, schema) = server.backend().await;
    let pool = options.max_connections(1).connect(&server.url()).await;
    let pool = pool.expect("the server answers");
    (PostgresBackend::new(pool.clone()).with_schema(&schema), pool, schema)
}

fn record_key(key: &str) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(key)).expect("a valid key")
}

fn claim() -> Claim {
    Claim::first(Fingerprint::NONE, &Policy::new(Duration::from_mins(10)))
}

async fn acquire(backend: &PostgresBackend, key: &str) {
    let claimed = backend.claim(&record_key(key), &claim()).await;
    assert_eq!(claimed.expect("a healthy server"), Acquisition::Acquired, "{key}");
}

/// The pool tries a connection before and after it lends it.
#[tokio::test]
async fn calls_that_wait_pass_a_connection_on_eight_at_a_time() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let lent = Arc::new(AtomicU32::new(0));
        let counted = lent.clone();
        let options = PgPoolOptions::new().before_acquire(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        });
        let (backend, pool, _) = backend_on_one(&server, options).await;
        let taken = pool.acquire().await.expect("it is free");
        let before = lent.load(Ordering::Relaxed);
        let keys: Vec<_> = (0..40).map(|key| key.to_string()).collect();
        let mut claims = join_all(keys.iter().map(|key| acquire(&backend, key)));
        assert!((&mut claims).now_or_never().is_none(), "all wait");
        drop(taken);
        claims.await;
        assert_eq!(lent.load(Ordering::Relaxed) - before, 5, "for eight calls each");
        until("the pool has it back", async || pool.num_idle() == 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_who_use_the_pool_get_their_share_however_many_calls_wait() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, pool, _) = backend_on_one(&server, PgPoolOptions::new()).await;
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let backend = backend.clone();
            calls.spawn(async move {
                loop {
                    backend.check().await.expect("a healthy server");
                }
            });
        }
        for _ in 0..20 {
            pool.acquire().await.expect("its turn comes");
        }
        assert!(calls.try_join_next().is_none(), "no call fails");
    })
    .await;
}

#[tokio::test]
async fn a_connection_passed_on_to_a_call_that_is_given_up_goes_back_to_the_pool() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, pool, _) = backend_on_one(&server, PgPoolOptions::new()).await;
        let taken = pool.acquire().await.expect("it is free");
        let mut one = Box::pin(acquire(&backend, "one"));
        let mut other = Box::pin(acquire(&backend, "other"));
        for call in [&mut one, &mut other] {
            assert!(call.now_or_never().is_none(), "it waits");
        }
        drop(taken);
        one.await;
        assert_eq!(pool.num_idle(), 0, "it was passed on");
        drop(other);
        until("the pool has it back", async || pool.num_idle() == 1).await;
        acquire(&backend, "next").await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_has_failed_is_not_passed_on() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, _, schema) = backend_on_one(&server, PgPoolOptions::new()).await;
        let (held, mine) = (record_key("held"), claim());
        let claimed = backend.claim(&held, &mine).await;
        assert_eq!(claimed.expect("a healthy server"), Acquisition::Acquired);
        let _holder = server
            .hold(&format!("SELECT FROM {schema}.idem_records FOR UPDATE"))
            .await;
        let completing = backend.complete(&held, &mine, &Completion::NotStored);
        let closing = async {
            let waiting = format!("FROM pg_stat_activity WHERE query LIKE '%{schema}%' AND wait_event_type = 'Lock'");
            until("it waits for the row", async || {
                server.query::<i64>(&format!("SELECT count(*) {waiting}")).await == 1
            })
            .await;
            server
                .execute(&format!("SELECT pg_terminate_backend(pid) {waiting}"))
                .await;
        };
        let (completed, (), ()) = tokio::join!(completing, acquire(&backend, "next"), closing);
        completed.expect_err("its connection was closed");
    })
    .await;
}
