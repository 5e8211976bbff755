//! IDEM-19: the markers say what this service did, whatever a handler or an upstream says.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use idem_axum::{Idempotency, MemoryBackend, ProblemDetails, RedisBackend, Transaction, idempotent};
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use idem_tests::{Answer, App, RedisServer, Service, in_time, on_every_backend};
use reqwest::Method;

on_every_backend! {
    routes: super::routes();
    markers_of_a_handler_are_dropped_from_first_answers_and_replays
    markers_of_a_handler_are_dropped_where_it_runs_unprotected
    a_rejection_of_the_last_argument_has_no_markers
}

const MARKERS: [(&str, &str); 3] = [
    ("idempotent-replayed", "true"),
    ("idempotency-stored", "false"),
    ("idempotency-code", "in-flight"),
];

/// An answer with those markers that are named. Of a service behind it is a refusal.
fn marked(status: StatusCode, names: &str, body: Body) -> Response {
    let status = if names.contains("behind") {
        StatusCode::CONFLICT
    } else {
        status
    };
    let mut response = (status, body).into_response();
    for (name, value) in MARKERS.into_iter().filter(|(name, _)| names.contains(name)) {
        // A second line is no better than the first.
        for _ in 0..2 {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
    }
    response
}

#[idempotent(ttl = "24h", scope = global)]
async fn whole(names: String) -> Response {
    marked(StatusCode::CREATED, &names, "done".into())
}

#[idempotent(ttl = "24h", scope = global)]
async fn streamed(names: String) -> Response {
    let pieces = stream::iter(["do", "ne"]).then(|piece| async move {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Bytes::from(piece))
    });
    marked(StatusCode::CREATED, &names, Body::from_stream(pieces))
}

#[idempotent(ttl = "24h", scope = global)]
async fn failing(names: String) -> Response {
    marked(StatusCode::BAD_GATEWAY, &names, "failed".into())
}

#[idempotent(ttl = "24h", scope = global, required = false)]
async fn optional(names: String) -> Response {
    marked(StatusCode::CREATED, &names, "done".into())
}

#[idempotent(ttl = "24h", scope = global, on_outage = "run")]
async fn in_an_outage(names: String) -> Response {
    marked(StatusCode::CREATED, &names, "done".into())
}

/// Refuses with what an upstream has said.
struct Refusing;

impl<S: Sync> FromRequestParts<S> for Refusing {
    type Rejection = Response;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Response> {
        let names: String = MARKERS.iter().map(|(name, _)| *name).collect();
        Err(marked(StatusCode::FORBIDDEN, &names, Body::empty()))
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn refused(_: Refusing) {}

fn routes() -> Router<App> {
    Router::new()
        .route("/whole", post(whole))
        .route("/streamed", post(streamed))
        .route("/failing", post(failing))
        .route("/optional", post(optional))
        .route("/refused", post(refused))
}

fn lines<'a>(answer: &'a Answer, name: &str) -> Vec<&'a HeaderValue> {
    answer.headers.get_all(name).iter().collect()
}

/// Checks that an answer is marked as it should be: all of its markers, and no others.
fn assert_marked(answer: &Answer, replayed: bool, code: Option<&str>) {
    let expected = |marker: Option<&'static str>| marker.into_iter().collect::<Vec<_>>();
    assert_eq!(
        lines(answer, "idempotent-replayed"),
        expected(replayed.then_some("true")),
        "{answer:?}"
    );
    assert_eq!(lines(answer, "idempotency-stored"), expected(None), "{answer:?}");
    assert_eq!(
        lines(answer, "idempotency-code"),
        code.into_iter().collect::<Vec<_>>(),
        "{answer:?}"
    );
}

async fn markers_of_a_handler_are_dropped_from_first_answers_and_replays(service: Service) {
    for path in ["/whole", "/streamed"] {
        for names in [
            "idempotent-replayed",
            "idempotency-stored",
            "idempotent-replayed idempotency-stored",
            // No idem answers with a 201 under a code, so this one has had its effect and is kept.
            "idempotency-code",
        ] {
            let send = || service.client.call(Method::POST, path).key(names).body(names).send();
            assert_marked(&send().await, false, None);
            service.idempotency.drain().await;
            assert_marked(&send().await, true, None);
        }
        // An answer of an idem service behind: it is not kept, and ours is in its place.
        let names = "behind idempotency-code idempotent-replayed";
        for _ in 0..2 {
            let answer = service
                .client
                .call(Method::POST, path)
                .key(names)
                .body(names)
                .send()
                .await;
            assert_marked(&answer, false, Some("not-final"));
        }
    }
    let names = "idempotency-stored idempotent-replayed";
    let failed = service
        .client
        .call(Method::POST, "/failing")
        .key("k")
        .body(names)
        .send()
        .await;
    assert_marked(&failed, false, None);
}

