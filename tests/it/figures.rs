//! The figures of the feature `metrics`, exact to the last request.
//!
//! On one thread each, for what is recorded is listened to on the thread of the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::{any, post};
use idem_axum::{Backend as _, Idempotency, MemoryBackend, RedisBackend, idempotent};
use idem_core::{Claim, ClaimPolicy, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{RedisServer, in_time};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::sync::{Mutex, Notify};
use tower::ServiceExt as _;

/// What the handlers have.
#[derive(Clone, Default)]
struct Stage {
    gate: Arc<Notify>,
    redis: Arc<Mutex<Option<RedisServer>>>,
}

/// Does what the body says.
async fn play(stage: &Stage, body: &str) -> (StatusCode, String) {
    let answer = |status| (status, body.to_owned());
    match body {
        "503" => answer(StatusCode::SERVICE_UNAVAILABLE),
        "panic" => panic!("in the handler, on purpose"),
        "large" => (StatusCode::OK, "x".repeat(65)),
        "hold" => {
            stage.gate.notified().await;
            answer(StatusCode::CREATED)
        }
        "sleep" => {
            tokio::time::sleep(Duration::from_secs(25)).await;
            answer(StatusCode::CREATED)
        }
        "forget" => {
            if let Some(redis) = &*stage.redis.lock().await {
                redis.tell("FLUSHALL").await;
            }
            answer(StatusCode::CREATED)
        }
        "kill" => {
            if let Some(redis) = &mut *stage.redis.lock().await {
                redis.kill();
            }
            answer(StatusCode::CREATED)
        }
        _ => answer(StatusCode::CREATED),
    }
}

#[idempotent(ttl = "1h", scope = global, name = "rejects", max_response = "64B", lease = "30s")]
async fn rejects(State(stage): State<Stage>, body: String) -> (StatusCode, String) {
    play(&stage, &body).await
}

#[idempotent(ttl = "1h", scope = global, name = "waits", in_flight = "wait", wait = "10s")]
async fn waits(State(stage): State<Stage>, body: String) -> (StatusCode, String) {
    play(&stage, &body).await
}

#[idempotent(ttl = "1h", scope = global, name = "accepts", in_flight = "accept")]
async fn accepts(State(stage): State<Stage>, body: String) -> (StatusCode, String) {
    play(&stage, &body).await
}

#[idempotent(ttl = "1h", scope = global, name = "reruns", fingerprint = "none")]
async fn reruns(State(stage): State<Stage>, body: String) -> (StatusCode, String) {
    play(&stage, &body).await
}

#[idempotent(ttl = "1h", scope = global, name = "refuses", fingerprint = "none", after_crash = "refuse")]
async fn refuses(State(stage): State<Stage>, body: String) -> (StatusCode, String) {
    play(&stage, &body).await
}

#[idempotent(ttl = "1h", scope = body, required = false)]
async fn optional(State(stage): State<Stage>, body: String) -> (StatusCode, String) {
    play(&stage, &body).await
}

fn nobody(_: &Stage) -> &'static str {
    ""
}

#[idempotent(ttl = "1h", scope = nobody(stage), name = "unscoped")]
async fn unscoped(State(stage): State<Stage>) {
    drop(stage);
}

fn app(idempotency: Idempotency, stage: Stage) -> Router {
    Router::new()
        .route("/unscoped", post(unscoped))
        .route("/rejects", post(rejects))
        .route("/waits", post(waits))
        .route("/accepts", post(accepts))
        .route("/reruns", post(reruns))
        .route("/refuses", post(refuses))
        .route("/optional/{id}", any(optional))
        .fallback(optional)
        .layer(idempotency)
        .with_state(stage)
}

async fn send(app: &Router, path: &str, key: Option<&str>, body: &'static str) -> Response {
    request(app, "POST", path, key, body).await
}

async fn request(app: &Router, method: &str, path: &str, key: Option<&str>, body: &'static str) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::from(body)).expect("a request");
    app.clone().oneshot(request).await.expect("infallible")
}

/// What is recorded of one figure, by its labels.
pub(crate) fn figure(recorder: &PrometheusRecorder, name: &str) -> BTreeMap<String, u64> {
    let text = recorder.handle().render();
    let figures = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let labels = series.strip_prefix(name)?;
        let labels = match labels {
            "" => "",
            _ => labels.strip_prefix('{')?.strip_suffix('}')?,
        };
        Some((labels.to_owned(), value.parse().expect("a number")))
    });
    figures.collect()
}

/// How many requests each operation had, by outcome.
pub(crate) fn requests(recorder: &PrometheusRecorder) -> BTreeMap<String, u64> {
    figure(recorder, "idem_requests_total")
}

