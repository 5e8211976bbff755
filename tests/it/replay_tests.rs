//! `assert_replays` passes on a service that replays, and says of each that does not what is wrong.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{BoxError, Router};
use futures_util::{FutureExt as _, stream};
use idem_axum::testing::{BackendCall, Fault, Finding, ReplayReport, ReplayTest, ScriptedBackend, assert_replays};
use idem_axum::{
    Backend, Execution, Idempotency, IdempotencyProblem, InFlight, MemoryBackend, Policy, ProblemDetails, idempotent,
};
use tokio::task::yield_now;
use tower::service_fn;

/// What the handlers' answers are numbered by.
static NUMBER: AtomicU32 = AtomicU32::new(0);

fn number() -> String {
    NUMBER.fetch_add(1, Ordering::SeqCst).to_string()
}

#[idempotent(ttl = "1m", scope = global)]
async fn with_status(Path(status): Path<u16>) -> (StatusCode, [(HeaderName, String); 1], String) {
    // Lets the others in.
    yield_now().await;
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(ETAG, number())], format!("number {}", number()))
}

#[idempotent(ttl = "1m", scope = global, key = natural)]
async fn with_natural_key(Path(natural): Path<String>) -> String {
    format!("{natural} {}", number())
}

#[idempotent(ttl = "1m", scope = global)]
async fn accepted_by_itself() -> impl IntoResponse {
    yield_now().await;
    (StatusCode::ACCEPTED, [(RETRY_AFTER, "1")])
}

#[idempotent(ttl = "1m", scope = global)]
async fn for_the_next_hop() -> impl IntoResponse {
    [("connection", "x-hop".to_owned()), ("x-hop", number())]
}

#[idempotent(ttl = "1m", scope = global, max_response = "10B")]
async fn too_large() -> &'static str {
    "more than ten bytes"
}

#[idempotent(ttl = "1m", scope = global)]
async fn broken_off() -> Body {
    let pieces = [Ok("a"), Err("the source has gone")];
    Body::from_stream(stream::iter(pieces))
}

#[idempotent(ttl = "1m", scope = global)]
async fn attempt(execution: Execution, body: String) -> String {
    format!("{body} {:?}", execution.attempt())
}

async fn unannotated() -> StatusCode {
    StatusCode::CREATED
}

fn routes() -> Router {
    Router::new()
        .route("/status/{status}", post(with_status))
        .route("/natural/{key}", post(with_natural_key))
        .route("/accepted", post(accepted_by_itself))
        .route("/next-hop", post(for_the_next_hop))
        .route("/too-large", post(too_large))
        .route("/broken-off", post(broken_off))
        .route("/attempt", post(attempt))
        .route("/unannotated", post(unannotated))
}

fn app() -> Router {
    on(MemoryBackend::new())
}

fn on(backend: impl Backend) -> Router {
    routes().layer(Idempotency::new(backend))
}

fn with_default(in_flight: InFlight) -> Router {
    let defaults = Policy::new().with_in_flight(in_flight);
    routes().layer(Idempotency::new(MemoryBackend::new()).with_defaults(defaults))
}

fn request(path: &str) -> Request<String> {
    request_with("k", path)
}

fn request_with(key: &str, path: &str) -> Request<String> {
    let request = Request::post(path).header("idempotency-key", key);
    request.body("an order".to_owned()).expect("a request")
}

async fn report(app: &Router, path: &str) -> ReplayReport {
    let ran = ReplayTest::new(request(path)).run(app).await;
    ran.expect_err("it is not replayed")
}

fn header(name: &'static str, of: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    app().layer(map_response(move |mut response: Response| {
        let value = HeaderValue::from_str(&of()).expect("a header value");
        response.headers_mut().insert(name, value);
        async move { response }
    }))
}

#[tokio::test]
async fn a_handler_that_replays_passes_whatever_duplicates_get_meanwhile() {
    for in_flight in [InFlight::Reject, InFlight::Wait, InFlight::Accept] {
        let first = assert_replays(&with_default(in_flight), request("/status/201")).await;
        assert_eq!(first.status(), StatusCode::CREATED);
        assert!(first.body().starts_with(b"number "), "{in_flight:?}");
    }
}

#[tokio::test]
async fn a_natural_key_needs_no_header() {
    let request = Request::post("/natural/n-1").body(Body::empty()).expect("a request");
    let first = assert_replays(&app(), request).await;
    assert!(first.body().starts_with(b"n-1 "));
}

#[tokio::test]
async fn an_answer_that_looks_like_an_acceptance_is_the_handlers_all_the_same() {
    for in_flight in [InFlight::Reject, InFlight::Accept] {
        let first = assert_replays(&with_default(in_flight), request("/accepted")).await;
        assert_eq!(first.status(), StatusCode::ACCEPTED);
    }
}

