//! IDEM-11: verdicts where they come from elsewhere than the handler, and what beats them.
//!
//! `contract` has each verdict at each status, on every backend and in both forms.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend, Verdict, idempotent};
use idem_tests::{App, Service, on_every_backend};
use reqwest::Method;
use tokio::time::advance;
use tower::ServiceExt as _;

use crate::raw::Raw;

on_every_backend! {
    routes: super::routes();
    what_a_service_behind_has_not_finished_is_not_kept
    an_answer_to_half_a_request_is_kept_if_its_verdict_says_so
}

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

/// Passes on what an idem service behind this one says to a duplicate.
#[idempotent(ttl = "24h", scope = global)]
async fn forwarding(
    Extension(runs): Extension<Runs>,
) -> (StatusCode, [(&'static str, &'static str); 1], Verdict, String) {
    let code = [("idempotency-code", "in-flight")];
    (StatusCode::CONFLICT, code, Verdict::Keep, runs.count())
}

/// Answers whatever it could read.
#[idempotent(ttl = "24h", scope = global)]
async fn answering(
    Path(says): Path<String>,
    Extension(runs): Extension<Runs>,
    body: Result<Json<u32>, JsonRejection>,
) -> (StatusCode, Option<Verdict>, String) {
    let status = if body.is_ok() {
        StatusCode::CREATED
    } else {
        StatusCode::BAD_REQUEST
    };
    (status, (says == "keeping").then_some(Verdict::Keep), runs.count())
}

#[derive(Clone, Default)]
struct Runs(Arc<AtomicU32>);

impl Runs {
    /// Counts a run, and says which one it is.
    fn count(&self) -> String {
        format!("run {}", self.0.fetch_add(1, Ordering::SeqCst))
    }
}

fn routes() -> Router<App> {
    Router::new()
        .route("/forwarding", post(forwarding))
        .route("/answering/{says}", post(answering))
        .layer(Extension(Runs::default()))
}

async fn what_a_service_behind_has_not_finished_is_not_kept(service: Service) {
    let send = || service.client.call(Method::POST, "/forwarding").key("k").send();
    for run in 0..2 {
        let answer = send().await;
        assert_eq!(answer.headers["idempotency-code"], "not-final");
        assert_eq!((answer.is_replay(), answer.body), (false, format!("run {run}").into()));
    }
}

/// The record is then that of the half: the handler says that it is done, and whoever sends the rest is told of it.
async fn an_answer_to_half_a_request_is_kept_if_its_verdict_says_so(service: Service) {
    let half = async |path: &str| {
        let json = "content-type: application/json";
        let key = format!("idempotency-key: {path}");
        let mut failing = Raw::post_chunked(service.address, path, &[&key, json]).await;
        failing.chunk(b"12").await;
        failing.write(b"no size\r\n").await;
        assert_eq!(failing.answer().await.status, 400);
    };
    let whole = |path: &str| {
        let call = service.client.call(Method::POST, path).key(path).json(&123);
        call.send()
    };
    half("/answering/silent").await;
    assert_eq!(whole("/answering/silent").await.status, StatusCode::CREATED);
    half("/answering/keeping").await;
    assert_eq!(whole("/answering/keeping").await.problem(), "key-reused");
}

/// A route whose handler says `verdict`, and the count of its runs.
fn saying(verdict: Verdict) -> (Router, Runs) {
    let runs = Runs::default();
    let counted = runs.clone();
    let handler = move || async move { (StatusCode::BAD_GATEWAY, verdict, counted.count()) };
    (Router::new().route("/x", post(handler)), runs)
}

fn guarded(routes: Router) -> Router {
    let idempotency = Idempotency::new(MemoryBackend::new());
    routes.layer(IdempotencyLayer::new(idempotency, DAY).scope_global())
}

/// Sends the one request.
async fn send(app: &Router) -> Response {
    let request = Request::post("/x").header("idempotency-key", "k").body(Body::empty());
    let answer = app.clone().oneshot(request.expect("a request")).await;
    answer.unwrap_or_else(|error: Infallible| match error {})
}

