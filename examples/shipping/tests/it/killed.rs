//! The process killed with SIGKILL in the middle of an order, and the client's retry at its successor.

use std::time::Duration;

use idem_tests::RedisServer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::client::{order, raw_order};
use crate::process::Service;

/// How many moments of an order are tried.
const MOMENTS: u32 = 20;

/// How far the moments are apart; together they cover the 40 ms of an order, its row before that and its record after.
const STEP: Duration = Duration::from_millis(3);

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

async fn assert_ships_once(redis: Option<&str>) {
    for moment in 0..MOMENTS {
        let after = STEP * moment;
        assert_eq!(rows_after_a_kill(after, redis).await, 1, "killed after {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_ships_once_whenever_the_process_is_killed() {
    assert_ships_once(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_an_order_ships_once_whenever_the_process_is_killed() {
    let redis = RedisServer::start().await;
    assert_ships_once(Some(&redis.url())).await;
}