/// So many of each operation and outcome.
pub(crate) fn expected(counts: &[(&str, &str, u64)]) -> BTreeMap<String, u64> {
    let labels = |(operation, outcome, count): &(&str, &str, u64)| {
        (format!("operation=\"{operation}\",outcome=\"{outcome}\""), *count)
    };
    counts.iter().map(labels).collect()
}

/// A claim whose process died a moment ago.
async fn leave_a_dead_claim(backend: &MemoryBackend, operation: &str) {
    let key = RecordKey::new(operation, &Scope::global(), &IdempotencyKey::of("dead")).expect("a valid key");
    let policy = ClaimPolicy::new(Duration::from_hours(1)).with_lease(Duration::from_secs(1));
    let claim = Claim::first(Fingerprint::NONE, &policy);
    backend.claim(&key, &claim).await.expect("no I/O");
}

#[tokio::test(start_paused = true)]
async fn every_request_is_counted_once_by_what_it_came_to() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let backend = MemoryBackend::new();
    let idempotency = Idempotency::new(backend.clone());
    let stage = Stage::default();
    let app = app(idempotency.clone(), stage.clone());
    let usual = [
        (Some("a"), "201"),
        (Some("a"), "201"),
        (Some("a"), "201"),
        (Some("a"), "other"),
        (None, "201"),
        (Some("not, a key"), "201"),
        (Some("b"), "503"),
        (Some("b"), "503"),
        (Some("c"), "panic"),
        (Some("d"), "large"),
        (Some("d"), "large"),
    ];
    for (key, body) in usual {
        send(&app, "/rejects", key, body).await;
    }
    for (path, status) in [("/rejects", 409), ("/waits", 201), ("/accepts", 202)] {
        let (first, (), second) = tokio::join!(
            send(&app, path, Some("held"), "hold"),
            async {
                // The first one runs, and in a while the others are in its way.
                let leaves = send(&app, "/waits", Some("held"), "hold");
                if path == "/waits" {
                    let left = tokio::time::timeout(Duration::from_secs(1), leaves).await;
                    assert!(left.is_err(), "it waits");
                }
                stage.gate.notify_one();
            },
            send(&app, path, Some("held"), "hold"),
        );
        assert_eq!(first.status(), StatusCode::CREATED);
        assert_eq!(second.status().as_u16(), status, "{path}");
    }
    for path in ["reruns", "refuses"] {
        leave_a_dead_claim(&backend, path).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        send(&app, &format!("/{path}"), Some("dead"), "201").await;
    }
    request(&app, "PUT", "/optional/1", None, "201").await;
    request(&app, "PUT", "/optional/2", None, "201").await;
    request(&app, "PUT", "/optional/3", Some("k"), "").await;
    send(&app, "/unscoped", Some("k"), "201").await;
    request(&app, "INVENTED", "/nowhere", Some("k"), "201").await;
    idempotency.drain().await;
    let expected = expected(&[
        ("rejects", "executed", 2),
        ("rejects", "replayed", 2),
        ("rejects", "mismatch", 1),
        ("rejects", "key_missing", 1),
        ("rejects", "key_invalid", 1),
        ("rejects", "released", 2),
        ("rejects", "panicked", 1),
        ("rejects", "not_stored", 1),
        ("rejects", "response_not_stored", 1),
        ("rejects", "in_flight", 1),
        ("waits", "executed", 1),
        ("waits", "abandoned", 1),
        ("waits", "waited", 1),
        ("accepts", "executed", 1),
        ("accepts", "accepted", 1),
        ("reruns", "took_over", 1),
        ("refuses", "outcome_unknown", 1),
        ("PUT /optional/{id}", "unprotected", 2),
        ("PUT /optional/{id}", "key_invalid", 1),
        ("unscoped", "not_configured", 1),
        ("other unmatched", "executed", 1),
    ]);
    assert_eq!(requests(&recorder), expected);
    assert_eq!(figure(&recorder, "idem_takeovers_total")[""], 1);
    assert_eq!(figure(&recorder, "idem_wait_duration_seconds_count")[""], 2);
    // Five answers were kept, and one on which a dead claim stood before.
    assert_eq!(figure(&recorder, "idem_record_bytes_count")[""], 6);
    for gauge in ["idem_waiters", "idem_handlers_in_flight"] {
        assert_eq!(figure(&recorder, gauge)[""], 0, "{gauge}");
    }
    let text = recorder.handle().render();
    let said = |word| {
        text.lines()
            .filter_map(move |line| line.strip_prefix(word)?.split(' ').next())
    };
    let described: Vec<_> = said("# HELP ").collect();
    let shown: Vec<_> = said("# TYPE ").collect();
    assert_eq!(described, shown, "{text}");
    assert_eq!(shown.len(), 11, "all but errors: {shown:?}");
}