#[tokio::test]
async fn problems_are_known_in_a_format_of_the_applications_own_and_behind_a_socket() {
    let shaped = Idempotency::new(MemoryBackend::new()).with_problem_response(|_: ProblemDetails| "no");
    assert_replays(&routes().layer(shaped), request("/status/201")).await;

    for in_flight in [InFlight::Reject, InFlight::Accept] {
        let bare = with_default(in_flight).layer(map_response(|mut response: Response| async {
            response.extensions_mut().clear();
            response
        }));
        assert_replays(&bare, request("/status/201")).await;
    }
}

#[tokio::test]
async fn a_handler_without_the_attribute_ran_for_each_request() {
    let report = report(&app(), "/unannotated").await;
    let runs = Finding::Runs {
        times: 5,
        status: Some(StatusCode::CREATED),
        replays: 0,
    };
    assert_eq!(report.findings(), [runs]);
    let text = report.to_string();
    assert!(
        text.contains("the handler ran 5 times, answering 201 Created"),
        "{text}"
    );
    assert!(text.contains("is it annotated with `#[idempotent]`"), "{text}");
}

#[tokio::test]
async fn processes_without_a_common_backend_are_told_by_a_second_run() {
    let (one, other) = (app(), app());
    let turn = Arc::new(AtomicU32::new(0));
    let balanced = service_fn(move |request: Request<Body>| {
        let app = match turn.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => one.clone(),
            _ => other.clone(),
        };
        tower::ServiceExt::oneshot(app, request)
    });
    let ran = ReplayTest::new(request("/status/201")).run(&balanced).await;
    let report = ran.expect_err("it runs in each");
    assert!(
        matches!(
            report.findings()[0],
            Finding::Runs {
                times: 2,
                replays: 1,
                ..
            }
        ),
        "{report}"
    );
    assert!(report.to_string().contains("one backend?"), "{report}");
}

#[tokio::test]
async fn a_header_that_an_outer_layer_draws_anew_is_named_with_its_values() {
    let app = header("x-request-id", number);
    let report = report(&app, "/status/201").await;
    let [Finding::HeaderDiffers { name, first, replay }] = report.findings() else {
        panic!("{report}");
    };
    assert_eq!(name, "x-request-id");
    let [first, replay] = [first, replay].map(|lines| lines[0].to_str().expect("a number").to_owned());
    let line = format!("header `x-request-id`: `{first}` in the first answer, `{replay}` in the replay");
    assert!(report.to_string().contains(&line), "{report}");

    let test = ReplayTest::new(request_with("other", "/status/201"))
        .with_varying_header(HeaderName::from_static("x-request-id"));
    test.run(&app).await.expect("nothing else differs");
}

#[tokio::test]
async fn a_header_that_only_one_of_them_has_is_named() {
    let marked_only = app().layer(map_response(|mut response: Response| async {
        if response.headers().contains_key("idempotent-replayed") {
            response.headers_mut().remove(ETAG);
            response.headers_mut().append("x-a", HeaderValue::from_static("1"));
            response.headers_mut().append("x-a", HeaderValue::from_static("2"));
        }
        response
    }));
    let text = report(&marked_only, "/status/201").await.to_string();
    assert!(text.contains("header `etag`: `"), "{text}");
    assert!(text.contains("` in the first answer, no line in the replay"), "{text}");
    assert!(
        text.contains("header `x-a`: no line in the first answer, `1`, `2` in the replay"),
        "{text}"
    );
}

#[tokio::test]
async fn what_belongs_to_the_connection_or_the_moment_may_differ() {
    assert_replays(&header("date", number), request("/status/201")).await;
    assert_replays(&header("keep-alive", number), request("/status/201")).await;
    let first = assert_replays(&app(), request("/next-hop")).await;
    assert!(first.headers().contains_key("x-hop"));
}

#[tokio::test]
async fn a_body_that_differs_is_shown_from_the_first_byte_that_does() {
    let long = |replay: bool| format!("{}{}{}", "a".repeat(40), if replay { "X" } else { "Y" }, "b".repeat(40));
    let changed = app().layer(map_response(move |mut response: Response| async move {
        let replay = response.headers().contains_key("idempotent-replayed");
        *response.body_mut() = Body::from(long(replay));
        response
    }));
    let report = report(&changed, "/status/201").await;
    assert!(
        matches!(report.findings(), [.., Finding::BodyDiffers { offset: 40, .. }]),
        "{report}"
    );
    let excerpt = |byte| format!("`…{}{byte}{}…`", "a".repeat(16), "b".repeat(31));
    let line = format!(
        "body, from byte 40 on: {} in the first answer, {} in the replay",
        excerpt("Y"),
        excerpt("X")
    );
    assert!(report.to_string().contains(&line), "{report}");
}

