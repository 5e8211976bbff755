//! What Redis loses of a request with steps is said, and nothing is silently run again or left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::{StepError, Steps, idempotent};
use idem_tests::{Answer, App, Log, Order, Service, Tenant, in_time};

const RECORD: &str = "idem:{POST%20/pay:acme:k}";

/// How often the bodies of the two steps were called.
#[derive(Clone, Debug, Default)]
struct Bodies(Arc<[AtomicU32; 2]>);

impl Bodies {
    fn called(&self) -> [u32; 2] {
        [0, 1].map(|step| self.0[step].load(Ordering::SeqCst))
    }
}

/// Two steps, and between them a gate.
#[idempotent(ttl = "24h", scope = tenant)]
async fn pay(
    State(app): State<App>,
    tenant: Tenant,
    Extension(bodies): Extension<Bodies>,
    steps: Steps,
    Json(order): Json<Order>,
) -> Result<StatusCode, Response> {
    let failed = |error: StepError| error.into_response();
    let body = async |step: usize| {
        bodies.0[step].fetch_add(1, Ordering::SeqCst);
        Ok::<_, StepError>(())
    };
    steps.run("hold", |_| body(0)).await.map_err(failed)?;
    let _answer = app.execute(&tenant, &order).await;
    steps.run("mail", |_| body(1)).await.map_err(failed)?;
    Ok(StatusCode::CREATED)
}

/// A request whose first step is recorded, and which goes on to the second one after `lose`; then its retry.
async fn pay_and_lose(lose: &str) -> (Service, Bodies, [Answer; 2]) {
    let bodies = Bodies::default();
    let routes = Router::new().route("/pay", post(pay)).layer(Extension(bodies.clone()));
    let service = Service::redis(routes).await;
    let order = Order::new("o").held();
    let first = tokio::spawn(service.client.order_at("/pay", "k", &order).send());
    service.app.wait_until_started(1).await;
    service.redis.as_ref().expect("it has one").tell(lose).await;
    service.app.open_gate();
    let first = first.await.expect("no panic");
    let retry = service.client.order_at("/pay", "k", &order).send().await;
    (service, bodies, [first, retry])
}

fn assert_said(log: &Log, what: &str) {
    let lines = log.lines_with(what);
    assert!(
        lines.iter().any(|line| line.contains("ERROR")),
        "{what}: {}",
        log.text()
    );
}

#[tokio::test]
async fn a_flushed_server_ends_the_attempt_and_the_retry_begins_anew() {
    in_time(async {
        let (log, _logging) = Log::listen(tracing::Level::WARN);
        let (_service, bodies, [first, retry]) = pay_and_lose("FLUSHALL").await;
        assert_eq!((first.status, &*first.problem()), (StatusCode::CONFLICT, "in-flight"));
        assert_said(&log, "a step of a request has no result");
        assert_eq!(retry.status, StatusCode::CREATED, "{retry:?}");
        assert!(!retry.is_replay());
        assert_eq!(bodies.called(), [2, 2]);
    })
    .await;
}

#[tokio::test]
async fn steps_that_are_lost_alone_stop_the_request_and_no_body_runs_again() {
    in_time(async {
        let (log, _logging) = Log::listen(tracing::Level::WARN);
        let (service, bodies, [first, retry]) = pay_and_lose(&format!("DEL {RECORD}:s")).await;
        assert_eq!(first.problem(), "backend-unavailable", "{first:?}");
        assert_said(&log, "its result is not recorded");
        let again = service
            .client
            .order_at("/pay", "k", &Order::new("o").held())
            .send()
            .await;
        for told in [retry, again] {
            assert_eq!(
                (told.status, &*told.problem()),
                (StatusCode::CONFLICT, "outcome-unknown")
            );
        }
        assert_said(
            &log,
            "the backend has lost the steps of earlier attempts of this request",
        );
        assert_eq!(bodies.called(), [1, 1]);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_is_lost_alone_is_noticed_by_the_steps_that_it_left() {
    in_time(async {
        let (log, _logging) = Log::listen(tracing::Level::WARN);
        let (_service, bodies, [first, retry]) = pay_and_lose(&format!("DEL {RECORD}")).await;
        assert_eq!((first.status, &*first.problem()), (StatusCode::CONFLICT, "in-flight"));
        assert_eq!(retry.status, StatusCode::CREATED, "{retry:?}");
        assert_said(&log, "steps of a record that is gone were found");
        assert_eq!(bodies.called(), [2, 2]);
    })
    .await;
}
