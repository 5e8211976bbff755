//! IDEM-4 on Postgres: who is told, and by what.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::sqlx::postgres::PgListener;
use idem_axum::{PostgresBackend, sqlx};
use idem_core::{Acquisition, Backend as _, Claim, ClaimPolicy, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{Order, PostgresServer, Process, Proxy, Service, in_time, until};
use reqwest::Method;
use tokio::task::JoinSet;

fn record_key(key: &str) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(key)).expect("a valid key")
}

/// Never lapses within a test, so nobody looks again by himself.
fn claim() -> Claim {
    let long = Duration::from_mins(10);
    Claim::first(Fingerprint::NONE, &ClaimPolicy::new(long).with_lease(long))
}

async fn claimed(backend: &PostgresBackend, key: &str) -> (RecordKey, Claim) {
    let (key, mine) = (record_key(key), claim());
    assert_eq!(backend.claim(&key, &mine).await.expect("claims"), Acquisition::Acquired);
    (key, mine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_of_what_nobody_waits_for() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let mut listener = PgListener::connect(&server.url()).await.expect("the server answers");
        let channel = format!("{schema}.idem_records");
        listener.listen(&channel).await.expect("LISTEN");
        let service = Service::start(backend, Router::new(), None).await;

        for key in ["1", "2", "3"] {
            service.client.order(key, &Order::new(key)).send().await;
            service
                .client
                .order(key, &Order::new(key).answered_with(503))
                .send()
                .await;
        }
        let order = Order::new("o").held();
        let first = tokio::spawn(service.client.order_at("/orders/waiting-long", "k", &order).send());
        service.app.wait_until_started(4).await;
        let second = tokio::spawn(service.client.order_at("/orders/waiting-long", "k", &order).send());
        until("somebody waits", async || server.waited_for(&schema).await == 1).await;
        service.app.open_gate();
        let first = first.await.expect("no panic");
        second.await.expect("no panic").assert_replays(&first);

        server
            .execute(&format!("SELECT pg_notify('{channel}', 'the last')"))
            .await;
        let mut told = Vec::new();
        while told.last().is_none_or(|message| message != "the last") {
            told.push(listener.recv().await.expect("a message").payload().to_owned());
        }
        assert_eq!(told.len(), 1 + 1, "{told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_told_across_processes_also_of_the_claim_that_came_in_place() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (here, schema) = server.backend().await;
        let there = PostgresBackend::new(server.pool().await).with_schema(&schema);
        let (key, mine) = claimed(&there, "k").await;
        let changed = here.changed(&key).await.expect("listens");
        server
            .execute(&format!(
                "UPDATE {schema}.idem_records SET lease_until = now() - interval '1 second'"
            ))
            .await;
        let successor = claim();
        let taken = there.take_over(&key, &mine, &successor).await.expect("takes over");
        assert_eq!(taken, Acquisition::Acquired);
        assert_eq!(
            there.release(&key, &successor).await.expect("releases"),
            Fenced::Applied
        );
        changed.await;
    })
    .await;
}

/// Whoever marks a claim that has just ended would wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_claim_to_wait_for_is_sent_to_look_again() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, _) = server.backend().await;
        backend.changed(&record_key("k")).await.expect("listens").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_whose_connection_breaks_look_again_and_ask_anew() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let (key, mine) = claimed(&backend, "k").await;
        for _ in 0..3 {
            let waiters = [(); 3].map(|()| backend.changed(&key));
            let waiters = futures_util::future::try_join_all(waiters).await.expect("they listen");
            server
                .execute(&format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' \
                     AND {}",
                    PostgresServer::is_lock_of(&schema)
                ))
                .await;
            for waiter in waiters {
                waiter.await;
            }
        }
        let changed = backend.changed(&key).await.expect("it listens again");
        assert_eq!(backend.release(&key, &mine).await.expect("releases"), Fenced::Applied);
        changed.await;
    })
    .await;
}

/// The same where nothing says that it is broken: somebody asks the connection for a sign of life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_whose_connection_has_gone_silent_look_again() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (_, schema) = server.backend().await;
        let proxy = Proxy::start(server.address()).await;
        let url = format!("postgres://postgres@{}/postgres", proxy.address);
        let pool = sqlx::PgPool::connect(&url).await.expect("the server answers");
        let backend = PostgresBackend::new(pool).with_schema(&schema);
        let (key, _) = claimed(&backend, "k").await;
        let changed = backend.changed(&key).await.expect("it listens");
        proxy.silence_connections();
        changed.await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_duplicates_wait_over_two_processes_on_postgres() {
    in_time(async {
        let server = PostgresServer::start().await;
        let processes = [(); 2].map(|()| Process::start(env!("CARGO_BIN_EXE_server"), &server.url()));
        let order = Order::new("o").held();
        let mut calls = JoinSet::new();
        for process in processes.iter().cycle().take(200) {
            calls.spawn(process.client.order_at("/orders/waiting-long", "k", &order).send());
        }
        until("somebody waits in each process", async || {
            server.waited_for("public").await == 2
        })
        .await;
        for process in &processes {
            process.client.call(Method::POST, "/gate").send().await;
        }
        let answers = calls.join_all().await;
        let first = answers
            .iter()
            .find(|answer| !answer.is_replay())
            .expect("one was executed");
        assert_eq!(first.status, StatusCode::CREATED);
        for answer in answers.iter().filter(|answer| !std::ptr::eq(*answer, first)) {
            answer.assert_replays(first);
        }
        let mut executions = 0;
        for process in &processes {
            let answer = process.client.call(Method::GET, "/executions/o").send().await;
            executions += answer.json().as_u64().expect("a number");
        }
        assert_eq!(executions, 1);
    })
    .await;
}
