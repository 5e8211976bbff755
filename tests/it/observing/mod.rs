//! `Idempotency::observing`: a service with traffic learns what idem would do, and its clients notice nothing.
//!
//! On one thread each, for what is counted and logged is listened to on the thread of the test.

mod bodies;
mod figures_of_the_guide;
mod outcomes;
mod stage;
mod transactions;

use axum::http::StatusCode;
use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
use idem_axum::{BackendErrorKind, Idempotency, MemoryBackend, RedisBackend};
use idem_tests::{Log, PostgresServer, RedisServer, in_time};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tracing::Level;

use self::stage::{FORMS, assert_own, observed, serve};
use crate::figures::{expected, figure, requests};

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

/// Checks how many requests of each operation and outcome were observed, and that none was counted as guarded.
fn assert_observed(recorder: &PrometheusRecorder, counts: &[(&str, &str, u64)]) {
    assert_eq!(figure(recorder, "idem_observed_requests_total"), expected(counts));
    assert_eq!(requests(recorder), expected(&[]));
}

/// The errors in the log. The end of a span is a line too, at the level of the span.
fn errors(log: &Log) -> Vec<String> {
    let lines = log.lines_with("ERROR").into_iter();
    lines.filter(|line| !line.contains("close time.busy")).collect()
}

/// A first request, two duplicates and another request under the key, in each form; and what a service that guards finds then.
async fn every_request_runs_and_the_record_is_that_of_the_first(idempotency: Idempotency) {
    let recorder = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (log, _logging) = Log::listen(Level::INFO);
    let (service, stage) = serve(idempotency.clone().observing()).await;
    let (guarding, _stage) = serve(idempotency.clone()).await;
    for (form, name) in FORMS {
        let operation = format!("{name}{form}");
        for (body, run) in [("a", 1), ("a", 2), ("a", 3), ("b", 4)] {
            let answer = service.call(form, Some("k"), body).await;
            assert_own(&answer, StatusCode::CREATED, &format!("{body} in run {run}"));
            assert_eq!(
                answer.headers["x-claimed"],
                if run == 1 { "true" } else { "false" },
                "{answer:?}"
            );
        }
        assert_eq!(stage.take_runs(), 4, "{form}");
        let counts = [("executed", 1), ("mismatch", 1), ("replayed", 2)];
        let counts = counts.map(|(outcome, count)| (&*operation, outcome, count));
        let labels = |(labels, _): &(String, u64)| labels.contains(&format!("\"{operation}\""));
        let counted = figure(&recorder, "idem_observed_requests_total");
        let counted: std::collections::BTreeMap<_, _> = counted.into_iter().filter(labels).collect();
        assert_eq!(counted, expected(&counts), "{form}");

        let guarded = guarding.call(form, Some("k"), "a").await;
        assert!(guarded.is_replay(), "{guarded:?}");
        assert_eq!(guarded.body, "a in run 1");
    }
    for (observed, instead) in [("replayed", "a replay"), ("mismatch", "422 key-reused")] {
        let lines = log.lines_with(&format!("observed=\"{observed}\" instead=\"{instead}\""));
        let each = if observed == "replayed" { 2 } else { 1 };
        assert_eq!(lines.len(), each * FORMS.len(), "{}", log.text());
        assert!(
            lines
                .iter()
                .all(|line| line.contains(" INFO ") && line.contains(":@global:k")),
            "{lines:?}"
        );
    }
    assert_eq!(errors(&log), [""; 0]);
}

#[tokio::test]
async fn every_request_runs_on_memory() {
    in_time(every_request_runs_and_the_record_is_that_of_the_first(
        Idempotency::new(MemoryBackend::new()),
    ))
    .await;
}

#[tokio::test]
async fn every_request_runs_on_redis() {
    in_time(async {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        every_request_runs_and_the_record_is_that_of_the_first(Idempotency::new(backend)).await;
    })
    .await;
}

