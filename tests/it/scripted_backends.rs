//! A scripted backend fails, stalls and loses claims as it is told, and clients get what the promise says for each.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
use idem_axum::{BackendErrorKind, Idempotency, InFlight, MemoryBackend, Policy};
use idem_tests::{Order, Service, in_time};
use reqwest::Method;

struct Scripted {
    backend: ScriptedBackend<MemoryBackend>,
    service: Service,
}

async fn scripted(set_up: impl FnOnce(Idempotency) -> Idempotency) -> Scripted {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    let idempotency = set_up(Idempotency::new(backend.clone()));
    let service = Service::wrapped(idempotency, Router::new(), |router| router).await;
    Scripted { backend, service }
}

#[tokio::test]
async fn idem_13_and_15_each_kind_of_error_before_the_claim_is_a_503_and_the_handler_does_not_run() {
    let Scripted { backend, service } = scripted(|idempotency| idempotency).await;
    let order = Order::new("o");
    for kind in [
        BackendErrorKind::Unavailable,
        BackendErrorKind::Timeout,
        BackendErrorKind::Refused,
        BackendErrorKind::Unreadable,
        BackendErrorKind::Config,
    ] {
        backend.on_every(BackendCall::Claim, Fault::Error(kind));
        let refused = service.client.order("k", &order).send().await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{kind:?}");
        assert_eq!(refused.problem(), "backend-unavailable");
        assert_eq!(service.app.executions("o"), 0);
    }
    backend.recover();
    let first = service.client.order("k", &order).send().await;
    assert_eq!(first.status, StatusCode::CREATED);
    service.client.order("k", &order).send().await.assert_replays(&first);
    assert_eq!(service.app.executions("o"), 1);
}

#[tokio::test]
async fn faults_come_in_their_order_and_then_the_one_for_every_call() {
    let Scripted { backend, service } = scripted(|idempotency| idempotency).await;
    let order = Order::new("o");
    backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Refused));
    backend.on_next(BackendCall::Claim, Fault::LostAnswer);
    backend.on_next(BackendCall::Claim, Fault::Error(BackendErrorKind::Config));

    // The claim whose answer was lost has been written, and nobody has it; it is released.
    let refused = service.client.order("a", &order).send().await;
    assert_eq!(refused.problem(), "backend-unavailable");
    service.idempotency.drain().await;
    assert_eq!(
        (backend.calls(BackendCall::Claim), backend.calls(BackendCall::Release)),
        (1, 1)
    );
    assert!(backend.inner().is_empty());

    // The others have no effect, so there is nothing to release but what may be on its way.
    for _ in 0..2 {
        let refused = service.client.order("b", &order).send().await;
        assert_eq!(refused.problem(), "backend-unavailable");
    }
    assert_eq!(backend.calls(BackendCall::Claim), 3);
    assert_eq!(backend.calls(BackendCall::Complete), 0);
    assert_eq!(service.app.executions("o"), 0);
}

#[tokio::test]
async fn a_call_stalls_until_it_is_told_and_takes_effect_then() {
    in_time(async {
        let Scripted { backend, service } = scripted(|idempotency| idempotency.with_deadline(Duration::MAX)).await;
        let stall = backend.stall(BackendCall::Claim);
        let order = Order::new("o");
        let first = tokio::spawn(service.client.order("k", &order).send());
        stall.reached(1).await;
        assert_eq!(service.app.executions("o"), 0);
        assert!(backend.inner().is_empty());

        drop(stall);
        assert_eq!(first.await.expect("it does not panic").status, StatusCode::CREATED);
        assert_eq!(backend.calls(BackendCall::Claim), 1);
    })
    .await;
}

#[tokio::test]
async fn idem_13_a_call_that_stalls_beyond_its_deadline_is_given_up() {
    let millisecond = Duration::from_millis(1);
    let Scripted { backend, service } = scripted(|idempotency| idempotency.with_deadline(millisecond)).await;
    let _stall = backend.stall(BackendCall::Claim);
    let refused = service.client.order("k", &Order::new("o")).send().await;
    assert_eq!(refused.problem(), "backend-unavailable");
    assert_eq!(service.app.executions("o"), 0);
}

#[tokio::test]
async fn idem_8_who_has_lost_its_claim_says_so_and_the_next_one_runs() {
    let Scripted { backend, service } = scripted(|idempotency| idempotency).await;
    backend.on_next(BackendCall::Complete, Fault::LostClaim);
    let order = Order::new("o");
    let first = service.client.order("k", &order).send().await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(first.says_not_stored());
    assert!(backend.inner().is_empty());

    let retry = service.client.order("k", &order).send().await;
    assert!(!retry.is_replay());
    assert_eq!(service.app.executions("o"), 2);
}

#[tokio::test]
async fn idem_8_who_was_superseded_says_so_and_the_other_attempt_is_in_flight() {
    let Scripted { backend, service } = scripted(|idempotency| idempotency).await;
    backend.on_next(BackendCall::Complete, Fault::Superseded);
    let order = Order::new("o");
    let first = service.client.order("k", &order).send().await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(first.says_not_stored());

    let retry = service.client.order("k", &order).send().await;
    assert_eq!(retry.problem(), "in-flight");
    assert_eq!(service.app.executions("o"), 1);
}

#[tokio::test]
async fn idem_7_a_renewal_finds_that_its_claim_was_taken_over() {
    in_time(async {
        let lease = Policy::new().with_lease(Duration::from_millis(150));
        let Scripted { backend, service } = scripted(|idempotency| idempotency.with_defaults(lease)).await;
        backend.on_next(BackendCall::Renew, Fault::LostClaim);
        let renewal = backend.stall(BackendCall::Renew);
        let order = Order::new("o").held();
        let call = service.client.call(Method::POST, "/orders").json(&order).key("k");
        let first = tokio::spawn(call.send());
        renewal.reached(1).await;
        drop(renewal);
        service.app.open_gate();
        let first = first.await.expect("it does not panic");
        assert!(first.says_not_stored(), "{first:?}");
    })
    .await;
}

#[tokio::test]
async fn an_outcome_that_nobody_takes_is_recorded_when_the_backend_is_back() {
    in_time(async {
        let Scripted { backend, service } = scripted(|idempotency| idempotency).await;
        backend.on_every(BackendCall::Complete, Fault::Error(BackendErrorKind::Unavailable));
        let order = Order::new("o");
        let first = service.client.order("k", &order).send().await;
        assert!(first.says_not_stored());
        assert_eq!(service.client.order("k", &order).send().await.problem(), "in-flight");

        backend.recover();
        service.idempotency.drain().await;
        let retry = service.client.order("k", &order).send().await;
        assert!(retry.is_replay());
        assert_eq!(service.app.executions("o"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_duplicate_that_cannot_listen_waits_all_the_same() {
    in_time(async {
        let waiting = Policy::new().with_in_flight(InFlight::Wait);
        let Scripted { backend, service } = scripted(|idempotency| idempotency.with_defaults(waiting)).await;
        backend.on_every(BackendCall::Changed, Fault::Error(BackendErrorKind::Unavailable));
        let order = Order::new("o").held();
        let send = || tokio::spawn(service.client.order("k", &order).send());
        let first = send();
        service.app.wait_until_started(1).await;
        let stall = backend.stall(BackendCall::Changed);
        let duplicate = send();
        stall.reached(1).await;
        drop(stall);
        service.app.open_gate();
        let [first, duplicate] = [first.await, duplicate.await].map(|answer| answer.expect("it does not panic"));
        duplicate.assert_replays(&first);
    })
    .await;
}
