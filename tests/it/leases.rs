//! IDEM-7, IDEM-11: leases that are renewed, and answers that are not kept.

use std::time::{Duration, Instant};

use ::redis::AsyncCommands as _;
use axum::Router;
use axum::http::StatusCode;
use idem_axum::RedisBackend;
use idem_core::{Acquisition, Backend, Claim, ClaimPolicy, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{Order, Service, TENANT, on_every_backend};

on_every_backend! {
    a_handler_that_outlives_its_lease_three_times_over_keeps_its_claim
    a_failure_of_the_server_can_be_retried
    a_failure_of_the_clients_own_making_is_replayed
}

async fn a_handler_that_outlives_its_lease_three_times_over_keeps_its_claim(service: Service) {
    let lease = Duration::from_secs(1);
    let order = Order::new("o").held();
    let first = tokio::spawn(service.client.order_at("/orders/short-lease", "k", &order).send());
    service.app.wait_until_started(1).await;
    let since = Instant::now();
    while since.elapsed() < lease * 3 {
        tokio::select! {
            duplicate = service.client.order_at("/orders/short-lease", "k", &order).send() => {
                assert_eq!(duplicate.problem(), "in-flight", "after {:?}", since.elapsed());
            }
            () = service.app.wait_until_started(2) => panic!("it ran again after {:?}", since.elapsed()),
        }
        tokio::time::sleep(lease / 20).await;
    }
    service.app.open_gate();
    let first = first.await.expect("no panic");
    service
        .client
        .order_at("/orders/short-lease", "k", &order)
        .send()
        .await
        .assert_replays(&first);
    assert_eq!(service.app.executions("o"), 1);
}

async fn a_failure_of_the_server_can_be_retried(service: Service) {
    for status in [500, 502, 503, 504, 408, 425, 429] {
        let order = Order::new(&format!("o{status}")).answered_with(status);
        let key = format!("k{status}");
        let first = service.client.order(&key, &order).send().await;
        let second = service.client.order(&key, &order).send().await;
        for (execution, answer) in [(1, first), (2, second)] {
            assert_eq!(answer.status.as_u16(), status);
            assert!(!answer.is_replay());
            assert_eq!(answer.json()["execution"], execution);
        }
    }
}

async fn a_failure_of_the_clients_own_making_is_replayed(service: Service) {
    for status in [200, 201, 202, 204, 301, 304, 400, 401, 404, 409, 410, 422, 451] {
        let order = Order::new(&format!("o{status}")).answered_with(status);
        let key = format!("k{status}");
        let first = service.client.order(&key, &order).send().await;
        assert_eq!(first.status, StatusCode::from_u16(status).expect("a status"));
        service.client.order(&key, &order).send().await.assert_replays(&first);
        assert_eq!(service.app.executions(&order.order), 1);
    }
}

/// A claim whose owner has stopped to renew it, with so much left of its lease of 30 seconds.
async fn left_behind(service: &Service, path: &str, left: Duration) {
    let operation = format!("POST {path}");
    let key = RecordKey::new(&operation, &Scope::of(TENANT), &IdempotencyKey::of("k")).expect("a valid key");
    let ttl = Duration::from_hours(24);
    let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(ttl));
    let server = service.redis.as_ref().expect("it is on Redis");
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    let claimed = Backend::claim(&backend, &key, &claim)
        .await
        .expect("the server answers");
    assert_eq!(claimed, Acquisition::Acquired);
    // As time would have left it.
    let mut connection = server.connection().await;
    let expires: i64 = (ttl + left).as_millis().try_into().expect("it fits");
    let shortened: bool = connection
        .pexpire(format!("idem:{{{key}}}"), expires)
        .await
        .expect("PEXPIRE");
    assert!(shortened, "the claim is there");
}

#[tokio::test]
async fn a_duplicate_is_told_when_the_lease_of_an_owner_that_died_lapses() {
    let service = Service::redis(Router::new()).await;
    for (path, status, left, told) in [
        ("/orders", 409, 9_900, "10"),
        ("/orders/accepting", 202, 14_900, "15"),
        // It was renewed not long ago.
        ("/orders/holding", 409, 25_000, "1"),
    ] {
        left_behind(&service, path, Duration::from_millis(left)).await;
        let duplicate = service.client.order_at(path, "k", &Order::new("o")).send().await;
        assert_eq!(duplicate.status.as_u16(), status);
        assert_eq!(duplicate.headers["retry-after"], told, "{path}");
    }
}
