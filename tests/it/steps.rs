//! Durable steps over a connection, on every backend: what a client gets, and what its retry finds.

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::sqlx::{self, PgConnection};
use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
use idem_axum::{BackendErrorKind, IdempotencyLayer, MemoryBackend, StepError, Steps, idempotent};
use idem_tests::{Answer, App, Order, Service, Tenant};

use crate::figures::{expected, requests};

/// How often the bodies of steps were called, and what the handler does after them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    pub(crate) holds: Arc<AtomicU32>,
    pub(crate) mails: Arc<AtomicU32>,
}

/// Why a handler stops.
pub(crate) enum Stop {
    Step(StepError),
    Status(StatusCode),
}

impl From<StepError> for Stop {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        match self {
            Self::Step(error) => error.into_response(),
            Self::Status(status) => status.into_response(),
        }
    }
}

/// Two steps, and between them what the order asks for: a status, or a panic.
async fn work(steps: &Steps, effects: &Effects, order: &Order) -> Result<(StatusCode, String), Stop> {
    let hold = steps
        .run("hold", async |step| {
            effects.holds.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Stop>(step.downstream_key())
        })
        .of(&order.order)
        .await?;
    if steps.attempt() == 1 {
        assert_ne!(order.order, "panic");
        if let Some(status) = order.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            return Err(Stop::Status(status));
        }
    }
    steps
        .run("mail", async |_| {
            effects.mails.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Stop>(())
        })
        .await?;
    Ok((StatusCode::CREATED, format!("{hold} at attempt {}", steps.attempt())))
}

/// Its lease is as long as the end of a step is recorded again.
#[idempotent(ttl = "24h", scope = tenant, lease = "2s")]
async fn pay(
    tenant: Tenant,
    Extension(effects): Extension<Effects>,
    steps: Steps,
    Json(order): Json<Order>,
) -> Result<(StatusCode, String), Stop> {
    work(&steps, &effects, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, required = false, on_outage = "run")]
async fn optional(
    tenant: Tenant,
    Extension(effects): Extension<Effects>,
    steps: Steps,
    Json(order): Json<Order>,
) -> Result<(StatusCode, String), Stop> {
    work(&steps, &effects, &order).await
}

/// A step whose end was not recorded, because its body failed.
#[idempotent(ttl = "24h", scope = tenant)]
async fn interrupted(tenant: Tenant, steps: Steps, Json(order): Json<Order>) -> Result<StatusCode, Stop> {
    let body = async |_| Err::<(), _>(Stop::Status(StatusCode::BAD_GATEWAY));
    steps.run("capture", body).of(&order.order).at_most_once().await?;
    Ok(StatusCode::CREATED)
}

/// Two first steps at the same time, each in a transaction of its own.
#[idempotent(ttl = "24h", scope = tenant)]
async fn two_at_once(tenant: Tenant, steps: Steps, Json(order): Json<Order>) -> Result<StatusCode, Stop> {
    drop(order);
    let body = async |connection: &mut PgConnection| {
        let slept = sqlx::query("SELECT pg_sleep(0.05)").execute(connection).await;
        slept.map_err(|_| Stop::Status(StatusCode::SERVICE_UNAVAILABLE))?;
        Ok::<_, Stop>(())
    };
    let (one, two) = (
        steps.transact("one", body).into_future(),
        steps.transact("two", body).into_future(),
    );
    let (one, two) = futures_util::future::join(one, two).await;
    one.and(two)?;
    Ok(StatusCode::CREATED)
}

pub(crate) async fn without_the_attribute(
    Extension(effects): Extension<Effects>,
    steps: Steps,
    Json(order): Json<Order>,
) -> Result<(StatusCode, String), Stop> {
    work(&steps, &effects, &order).await
}

fn routes(effects: &Effects) -> Router<App> {
    Router::new()
        .route("/pay", post(pay))
        .route("/optional", post(optional))
        .route("/interrupted", post(interrupted))
        .route("/two", post(two_at_once))
        .route("/unguarded", post(without_the_attribute))
        .layer(Extension(effects.clone()))
}

async fn send(service: &Service, path: &str, key: &str, order: &Order) -> Answer {
    service.client.order_at(path, key, order).send().await
}

async fn a_retry_after_a_500_goes_on_after_the_steps_that_are_done(service: Service, effects: Effects) {
    let order = Order::new("o").answered_with(500);
    assert_eq!(send(&service, "/pay", "k", &order).await.status, 500);
    let other = send(&service, "/pay", "k", &Order::new("another")).await;
    assert_eq!(other.problem(), "key-reused");
    let paid = send(&service, "/pay", "k", &order).await;
    assert_eq!(paid.status, StatusCode::CREATED, "{paid:?}");
    assert!(!paid.is_replay() && paid.text().ends_with("at attempt 2"), "{paid:?}");
    send(&service, "/pay", "k", &order).await.assert_replays(&paid);
    assert_eq!(
        (
            effects.holds.load(Ordering::SeqCst),
            effects.mails.load(Ordering::SeqCst)
        ),
        (1, 1)
    );
}

