//! Duplicates that arrive while the first one's order is placed.

use std::panic::resume_unwind;

use idem_tests::{PostgresServer, RedisServer, until};
use tokio::task::JoinHandle;

use crate::client::{Answer, Client, order};
use crate::process::Service;

/// Sends an order on its way.
fn send(client: &Client) -> JoinHandle<Answer> {
    let client = client.clone();
    tokio::spawn(async move { client.post("/shipping/order", "acme-demo", "k", &order("a")).await })
}

async fn answer(call: JoinHandle<Answer>) -> Answer {
    call.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// The duplicate has what the first one has, and says that it is a replay.
fn assert_replays(duplicate: &Answer, first: &Answer) {
    assert_eq!((first.status, duplicate.status), (201, 201), "{first:?} {duplicate:?}");
    assert_eq!(duplicate.body, first.body);
    assert_eq!(duplicate.header("content-type"), first.header("content-type"));
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(duplicate.header("idempotent-replayed"), Some("true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_during_the_delay_gets_the_first_ones_answer() {
    let mut service = Service::start(3000);

    let first = send(&service.client);
    service.process.wait_for_log("packing");
    let duplicate = send(&service.client);

    assert_replays(&answer(duplicate).await, &answer(first).await);
    assert_eq!(service.client.listed("acme-demo").await, ["a"]);
}

/// Two processes over one database, of which the second gets the duplicate.
async fn assert_replays_from_another_process(variables: &[(&str, &str)], waits: impl AsyncFn()) {
    let variables = [&[("SHIPPING_DELAY_MS", "3000")], variables].concat();
    let mut service = Service::start_with(&variables);
    let other = Service::start_with(&variables);

    let first = send(&service.client);
    service.process.wait_for_log("packing");
    let duplicate = send(&other.client);
    waits().await;

    assert_replays(&answer(duplicate).await, &answer(first).await);
    assert_eq!(other.client.listed("acme-demo").await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_a_duplicate_gets_the_first_ones_answer_from_another_process() {
    let redis = RedisServer::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = format!("sqlite:{}?mode=rwc", folder.path().join("shared.db").display());
    let variables = [("DATABASE_URL", &*database), ("REDIS_URL", &redis.url())];

    // Only who waits for an answer listens for it.
    assert_replays_from_another_process(&variables, async || redis.wait_for_calls("subscribe", 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_postgres_a_duplicate_gets_the_first_ones_answer_from_another_process() {
    let postgres = PostgresServer::start().await;

    assert_replays_from_another_process(&[("DATABASE_URL", &postgres.url())], async || {
        until("the duplicate waits", async || postgres.waited_for("public").await == 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_and_postgres_the_records_are_in_redis() {
    let (redis, postgres) = (RedisServer::start().await, PostgresServer::start().await);
    let service = Service::start_with(&[
        ("SHIPPING_DELAY_MS", "0"),
        ("DATABASE_URL", &postgres.url()),
        ("REDIS_URL", &redis.url()),
    ]);

    answer(send(&service.client)).await;

    assert_eq!(redis.records().await, 1);
    let is_there: bool = postgres.query("SELECT to_regclass('idem_records') IS NOT NULL").await;
    assert!(!is_there, "nobody keeps records there");
}
