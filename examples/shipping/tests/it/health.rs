//! What probes are told.

use idem_tests::{PostgresServer, RedisServer, until};
use serde_json::json;

use crate::client::Client;
use crate::process::Service;

/// Waits for it: a machine that is busy may take longer than the service waits for an answer.
async fn until_ready(client: &Client) {
    until("it is ready", async || {
        let answer = client.get_bare("/health/ready").await;
        answer.status == 200 && answer.json() == json!({ "ready": true })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_redis_and_liveness_does_not() {
    let mut redis = RedisServer::start().await;
    let service = Service::start_with(&[("REDIS_URL", &redis.url())]);
    let client = &service.client;

    until_ready(client).await;
    redis.kill();
    let unready = client.get_bare("/health/ready").await;
    assert_eq!(unready.status, 503);
    assert_eq!(unready.json(), json!({ "ready": false, "reason": "records" }));
    assert_eq!(client.get_bare("/health/live").await.status, 204);

    redis.restart().await;
    until_ready(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_the_database() {
    let redis = RedisServer::start().await;
    let mut postgres = PostgresServer::start().await;
    let mut service = Service::start_with(&[("DATABASE_URL", &postgres.url()), ("REDIS_URL", &redis.url())]);
    until_ready(&service.client).await;

    postgres.kill();
    let unready = service.client.get_bare("/health/ready").await;

    assert_eq!(unready.status, 503);
    assert_eq!(unready.json(), json!({ "ready": false, "reason": "database" }));
    service.process.wait_for_log("not ready reason=\"database\" error=");
}
