//! Durable steps inside of an `IdempotencyLayer` whose request has no claim, is only observed, or has no place for steps.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
use idem_axum::{BackendErrorKind, Idempotency, IdempotencyLayer, MemoryBackend, OnOutage, Policy, Steps, idempotent};
use idem_core::{Acquisition, Backend, BackendError, Changed, Claim, Completion, Fenced, Record, RecordKey};
use idem_tests::{Answer, Order, Service, Tenant};
use reqwest::Method;

use crate::steps::{Effects, Stop, without_the_attribute};

/// A step that is never run twice, before one that may be.
async fn at_most_once(
    Extension(effects): Extension<Effects>,
    steps: Steps,
    Json(order): Json<Order>,
) -> Result<StatusCode, Stop> {
    let body = async |_| {
        effects.holds.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Stop>(())
    };
    steps.run("capture", body).of(&order.order).at_most_once().await?;
    Ok(StatusCode::CREATED)
}

/// Guarded by itself, with a claim of its own.
#[idempotent(ttl = "24h", scope = tenant)]
async fn annotated(
    tenant: Tenant,
    effects: Extension<Effects>,
    steps: Steps,
    order: Json<Order>,
) -> Result<StatusCode, Stop> {
    at_most_once(effects, steps, order).await
}

/// A service whose handlers are inside of a layer with a policy.
struct Layered {
    service: Service,
    effects: Effects,
    idempotency: Idempotency,
}

impl Layered {
    async fn start(idempotency: Idempotency, policy: Policy) -> Self {
        let effects = Effects::default();
        let layer = IdempotencyLayer::new(idempotency.clone(), Duration::from_hours(24)).with_policy(policy);
        let inner = Router::new()
            .route("/layered", post(without_the_attribute))
            .route("/once", post(at_most_once))
            .route("/annotated", post(annotated))
            .layer(Extension(effects.clone()))
            .layer(layer.scope_global());
        let service = Service::memory(inner).await;
        Self {
            service,
            effects,
            idempotency,
        }
    }

    async fn send(&self, path: &str, key: &str) -> Answer {
        self.send_order(path, key, &Order::new("o")).await
    }

    async fn send_order(&self, path: &str, key: &str, order: &Order) -> Answer {
        self.service.client.order_at(path, key, order).send().await
    }

    async fn send_without_key(&self, path: &str) -> Answer {
        let call = self.service.client.call(Method::POST, path);
        call.json(&Order::new("o")).send().await
    }

    fn holds(&self) -> u32 {
        self.effects.holds.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_every_body_is_called() {
    let idempotency = Idempotency::new(MemoryBackend::new());
    let layered = Layered::start(idempotency, Policy::new().with_required(false)).await;
    for times in 1..=2 {
        let answer = layered.send_without_key("/layered").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(layered.holds(), times);
    }
    let annotated = layered.send("/annotated", "k").await;
    assert_eq!(annotated.status, StatusCode::CREATED, "{annotated:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_outage_in_which_handlers_run_every_body_is_called() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
    let idempotency = Idempotency::new(backend.clone());
    let layered = Layered::start(idempotency, Policy::new().with_on_outage(OnOutage::Run)).await;
    for times in 1..=2 {
        let answer = layered.send("/layered", "k").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert!(answer.says_not_stored(), "{answer:?}");
        assert_eq!(layered.holds(), times);
    }
    assert_eq!(backend.calls(BackendCall::RecordStep), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observing_layer_records_no_step_and_calls_every_body() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    let layered = Layered::start(Idempotency::new(backend.clone()).observing(), Policy::new()).await;
    let fault = Fault::Error(BackendErrorKind::Unavailable);
    // The first one has a claim, the others are duplicates.
    backend.on_every(BackendCall::RecordStep, fault);
    for times in 1..=3 {
        let answer = layered.send("/once", "k").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(layered.holds(), times);
    }
    backend.on_every(BackendCall::Claim, fault);
    let answer = layered.send("/once", "other").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let answer = layered.send_without_key("/once").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!((layered.holds(), backend.calls(BackendCall::RecordStep)), (5, 0));
}

/// As without idem: a failed request leaves nothing by which the next one would go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observed_request_is_not_gone_on_with() {
    let layered = Layered::start(Idempotency::new(MemoryBackend::new()).observing(), Policy::new()).await;
    for times in 1..=2 {
        let failed = layered
            .send_order("/layered", "k", &Order::new("o").answered_with(500))
            .await;
        assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "{failed:?}");
        assert_eq!(layered.holds(), times);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_backend_without_steps_no_body_is_called_and_the_check_says_so() {
    let idempotency = Idempotency::new(NoSteps(MemoryBackend::new()));
    let layered = Layered::start(idempotency, Policy::new().with_required(false)).await;
    layered.idempotency.check().await.expect("no handler has asked yet");
    for path in ["/layered", "/once"] {
        let refused = layered.send(path, path).await;
        assert_eq!(refused.problem(), "not-configured", "{refused:?}");
        let refused = layered.send_without_key(path).await;
        assert_eq!(refused.problem(), "not-configured", "{refused:?}");
    }
    assert_eq!(layered.holds(), 0);
    let error = layered.idempotency.check().await.expect_err("handlers have asked");
    assert_eq!(error.kind(), BackendErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observing_layer_over_a_backend_without_steps_calls_every_body() {
    let idempotency = Idempotency::new(NoSteps(MemoryBackend::new())).observing();
    let layered = Layered::start(idempotency, Policy::new()).await;
    let answer = layered.send("/once", "k").await;
    assert_eq!((answer.status, layered.holds()), (StatusCode::CREATED, 1), "{answer:?}");
    let error = layered
        .idempotency
        .check()
        .await
        .expect_err("without `observing`, it would be refused");
    assert_eq!(error.kind(), BackendErrorKind::Config);
}

/// A backend as an application has one that was written before steps.
#[derive(Debug)]
struct NoSteps(MemoryBackend);

impl Backend for NoSteps {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.0.claim(key, claim).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.0.take_over(key, lapsed, claim).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.0.renew(key, claim).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        self.0.complete(key, claim, completion, ttl).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.0.release(key, claim).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        self.0.read(key).await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.0.changed(key).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.0.check().await
    }
}