#[tokio::test]
async fn a_status_that_differs_is_named() {
    let changed = app().layer(map_response(|mut response: Response| async {
        if response.headers().contains_key("idempotent-replayed") {
            *response.status_mut() = StatusCode::OK;
        }
        response
    }));
    let report = report(&changed, "/status/201").await;
    let differs = Finding::StatusDiffers {
        first: StatusCode::CREATED,
        replay: StatusCode::OK,
    };
    assert_eq!(report.findings(), [differs]);
}

#[tokio::test]
async fn an_answer_that_is_not_kept_is_named_by_its_status() {
    let report = report(&app(), "/status/500").await;
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    assert_eq!(report.findings(), [Finding::NotKept { status }]);
    let text = report.to_string();
    assert!(
        text.contains("the handler answered 500 Internal Server Error, which is not kept"),
        "{text}"
    );
}

#[tokio::test]
async fn a_refusal_is_named_by_its_code() {
    let no_key = Request::post("/status/201").body(Body::empty()).expect("a request");
    let ran = ReplayTest::new(no_key).run(&app()).await;
    let report = ran.expect_err("it has no key");
    assert!(
        matches!(
            report.findings(),
            [Finding::Refused {
                problem: IdempotencyProblem::KeyMissing,
                ..
            }]
        ),
        "{report}"
    );
    let text = report.to_string();
    assert!(
        text.contains("refused with 400 `key-missing`: This operation needs"),
        "{text}"
    );

    let too_large = self::report(&app(), "/too-large").await.to_string();
    assert!(too_large.contains("409 `response-not-stored`"), "{too_large}");
    let not_layered = self::report(&routes(), "/status/201").await.to_string();
    assert!(not_layered.contains("500 `not-configured`"), "{not_layered}");
}

#[tokio::test]
async fn a_key_that_was_used_before_leaves_nothing_to_run() {
    let app = app();
    assert_replays(&app, request("/status/201")).await;
    let report = report(&app, "/status/201").await;
    assert!(
        matches!(
            report.findings(),
            [Finding::Runs {
                times: 0,
                replays: 5,
                ..
            }]
        ),
        "{report}"
    );
    assert!(report.to_string().contains("the handler did not run"), "{report}");
}

#[tokio::test]
async fn a_key_that_is_in_flight_elsewhere_is_said_to_be() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    backend.on_next(BackendCall::Complete, Fault::Superseded);
    let report = report(&on(backend), "/status/201").await;
    assert_eq!(report.findings(), [Finding::InFlight, Finding::NotRecorded]);
    assert!(report.to_string().contains("Idempotency-Stored: false"), "{report}");
}

#[tokio::test]
async fn a_body_or_a_service_that_fails_is_named_by_its_cause() {
    let report = report(&app(), "/broken-off").await;
    assert!(matches!(report.findings(), [Finding::NoAnswer { .. }]), "{report}");
    assert!(report.to_string().contains("the source has gone"), "{report}");

    let failing = service_fn(|_: Request<Body>| async { Err::<Response, BoxError>("out of order".into()) });
    let ran = ReplayTest::new(request("/")).run(&failing).await;
    let report = ran.expect_err("it fails");
    assert!(report.to_string().contains("out of order"), "{report}");
}

#[tokio::test]
async fn the_panic_has_the_report_and_the_place_of_the_assertion() {
    let app = app();
    let (line, assertion) = (line!(), assert_replays(&app, request("/unannotated")));
    let panic = AssertUnwindSafe(assertion).catch_unwind().await.expect_err("it fails");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("the handler ran 5 times"), "{message}");
    assert!(message.contains(&format!("{}:{line}:", file!())), "{message}");
}

#[tokio::test]
async fn as_many_are_sent_at_once_as_the_test_says_and_one_after_them() {
    for (requests, sent) in [(0, 2), (1, 2), (9, 10)] {
        let count = Arc::new(AtomicU32::new(0));
        let (counted, app) = (count.clone(), app());
        let counting = service_fn(move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = tower::ServiceExt::oneshot(app.clone(), request);
            async move { Ok::<_, Infallible>(([(CONTENT_TYPE, "x/y")], answer.await).into_response()) }
        });
        let test = ReplayTest::new(request("/attempt")).with_requests_at_once(requests);
        test.run(&counting).await.expect("it replays");
        assert_eq!(count.load(Ordering::SeqCst), sent);
    }
}
