//! IDEM-7, IDEM-11: leases that are renewed, and answers that are not kept.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use idem_tests::{Order, Service, on_every_backend};

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