async fn markers_of_a_handler_are_dropped_where_it_runs_unprotected(service: Service) {
    let send = |names: &'static str| service.client.call(Method::POST, "/optional").body(names).send();
    assert_marked(&send("idempotency-stored idempotent-replayed").await, false, None);
    assert_marked(&send("behind idempotency-code").await, false, Some("not-final"));
}

async fn a_rejection_of_the_last_argument_has_no_markers(service: Service) {
    let refused = service.client.call(Method::POST, "/refused").key("k").send().await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_marked(&refused, false, Some("not-final"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_outage_the_only_marker_is_ours() {
    in_time(async {
        let mut server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        server.kill();
        let service = Service::start(backend, Router::new().route("/", post(in_an_outage)), None).await;
        let send = |names: &'static str| service.client.call(Method::POST, "/").key("k").body(names).send();
        let answer = send("idempotent-replayed idempotency-stored").await;
        assert_eq!(
            lines(&answer, "idempotency-stored"),
            ["false"],
            "it is not stored, says this service"
        );
        assert!(!answer.is_replay());
        let answer = send("behind idempotency-code").await;
        assert_eq!(lines(&answer, "idempotency-code"), ["not-final"]);
    })
    .await;
}

#[idempotent(ttl = "24h", scope = global, required = false)]
async fn joint(mut transaction: Transaction, names: String) -> Response {
    transaction.begin().await.expect("a connection");
    marked(StatusCode::CREATED, &names, "done".into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_are_dropped_from_the_answers_of_transactions() {
    in_time(async {
        let service = Service::postgres(Router::new().route("/", post(joint))).await;
        let names = "idempotent-replayed idempotency-stored";
        let send = || service.client.call(Method::POST, "/").key("k").body(names).send();
        assert_marked(&send().await, false, None);
        assert_marked(&send().await, true, None);
        let without_key = service.client.call(Method::POST, "/").body(names).send().await;
        assert_marked(&without_key, false, None);
        let names = "behind idempotency-code";
        for _ in 0..2 {
            let answer = service.client.call(Method::POST, "/").key("l").body(names).send().await;
            assert_marked(&answer, false, Some("not-final"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_in_a_head_that_was_stored_earlier_are_dropped_from_its_replay() {
    let backend = MemoryBackend::new();
    let key = RecordKey::new("POST /whole", &Scope::global(), &IdempotencyKey::of("k")).expect("a valid key");
    let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(std::time::Duration::from_mins(1)));
    assert_eq!(
        backend.claim(&key, &claim).await.expect("memory"),
        Acquisition::Acquired
    );
    let mut payload = b"\x01\x01\x00\xC9\x00\x03".to_vec();
    for (name, value) in MARKERS {
        payload.push(u8::try_from(name.len()).expect("it is short"));
        payload.extend_from_slice(name.as_bytes());
        payload.extend_from_slice(&u32::try_from(value.len()).expect("it is short").to_be_bytes());
        payload.extend_from_slice(value.as_bytes());
    }
    payload.extend_from_slice(b"done");
    let completion = Completion::Stored(payload.into());
    let _applied = backend
        .complete(&key, &claim, &completion, claim.ttl)
        .await
        .expect("memory");
    let service = Service::start(backend, routes(), None).await;
    let replay = service.client.call(Method::POST, "/whole").key("k").send().await;
    assert_eq!(replay.body, "done");
    assert_marked(&replay, true, None);
}

fn shape(_: ProblemDetails) -> Response {
    let names: String = MARKERS.iter().map(|(name, _)| *name).collect();
    marked(StatusCode::IM_A_TEAPOT, &names, "no".into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_problem_of_another_shape_has_the_code_and_no_other_marker() {
    let shaped = Idempotency::new(MemoryBackend::new()).with_problem_response(shape);
    let service = Service::wrapped(shaped, routes(), |router| router).await;
    let refused = service.client.call(Method::POST, "/whole").send().await;
    assert_eq!(refused.status, StatusCode::IM_A_TEAPOT);
    assert_marked(&refused, false, Some("key-missing"));
}
