//! The process killed with SIGKILL in the middle of an order, and the client's retry at its successor.

use std::time::Duration;

use idem_tests::RedisServer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{order, raw_order};
use crate::process::Service;

/// How many moments of an order are tried.
const MOMENTS: u32 = 20;

/// How many of them wait for the end of a lease at once.
const AT_ONCE: usize = 5;

/// How far the moments are apart; together they cover the 40 ms of an order, its row before that and its record after.
const STEP: Duration = Duration::from_millis(5);

/// Kills the service `after` an order was sent, and returns how many rows there are once it was retried.
async fn rows_after_a_kill(after: Duration, redis: Option<&str>) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = format!("sqlite:{}?mode=rwc", folder.path().join("orders.db").display());
    let mut variables = vec![("DATABASE_URL", &*database), ("SHIPPING_DELAY_MS", "40")];
    variables.extend(redis.map(|url| ("REDIS_URL", url)));
    let key = format!("{}-ms", after.as_millis());

    let mut service = Service::start_with(&variables);
    let addr = &service.client.addr;
    let mut connection = TcpStream::connect(addr).await.expect("it listens");
    let sent = raw_order(addr, &key, "", &order("a"));
    connection.write_all(sent.as_bytes()).await.expect("it reads");
    // Whatever the moment comes to on this machine, the result must be the same.
    sleep(after).await;
    service.process.kill();

    let successor = Service::start_with(&variables);
    let retry = successor
        .client
        .post("/shipping/order", "acme-demo", &key, &order("a"))
        .await;
    assert_eq!(retry.status, 201, "killed after {after:?}: {retry:?}");
    successor.client.listed("acme-demo").await.len()
}

async fn assert_ships_once(redis: Option<String>) {
    let moments: Vec<Duration> = (0..MOMENTS).map(|moment| STEP * moment).collect();
    let mut results = Vec::new();
    for at_once in moments.chunks(AT_ONCE) {
        let mut runs = JoinSet::new();
        for after in at_once.iter().copied() {
            let redis = redis.clone();
            runs.spawn(async move { (after, rows_after_a_kill(after, redis.as_deref()).await) });
        }
        results.extend(runs.join_all().await);
    }
    results.retain(|(_after, rows)| *rows != 1);
    assert!(results.is_empty(), "rows by the moment of the kill: {results:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 5)]
async fn an_order_ships_once_whenever_the_process_is_killed() {
    assert_ships_once(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 5)]
async fn with_redis_an_order_ships_once_whenever_the_process_is_killed() {
    let redis = RedisServer::start().await;
    assert_ships_once(Some(redis.url())).await;
}