fn is_replay(answer: &Response) -> bool {
    answer.headers().contains_key("idempotent-replayed")
}

/// Sends the one request, and says whether the answer is a replay.
async fn is_replayed(app: &Router) -> bool {
    is_replay(&send(app).await)
}

fn says(verdict: Verdict) -> impl Fn(Response) -> std::future::Ready<Response> + Clone {
    move |mut response| {
        response.extensions_mut().insert(verdict);
        std::future::ready(response)
    }
}

#[tokio::test]
async fn an_inner_middleware_may_say_it_and_overrules_what_is_inside_of_it() {
    let (routes, runs) = saying(Verdict::Release);
    let app = guarded(routes.layer(map_response(says(Verdict::Keep))));
    assert!(!is_replayed(&app).await);
    assert!(is_replayed(&app).await);
    assert_eq!(runs.0.load(Ordering::SeqCst), 1);
    // As a layer that axum has already.
    let app = guarded(Router::new().route("/x", post(async || (Extension(Verdict::Release), "done"))));
    assert!(!is_replayed(&app).await);
    assert!(!is_replayed(&app).await);
}

/// Tells a client whether those outside could hear a verdict.
async fn overhear(mut response: Response) -> Response {
    let heard = response.extensions().get::<Verdict>().is_some();
    let heard = HeaderValue::from_static(if heard { "yes" } else { "no" });
    response.headers_mut().insert("x-heard", heard);
    response
}

/// Refuses each request, and wants that kept.
struct Refusing;

impl<S: Sync> FromRequestParts<S> for Refusing {
    type Rejection = (Verdict, StatusCode);

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Err((Verdict::Keep, StatusCode::FORBIDDEN))
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn refused(_: Refusing) {}

#[tokio::test]
async fn an_extractor_that_refuses_has_no_record_to_say_anything_of() {
    let app = Router::new()
        .route("/x", post(refused))
        .layer(Idempotency::new(MemoryBackend::new()))
        .layer(map_response(overhear));
    for _ in 0..2 {
        let answer = send(&app).await;
        assert_eq!(
            (answer.status(), &answer.headers()["x-heard"]),
            (StatusCode::FORBIDDEN, &HeaderValue::from_static("no"))
        );
        assert!(!is_replay(&answer));
    }
}

#[tokio::test]
async fn a_middleware_outside_says_nothing_to_the_layer_and_hears_nothing_of_it() {
    let (routes, runs) = saying(Verdict::Keep);
    let app = guarded(routes)
        .layer(map_response(overhear))
        .layer(map_response(says(Verdict::Release)));
    for _ in 0..2 {
        assert_eq!(send(&app).await.headers()["x-heard"], "no");
    }
    assert_eq!(runs.0.load(Ordering::SeqCst), 1, "it is kept");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_for_as_long_as_its_verdict_says_to_the_millisecond() {
    const TICK: Duration = Duration::from_millis(1);
    for time in [HOUR, 2 * DAY] {
        let (routes, _) = saying(Verdict::KeepFor(time));
        let app = guarded(routes);
        assert!(!is_replayed(&app).await);
        advance(time.saturating_sub(TICK)).await;
        assert!(is_replayed(&app).await, "{time:?}");
        advance(TICK).await;
        assert!(!is_replayed(&app).await, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_time_of_its_own_an_answer_is_kept_for_the_time_to_live() {
    for verdict in [Verdict::Keep, Verdict::KeepFor(DAY)] {
        let (routes, _) = saying(verdict);
        let app = guarded(routes);
        assert!(!is_replayed(&app).await);
        advance(DAY.saturating_sub(HOUR)).await;
        assert!(is_replayed(&app).await, "{verdict:?}");
        advance(HOUR).await;
        assert!(!is_replayed(&app).await, "{verdict:?}");
    }
}