/// Prometheus takes the first takeover for no increase where the figure appears with it.
#[test]
fn what_is_rare_is_shown_before_there_is_any() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    for _ in 0..2 {
        let _ = Idempotency::new(MemoryBackend::new());
    }
    for plain in [
        "idem_handlers_in_flight",
        "idem_longest_run_seconds",
        "idem_releases_left_out_total",
        "idem_releases_pending",
        "idem_takeovers_total",
        "idem_waiters",
    ] {
        assert_eq!(figure(&recorder, plain)[""], 0, "{plain}");
    }
    let renewals = figure(&recorder, "idem_lease_renewals_total");
    let results = ["failed", "lost", "renewed"].map(|result| (format!("result=\"{result}\""), 0));
    assert_eq!(renewals, BTreeMap::from(results));
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_counted_while_it_does() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let idempotency = Idempotency::new(MemoryBackend::new());
    let app = app(idempotency.clone(), Stage::default());
    let request = tokio::spawn({
        let app = app.clone();
        async move { send(&app, "/waits", Some("k"), "sleep").await }
    });
    let waiting = tokio::spawn(async move { send(&app, "/waits", Some("k"), "sleep").await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(figure(&recorder, "idem_handlers_in_flight")[""], 1);
    assert_eq!(figure(&recorder, "idem_waiters")[""], 1);
    assert_eq!(waiting.await.expect("no panic").status(), StatusCode::CONFLICT);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        figure(&recorder, "idem_longest_run_seconds")[""],
        10,
        "as of its renewal"
    );
    assert_eq!(request.await.expect("no panic").status(), StatusCode::CREATED);
    assert_eq!(figure(&recorder, "idem_longest_run_seconds")[""], 0);
    assert_eq!(figure(&recorder, "idem_handlers_in_flight")[""], 0);
    assert_eq!(figure(&recorder, "idem_waiters")[""], 0);
    // Of 25 seconds, with a lease of 30 that is renewed at a third of it.
    assert_eq!(figure(&recorder, "idem_lease_renewals_total")[r#"result="renewed""#], 2);
}

#[tokio::test]
async fn what_a_backend_does_not_do_is_counted_by_call_and_kind() {
    in_time(async {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        let idempotency = Idempotency::new(backend);
        let stage = Stage::default();
        *stage.redis.lock().await = Some(server);
        let app = app(idempotency.clone(), stage.clone());
        idempotency.check().await.expect("the server answers");
        for (key, body) in [("a", "forget"), ("b", "201"), ("c", "kill"), ("d", "201")] {
            send(&app, "/rejects", Some(key), body).await;
        }
        let error = idempotency.check().await.expect_err("the server has gone");
        assert!(error.is_transient(), "{error}");
        let expected = expected(&[
            ("rejects", "superseded", 1),
            ("rejects", "executed", 1),
            ("rejects", "not_recorded", 1),
            ("rejects", "backend_unavailable", 1),
        ]);
        assert_eq!(requests(&recorder), expected);
        let errors = figure(&recorder, "idem_backend_errors_total");
        for call in ["claim", "complete", "check"] {
            let count = errors
                .iter()
                .filter(|(labels, _)| **labels == format!("call=\"{call}\",kind=\"unavailable\""));
            assert!(count.map(|(_, count)| count).sum::<u64>() >= 1, "{call}: {errors:?}");
        }
        let timed = figure(&recorder, "idem_backend_duration_seconds_count");
        assert_eq!(timed[r#"call="claim""#], 4);
        assert_eq!(timed[r#"call="check""#], 2);
    })
    .await;
}

#[tokio::test]
async fn a_key_is_a_label_where_that_is_asked_for_and_nowhere_else() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    for idempotency in [
        Idempotency::new(MemoryBackend::new()),
        Idempotency::new(MemoryBackend::new()).with_key_label(),
        Idempotency::new(MemoryBackend::new())
            .with_key_label()
            .with_hashed_keys(),
    ] {
        send(&app(idempotency, Stage::default()), "/rejects", Some("key-1"), "201").await;
    }
    let plain = r#"operation="rejects",outcome="executed""#;
    let keys = [
        plain.to_owned(),
        format!("{plain},key=\"be2974546978e373\""),
        format!("{plain},key=\"key-1\""),
    ];
    assert_eq!(requests(&recorder), BTreeMap::from(keys.map(|key| (key, 1))));
}