#[tokio::test]
async fn every_request_runs_on_postgres() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, _schema) = server.backend().await;
        every_request_runs_and_the_record_is_that_of_the_first(Idempotency::new(backend)).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_in_flight_neither_waits_nor_is_refused() {
    in_time(async {
        for (path, outcome, instead) in [
            ("/attribute", "in_flight", "409 in-flight"),
            ("/waiting", "in_flight", "409 in-flight"),
            ("/accepting", "accepted", "202"),
            ("/layer", "in_flight", "409 in-flight"),
        ] {
            let recorder = recorder();
            let _recording = metrics::set_default_local_recorder(&recorder);
            let (log, _logging) = Log::listen(Level::INFO);
            let (service, stage) = observed().await;
            let first = tokio::spawn(service.calling(path, Some("k"), "held").send());
            stage.started.notified().await;
            let second = service.call(path, Some("k"), "not held").await;
            assert_own(&second, StatusCode::CREATED, "not held in run 2");
            let third = tokio::spawn(service.calling(path, Some("k"), "held").send());
            stage.started.notified().await;
            stage.go_on.notify_waiters();
            for (call, run) in [(first, 1), (third, 3)] {
                let answer = call.await.expect("no panic");
                assert_own(&answer, StatusCode::CREATED, &format!("held in run {run}"));
            }
            let name = stage::name_of(path);
            assert_observed(
                &recorder,
                &[(&name, "executed", 1), (&name, outcome, 1), (&name, "mismatch", 1)],
            );
            assert_eq!(
                log.lines_with(&format!("instead=\"{instead}\"")).len(),
                1,
                "{}",
                log.text()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_or_malformed_key_is_counted_and_its_request_runs() {
    for (form, _) in FORMS {
        let recorder = recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (log, _logging) = Log::listen(Level::INFO);
        let (service, stage) = observed().await;
        for key in [None, Some("a, b"), Some("")] {
            let answer = service.call(form, key, "o").await;
            assert_own(&answer, StatusCode::CREATED, &format!("o in run {}", stage.runs()));
            assert_eq!(answer.headers["x-claimed"], "false");
        }
        let name = stage::name_of(form);
        assert_observed(&recorder, &[(&name, "key_invalid", 2), (&name, "key_missing", 1)]);
        assert_eq!(log.lines_with("instead=\"400 key-missing\"").len(), 1, "{}", log.text());
        assert_eq!(log.lines_with("instead=\"400 key-invalid\"").len(), 2, "{}", log.text());
        assert_eq!((stage.runs(), stage.shaped()), (3, 0));
    }
}

#[tokio::test]
async fn a_request_without_a_key_where_none_is_required_is_unprotected() {
    let recorder = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (service, _stage) = observed().await;
    let answer = service.call("/optional", None, "o").await;
    assert_own(&answer, StatusCode::CREATED, "o in run 1");
    assert_observed(&recorder, &[("POST /optional", "unprotected", 1)]);
}

#[tokio::test]
async fn in_an_outage_every_request_runs() {
    for (form, _) in FORMS {
        let recorder = recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (log, _logging) = Log::listen(Level::INFO);
        let backend = ScriptedBackend::new(MemoryBackend::new());
        let (service, stage) = serve(Idempotency::new(backend.clone()).observing()).await;
        let name = stage::name_of(form);
        backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
        let answer = service.call(form, Some("k"), "o").await;
        assert_own(&answer, StatusCode::CREATED, "o in run 1");
        assert_observed(&recorder, &[(&name, "backend_unavailable", 1)]);
        assert_eq!(
            log.lines_with("instead=\"503 backend-unavailable\"").len(),
            1,
            "{}",
            log.text()
        );
        assert_eq!(log.lines_with("cannot be checked").len(), 1, "{}", log.text());
        assert_eq!(errors(&log), [""; 0]);

        backend.recover();
        service.idempotency().drain().await;
        backend.on_every(BackendCall::Complete, Fault::Error(BackendErrorKind::Unavailable));
        let answer = service.call(form, Some("k"), "o").await;
        assert_own(&answer, StatusCode::CREATED, "o in run 2");
        assert_observed(
            &recorder,
            &[(&name, "backend_unavailable", 1), (&name, "not_recorded", 1)],
        );
        backend.recover();
        assert_eq!(stage.runs(), 2);
    }
}

#[tokio::test]
async fn in_an_outage_a_handler_that_would_run_without_a_claim_is_counted_as_unprotected() {
    for path in ["/running", "/layer/running"] {
        let recorder = recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (log, _logging) = Log::listen(Level::INFO);
        let backend = ScriptedBackend::new(MemoryBackend::new());
        let (service, stage) = serve(Idempotency::new(backend.clone()).observing()).await;
        backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
        let answer = service.call(path, Some("k"), "o").await;
        assert_own(&answer, StatusCode::CREATED, "o in run 1");
        assert_eq!(answer.headers["x-claimed"], "false");
        assert_observed(&recorder, &[(&stage::name_of(path), "unprotected", 1)]);
        assert_eq!(log.lines_with("instead="), [""; 0]);
        assert_eq!(log.lines_with("cannot be checked").len(), 1, "{}", log.text());
        assert_eq!(errors(&log), [""; 0]);
        assert_eq!(stage.runs(), 1);
    }
}

#[tokio::test]
async fn while_as_many_handlers_run_as_are_allowed_a_further_request_runs_without_a_claim() {
    in_time(async {
        for (form, _) in FORMS {
            let recorder = recorder();
            let _recording = metrics::set_default_local_recorder(&recorder);
            let (log, _logging) = Log::listen(Level::INFO);
            let limited = Idempotency::new(MemoryBackend::new()).with_max_in_flight(1);
            let (service, stage) = serve(limited.observing()).await;
            let first = tokio::spawn(service.calling(form, Some("k"), "held").send());
            stage.started.notified().await;
            let second = service.call(form, Some("l"), "o").await;
            assert_own(&second, StatusCode::CREATED, "o in run 2");
            assert_eq!(second.headers["x-claimed"], "false");
            stage.go_on.notify_waiters();
            assert_own(&first.await.expect("no panic"), StatusCode::CREATED, "held in run 1");
            let name = stage::name_of(form);
            assert_observed(&recorder, &[(&name, "executed", 1), (&name, "too_busy", 1)]);
            let lines = log.lines_with("observed=\"too_busy\" instead=\"503 too-busy\"");
            assert_eq!(lines.len(), 1, "{}", log.text());
            assert_eq!(stage.shaped(), 0);
        }
    })
    .await;
}

/// The routes are the same, and the backend too.
#[tokio::test]
async fn one_service_may_guard_a_route_and_observe_another_one() {
    let idempotency = Idempotency::new(MemoryBackend::new());
    let (guarding, _stage) = serve(idempotency.clone()).await;
    let (observing, _stage) = serve(idempotency.observing()).await;
    let first = guarding.call("/attribute", Some("k"), "o").await;
    guarding.call("/attribute", Some("k"), "o").await.assert_replays(&first);
    assert_own(
        &observing.call("/attribute", Some("k"), "o").await,
        StatusCode::CREATED,
        "o in run 1",
    );
    guarding.call("/attribute", Some("k"), "o").await.assert_replays(&first);
}
