//! Services that fail, panic, or are not ready.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use http_body_util::Full;
use idem_axum::{AfterCrash, Policy};
use idem_tests::in_time;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

use super::{idempotency, layer};

fn request() -> Request<Full<Bytes>> {
    let request = Request::post("/x").header("idempotency-key", "k");
    request.body(Full::default()).expect("a request")
}

/// A service without a framework, which fails at its first run.
fn failing(
    runs: &Arc<AtomicU32>,
) -> impl Service<Request<Body>, Response = Response<Full<Bytes>>, Error = io::Error, Future: Send> + Clone + Send + 'static
{
    let runs = runs.clone();
    service_fn(move |_| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        async move {
            if run == 0 {
                return Err(io::Error::other("the upstream is away"));
            }
            Ok(Response::new(Full::from(run.to_string())))
        }
    })
}

#[tokio::test]
async fn an_error_of_the_service_reaches_its_caller_and_releases_the_key() {
    let (idempotency, runs) = (idempotency(), Arc::default());
    let service = layer(&idempotency).layer(failing(&runs));
    let failed = service.clone().oneshot(request()).await;
    assert_eq!(
        failed.map(drop).expect_err("it fails").to_string(),
        "the upstream is away"
    );
    for is_replay in [false, true] {
        let answer = service.clone().oneshot(request()).await.expect("it has recovered");
        assert_eq!(answer.headers().contains_key("idempotent-replayed"), is_replay);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_error_leaves_the_outcome_unknown_where_nothing_may_run_twice() {
    let (idempotency, runs) = (idempotency(), Arc::default());
    let policy = Policy::new()
        .with_after_crash(AfterCrash::Refuse)
        .with_lease(Duration::from_millis(100));
    let service = layer(&idempotency).with_policy(policy).layer(failing(&runs));
    assert!(service.clone().oneshot(request()).await.is_err());
    let refused = in_time(async {
        loop {
            let answer = service.clone().oneshot(request()).await.expect("the layer answers");
            let code = answer.headers()["idempotency-code"].clone();
            if code != "in-flight" {
                break code;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(refused, "outcome-unknown");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_of_the_service_is_a_500_and_releases_the_key() {
    let (idempotency, runs) = (idempotency(), Arc::new(AtomicU32::new(0)));
    let counted = runs.clone();
    let service = layer(&idempotency).layer(service_fn(move |_: Request<Body>| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(run > 0, "in a service, on purpose");
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    let statuses = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::OK, StatusCode::OK];
    for status in statuses {
        let answer = service.clone().oneshot(request()).await.expect("infallible");
        assert_eq!(answer.status(), status);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

/// Is not ready while it is told so, and fails for good if it is told so.
#[derive(Clone)]
struct Unready {
    answer: Poll<Result<(), &'static str>>,
}

impl Service<Request<Body>> for Unready {
    type Response = Response<Body>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Response<Body>, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.answer
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_has_not_run_so_its_key_is_free_also_where_nothing_may_run_twice() {
    let idempotency = idempotency();
    let policy = Policy::new().with_after_crash(AfterCrash::Refuse);
    let layer = layer(&idempotency).with_policy(policy);
    let failing = layer.layer(Unready {
        answer: Poll::Ready(Err("closed")),
    });
    assert_eq!(failing.oneshot(request()).await.map(drop), Err("closed"));
    let busy = layer.layer(Unready { answer: Poll::Pending });
    let refused = busy.oneshot(request()).await.expect("the layer answers");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["idempotency-code"], "not-ready");
    assert_eq!(refused.headers()["retry-after"], "1");
    idempotency.drain().await;
    let ready = layer.layer(Unready {
        answer: Poll::Ready(Ok(())),
    });
    let answer = ready.oneshot(request()).await.expect("it is ready");
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("idempotent-replayed"));
}

/// Is ready ten seconds after it was first asked.
struct SlowlyReady(std::pin::Pin<Box<tokio::time::Sleep>>);

impl Clone for SlowlyReady {
    fn clone(&self) -> Self {
        Self(Box::pin(tokio::time::sleep_until(self.0.deadline())))
    }
}

impl Service<Request<Body>> for SlowlyReady {
    type Response = Response<Body>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Response<Body>, &'static str>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.0.as_mut().poll(context).map(Ok)
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_only_observed_may_be_busy_for_as_long_as_without_idem() {
    let slow = || SlowlyReady(Box::pin(tokio::time::sleep(Duration::from_secs(10))));
    for (observing, status) in [(false, StatusCode::SERVICE_UNAVAILABLE), (true, StatusCode::OK)] {
        let idempotency = idempotency();
        let idempotency = if observing {
            idempotency.observing()
        } else {
            idempotency
        };
        let service = layer(&idempotency).layer(slow());
        let answer = service.oneshot(request()).await.expect("it does not fail");
        assert_eq!(answer.status(), status, "observing: {observing}");
        assert_eq!(answer.headers().contains_key("idempotency-code"), !observing);
    }
}

/// IDEM-20: duplicates do not hold what the inner service has few of.
#[tokio::test]
async fn a_replay_needs_no_place_in_a_service_that_has_none_left() {
    let idempotency = idempotency();
    let (entered, mut enters) = tokio::sync::mpsc::unbounded_channel();
    let inner = service_fn(move |request: Request<Body>| {
        let entered = entered.clone();
        async move {
            if request.headers()["idempotency-key"] == "held" {
                entered.send(()).expect("the test listens");
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let service = layer(&idempotency).layer(ConcurrencyLimitLayer::new(1).layer(inner));
    let first = service.clone().oneshot(request()).await.expect("infallible");
    assert_eq!(first.status(), StatusCode::OK);
    let mut held = request();
    held.headers_mut()
        .insert("idempotency-key", "held".parse().expect("a value"));
    let _holding = tokio::spawn(service.clone().oneshot(held));
    in_time(enters.recv()).await.expect("it holds the only place");
    let replay = in_time(service.oneshot(request())).await.expect("infallible");
    assert!(replay.headers().contains_key("idempotent-replayed"));
}
