//! The service that is observed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http_body_util::BodyExt as _;
use idem_axum::{
    Execution, Idempotency, IdempotencyLayer, MemoryBackend, OnOutage, Policy, StoredAnswers, Verdict, idempotent,
};
use idem_tests::{Answer, Call, Service};
use reqwest::Method;
use tokio::sync::Notify;

/// The paths of the two forms, and what comes before the path in the names of their operations.
pub(super) const FORMS: [(&str, &str); 2] = [("/attribute", "POST "), ("/layer", "layer POST ")];

/// What handlers have.
#[derive(Clone, Default)]
pub(super) struct Stage {
    runs: Arc<AtomicU32>,
    shaped: Arc<AtomicU32>,
    pub(super) started: Arc<Notify>,
    pub(super) go_on: Arc<Notify>,
}

impl Stage {
    /// How often a handler has run.
    pub(super) fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    /// The same, to count from zero again.
    pub(super) fn take_runs(&self) -> u32 {
        self.runs.swap(0, Ordering::SeqCst)
    }

    /// How many problems the application was asked to shape.
    pub(super) fn shaped(&self) -> u32 {
        self.shaped.load(Ordering::SeqCst)
    }

    /// Does what the body says.
    async fn play(&self, execution: &Execution, body: &str) -> Response {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let text = format!("{body} in run {run}");
        let (status, text) = match body {
            "panic" => panic!("in the handler, on purpose"),
            "500" | "500 that is kept" => (StatusCode::INTERNAL_SERVER_ERROR, text),
            "large" => (StatusCode::CREATED, "x".repeat(65)),
            "held" => {
                self.started.notify_one();
                self.go_on.notified().await;
                (StatusCode::CREATED, text)
            }
            _ => (StatusCode::CREATED, text),
        };
        let verdict = match body {
            "500 that is kept" => Some(Verdict::Keep),
            "released" => Some(Verdict::Release),
            _ => None,
        };
        let is_claimed = execution.record_key().is_some().to_string();
        (status, [("x-claimed", is_claimed)], verdict, text).into_response()
    }
}

macro_rules! handlers {
    ($($name:ident($($options:tt)*))*) => {
        $(
            #[idempotent(ttl = "1h", scope = global, max_response = "64B", $($options)*)]
            async fn $name(Extension(stage): Extension<Stage>, execution: Execution, body: String) -> Response {
                stage.play(&execution, &body).await
            }
        )*
    };
}

handlers! {
    attribute()
    waiting(in_flight = "wait", wait = "1h")
    accepting(in_flight = "accept")
    optional(required = false)
    refusing(after_crash = "refuse", lease = "100ms")
    running(on_outage = "run")
}

async fn inner(Extension(stage): Extension<Stage>, execution: Execution, body: String) -> Response {
    stage.play(&execution, &body).await
}

/// How long the body is, or how many bytes came before it broke off.
async fn measure(Extension(stage): Extension<Stage>, request: Request) -> String {
    stage.runs.fetch_add(1, Ordering::SeqCst);
    let (mut body, mut len) = (request.into_body(), 0);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => len += frame.data_ref().map_or(0, bytes::Bytes::len),
            Err(_error) => return format!("broke off after {len}"),
        }
    }
    len.to_string()
}

#[idempotent(ttl = "1h", scope = global)]
async fn measuring(State(()): State<()>, stage: Extension<Stage>, request: Request) -> String {
    measure(stage, request).await
}

/// The routes of all handlers.
pub(super) fn routes(idempotency: &Idempotency, stage: &Stage) -> Router {
    let policy = Policy::new().with_store(StoredAnswers::Final).with_max_response(64);
    let layer = IdempotencyLayer::new(idempotency.clone(), Duration::from_hours(1)).with_policy(policy);
    let layered = Router::new()
        .route("/layer", post(inner))
        .layer(layer.clone().scope_global());
    let run_in_outages = Router::new().route("/layer/running", post(inner)).layer(
        layer
            .clone()
            .with_policy(policy.with_on_outage(OnOutage::Run))
            .scope_global(),
    );
    let small = Router::new()
        .route("/layer/measuring", post(measure))
        .layer(layer.clone().with_body_limit(1_000).scope_global());
    let unscoped = Router::new()
        .route("/layer/unscoped", post(inner))
        .layer(layer.scope(|_| None::<String>));
    Router::new()
        .route("/attribute", post(attribute))
        .route("/waiting", post(waiting))
        .route("/accepting", post(accepting))
        .route("/optional", post(optional))
        .route("/refusing", post(refusing))
        .route("/running", post(running))
        .route("/measuring", post(measuring))
        .layer(idempotency.clone())
        .merge(layered)
        .merge(run_in_outages)
        .merge(small)
        .merge(unscoped)
        .layer(Extension(stage.clone()))
}

/// A service on a socket.
pub(super) struct Served(Service);

impl Served {
    pub(super) fn idempotency(&self) -> &Idempotency {
        &self.0.idempotency
    }

    pub(super) fn calling(&self, path: &str, key: Option<&str>, body: &str) -> Call {
        let call = self.0.client.call(Method::POST, path).body(body.to_owned());
        match key {
            Some(key) => call.key(key),
            None => call,
        }
    }

    pub(super) async fn call(&self, path: &str, key: Option<&str>, body: &str) -> Answer {
        self.calling(path, key, body).send().await
    }
}

pub(super) async fn serve(idempotency: Idempotency) -> (Served, Stage) {
    let stage = Stage::default();
    let shaped = stage.shaped.clone();
    let idempotency = idempotency.with_problem_response(move |details| {
        shaped.fetch_add(1, Ordering::SeqCst);
        details
    });
    let routes = routes(&idempotency, &stage);
    let wrapped = Service::wrapped(idempotency, Router::new(), |router| router.merge(routes));
    (Served(wrapped.await), stage)
}

/// A service that observes, on a backend of its own.
pub(super) async fn observed() -> (Served, Stage) {
    serve(Idempotency::new(MemoryBackend::new()).observing()).await
}

/// The name of the operation at `path`.
pub(super) fn name_of(path: &str) -> String {
    let layer = if path.starts_with("/layer") { "layer " } else { "" };
    format!("{layer}POST {path}")
}

/// Checks that an answer is the handler's own.
pub(super) fn assert_own(answer: &Answer, status: StatusCode, body: &str) {
    assert_eq!((answer.status, &*answer.body), (status, body.as_bytes()), "{answer:?}");
    for name in [
        "idempotent-replayed",
        "idempotency-stored",
        "idempotency-code",
        "link",
        "retry-after",
    ] {
        assert!(!answer.headers.contains_key(name), "{name} in {answer:?}");
    }
}
