//! An order survives its process: killed at every message that it sends or gets, or at every write to its file, it is placed once.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use idem_tests::{PostgresServer, Strace, Tripwire, in_time};
use tokio::task::JoinSet;

use crate::service::{Service, place};

/// A few more messages than an order takes, so that some processes live.
const MESSAGES: usize = 30;

/// A few more writes and syncs than an order takes in SQLite.
const WRITES: usize = 24;

/// How many orders are placed at a time.
const WORKERS: usize = 6;

/// Runs `run` for each number below `runs`, a few at a time, and returns how many processes were killed.
async fn run_all<F: Future<Output = bool> + Send + 'static>(
    runs: usize,
    run: impl Fn(usize) -> F + Send + Sync + 'static,
) -> usize {
    let (run, next) = (Arc::new(run), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (run, next) = (run.clone(), next.clone());
        workers.spawn(async move {
            let mut killed = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= runs {
                    return killed;
                }
                killed += usize::from(run(number).await);
            }
        });
    }
    workers.join_all().await.into_iter().sum()
}

/// Sends the order until it is placed. Says whether the first process placed it, which it does unless it was killed or slow.
async fn retry(survivor: &Service, first: Result<reqwest::Response, reqwest::Error>, item: &str) -> bool {
    let retry = loop {
        let answer = place(&survivor.url, item).await.expect("it lives");
        if answer.status() == 201 {
            break answer;
        }
        // While the database looks for what the dead one has left, or its claim has not lapsed.
        assert!([409, 503].contains(&answer.status().as_u16()), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let Ok(first) = first else { return false };
    // Its process was too slow to claim.
    if first.status() == 503 {
        return false;
    }
    assert_eq!(first.status(), 201, "{first:?}");
    assert!(retry.headers().contains_key("idempotent-replayed"), "{retry:?}");
    let (first, retry) = (first.bytes().await, retry.bytes().await);
    assert_eq!(first.expect("a body"), retry.expect("a body"));
    true
}

async fn an_order_in_postgres_is_placed_once(client: &'static str) {
    let database = Arc::new(PostgresServer::start().await);
    let survivor = Arc::new(Service::start(client, database.url()).await);
    let scene = (database.clone(), survivor);
    let killed = run_all(MESSAGES, move |number| {
        let (database, survivor) = scene.clone();
        async move {
            let tripwire = Tripwire::default();
            let behind = tripwire.before(database.address()).await.to_string();
            let url = database.url().replace(&database.address().to_string(), &behind);
            let victim = Service::start(client, url).await;
            tripwire.arm(number, victim.process_id());
            let item = format!("item-{number}");
            let first = place(&victim.url, &item).await;
            tripwire.disarm();
            drop(victim);
            !retry(&survivor, first, &item).await
        }
    })
    .await;
    assert!(
        (8..MESSAGES).contains(&killed),
        "{killed} of {MESSAGES} killed: each message should be tried, and some lived"
    );
    let rows: i64 = database.query("SELECT count(*) FROM orders").await;
    let items: i64 = database.query("SELECT count(DISTINCT item) FROM orders").await;
    assert_eq!((rows, items), (30, 30), "{killed} were killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_sqlx_08_an_order_is_placed_once_whatever_message_kills() {
    in_time(an_order_in_postgres_is_placed_once("sqlx-0.8")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_tokio_postgres_an_order_is_placed_once_whatever_message_kills() {
    in_time(an_order_in_postgres_is_placed_once("tokio-postgres")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_diesel_an_order_is_placed_once_whatever_message_kills() {
    in_time(an_order_in_postgres_is_placed_once("diesel")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_sea_orm_an_order_is_placed_once_whatever_message_kills() {
    in_time(an_order_in_postgres_is_placed_once("sea-orm")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_rusqlite_an_order_is_placed_once_whatever_write_kills() {
    in_time(async {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let runs = folder.clone();
        let killed = run_all(WRITES, move |number| {
            let folder = runs.clone();
            async move {
                let file = folder.path().join(format!("{number}.db")).display().to_string();
                let victim = Service::start("rusqlite", file.clone()).await;
                let strace = Strace::kill_after(number + 1, victim.process_id()).await;
                let first = place(&victim.url, "item").await;
                drop(victim);
                drop(strace);
                let survivor = Service::start("rusqlite", file.clone()).await;
                let is_killed = !retry(&survivor, first, "item").await;
                drop(survivor);
                let database = rusqlite::Connection::open(file).expect("the file is there");
                let count = database.query_row("SELECT count(*) FROM orders", [], |row| row.get(0));
                assert_eq!(count, Ok(1_i64), "killed at write {number}");
                is_killed
            }
        })
        .await;
        assert!(
            (5..WRITES).contains(&killed),
            "{killed} of {WRITES} killed: each write should be tried, and some lived"
        );
    })
    .await;
}