async fn a_retry_after_a_panic_goes_on_after_the_steps_that_are_done(service: Service, effects: Effects) {
    let order = Order::new("panic");
    assert_eq!(send(&service, "/pay", "k", &order).await.status, 500);
    let paid = send(&service, "/pay", "k", &order).await;
    assert_eq!(paid.status, StatusCode::CREATED, "{paid:?}");
    assert_eq!(effects.holds.load(Ordering::SeqCst), 1);
}

async fn an_interrupted_step_is_a_409_that_names_it_and_stays_one(service: Service, _: Effects) {
    let order = Order::new("o");
    assert_eq!(
        send(&service, "/interrupted", "k", &order).await.status,
        StatusCode::BAD_GATEWAY
    );
    for _ in 0..2 {
        let told = send(&service, "/interrupted", "k", &order).await;
        assert_eq!(
            (told.status, &*told.problem()),
            (StatusCode::CONFLICT, "outcome-unknown")
        );
        assert!(told.text().contains("`capture`"), "{told:?}");
    }
}

async fn unprotected_every_body_is_called_and_nothing_is_recorded(service: Service, effects: Effects) {
    for times in 1..=2 {
        let call = service.client.call(reqwest::Method::POST, "/optional");
        let answer = call.json(&Order::new("o")).send().await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(effects.holds.load(Ordering::SeqCst), times);
    }
}

async fn without_a_guard_every_step_is_an_error(service: Service, effects: Effects) {
    let refused = send(&service, "/unguarded", "k", &Order::new("o")).await;
    assert_eq!(refused.problem(), "not-configured");
    assert_eq!(effects.holds.load(Ordering::SeqCst), 0);
}

macro_rules! on_every_backend_with_steps {
    ($($backend:ident: $($test:ident)*;)*) => {
        $(
            mod $backend {
                use super::{Effects, Service, routes};

                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $test() {
                        let effects = Effects::default();
                        let service = Service::$backend(routes(&effects)).await;
                        idem_tests::in_time(super::$test(service, effects)).await;
                    }
                )*
            }
        )*
    };
}

macro_rules! tests_of_steps {
    ($($backend:ident)*) => {
        on_every_backend_with_steps! {
            $(
                $backend:
                    a_retry_after_a_500_goes_on_after_the_steps_that_are_done
                    a_retry_after_a_panic_goes_on_after_the_steps_that_are_done
                    an_interrupted_step_is_a_409_that_names_it_and_stays_one
                    unprotected_every_body_is_called_and_nothing_is_recorded
                    without_a_guard_every_step_is_an_error;
            )*
        }
    };
}

tests_of_steps!(memory redis postgres sqlite);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_first_steps_in_transactions_of_their_own_are_both_recorded() {
    let service = Service::postgres(routes(&Effects::default())).await;
    for key in ["k", "l", "m"] {
        let answer = send(&service, "/two", key, &Order::new("o")).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_cannot_be_recorded_is_a_503_and_the_retry_runs_it_again() {
    let effects = Effects::default();
    let backend = ScriptedBackend::new(MemoryBackend::new());
    let service = Service::start(backend.clone(), routes(&effects), None).await;
    for call in [BackendCall::RecordStep, BackendCall::ReadSteps] {
        backend.on_every(call, Fault::Error(BackendErrorKind::Unavailable));
        let told = send(&service, "/pay", "k", &Order::new("o").answered_with(500)).await;
        assert_eq!(told.problem(), "backend-unavailable", "{call:?}");
        backend.recover();
        if call == BackendCall::RecordStep {
            let failed = send(&service, "/pay", "k", &Order::new("o").answered_with(500)).await;
            assert_eq!(
                failed.status, 500,
                "a parked claim without steps is released: its first attempt again"
            );
        }
    }
    assert_eq!(
        send(&service, "/pay", "k", &Order::new("o").answered_with(500))
            .await
            .status,
        StatusCode::CREATED
    );
    assert_eq!(
        (
            effects.holds.load(Ordering::SeqCst),
            effects.mails.load(Ordering::SeqCst)
        ),
        (2, 1)
    );
}

/// On one thread, on which what is counted is listened to.
#[tokio::test]
async fn a_parked_request_and_the_one_that_goes_on_are_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let effects = Effects::default();
    let service = Service::memory(routes(&effects)).await;
    let order = Order::new("o").answered_with(500);
    send(&service, "/pay", "k", &order).await;
    send(&service, "/pay", "k", &order).await;
    let counted = [("POST /pay", "parked", 1), ("POST /pay", "took_over", 1)];
    assert_eq!(requests(&recorder), expected(&counted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_of_a_layer_steps_are_those_of_its_claim() {
    let effects = Effects::default();
    let idempotency = idem_axum::Idempotency::new(MemoryBackend::new());
    let inner = Router::new()
        .route("/layered", post(without_the_attribute))
        .layer(Extension(effects.clone()))
        .layer(IdempotencyLayer::new(idempotency, Duration::from_hours(24)).scope_global());
    let service = Service::memory(inner).await;
    let order = Order::new("o").answered_with(500);
    assert_eq!(send(&service, "/layered", "k", &order).await.status, 500);
    let paid = send(&service, "/layered", "k", &order).await;
    assert_eq!(paid.status, StatusCode::CREATED, "{paid:?}");
    assert_eq!(effects.holds.load(Ordering::SeqCst), 1);
}
