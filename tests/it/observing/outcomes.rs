//! How handlers end.

use axum::http::StatusCode;
use idem_axum::{Idempotency, MemoryBackend};
use idem_tests::{Log, in_time, until};
use tracing::Level;

use super::stage::{FORMS, assert_own, name_of, observed, serve};
use super::{assert_observed, recorder};
use crate::figures::figure;

#[tokio::test]
async fn an_answer_that_is_too_large_to_keep_is_not_marked_and_its_duplicate_runs() {
    for (form, _) in FORMS {
        let recorder = recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (log, _logging) = Log::listen(Level::INFO);
        let (service, stage) = observed().await;
        for _ in 0..2 {
            let answer = service.call(form, Some("k"), "large").await;
            assert_own(&answer, StatusCode::CREATED, &"x".repeat(65));
        }
        let name = name_of(form);
        assert_observed(
            &recorder,
            &[(&name, "not_stored", 1), (&name, "response_not_stored", 1)],
        );
        assert_eq!(
            log.lines_with("instead=\"409 response-not-stored\"").len(),
            1,
            "{}",
            log.text()
        );
        assert_eq!(log.lines_with("its retries get 409"), [""; 0]);
        assert_eq!(stage.runs(), 2);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_kept_leaves_the_key_to_the_next_request() {
    let recorder = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (service, _stage) = observed().await;
    for run in 1..=2 {
        let answer = service.call("/attribute", Some("k"), "500").await;
        assert_own(&answer, StatusCode::INTERNAL_SERVER_ERROR, &format!("500 in run {run}"));
        assert_eq!(answer.headers["x-claimed"], "true");
    }
    assert_observed(&recorder, &[("POST /attribute", "released", 2)]);
}

#[tokio::test]
async fn a_verdict_decides_what_is_counted() {
    for (form, _) in FORMS {
        let recorder = recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (service, _stage) = observed().await;
        for (body, times) in [("500 that is kept", 3), ("released", 2)] {
            for _ in 0..times {
                service.call(form, Some(&body.replace(' ', "-")), body).await;
            }
        }
        let name = name_of(form);
        let counts = [
            (name.as_str(), "executed", 1),
            (&name, "released", 2),
            (&name, "replayed", 2),
        ];
        assert_observed(&recorder, &counts);
    }
}

#[tokio::test]
async fn after_an_ambiguous_answer_every_request_runs_and_is_counted_as_refused() {
    in_time(async {
        let recorder = recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (service, _stage) = observed().await;
        until("the outcome is unknown", async || {
            let answer = service.call("/refusing", Some("k"), "500").await;
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
            let counted = figure(&recorder, "idem_observed_requests_total");
            counted.keys().any(|labels| labels.contains("\"outcome_unknown\""))
        })
        .await;
        let counted = figure(&recorder, "idem_observed_requests_total");
        let ambiguous = counted.iter().find(|(labels, _)| labels.contains("\"ambiguous\""));
        assert_eq!(ambiguous.map(|(_, count)| *count), Some(1), "{counted:?}");
    })
    .await;
}

/// As without idem: hyper drops the connection.
#[tokio::test]
async fn a_panic_ends_the_connection_and_releases_the_claim() {
    for (form, _) in FORMS {
        let recorder = recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (service, stage) = observed().await;
        let name = name_of(form);
        for key in [Some("k"), None] {
            let failed = service.calling(form, key, "panic").try_send().await;
            assert!(failed.is_err(), "{failed:?}");
        }
        assert_observed(&recorder, &[(&name, "key_missing", 1), (&name, "panicked", 1)]);
        let next = service.call(form, Some("k"), "o").await;
        assert_own(&next, StatusCode::CREATED, "o in run 3");
        assert_eq!(next.headers["x-claimed"], "true");
        assert_eq!(stage.runs(), 3);
    }
}

#[tokio::test]
async fn what_extractors_refuse_is_not_counted() {
    let recorder = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (service, stage) = observed().await;
    let call = service.calling("/attribute", Some("k"), "").body(vec![0xFF]);
    assert_eq!(call.send().await.status, StatusCode::BAD_REQUEST);
    assert_observed(&recorder, &[]);
    assert_eq!(stage.runs(), 0);
}

#[tokio::test]
async fn a_mistake_of_the_service_is_logged_and_counted_and_its_request_runs() {
    let recorder = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (log, _logging) = Log::listen(Level::INFO);
    let (service, stage) = observed().await;
    let answer = service.call("/layer/unscoped", Some("k"), "o").await;
    assert_own(&answer, StatusCode::CREATED, "o in run 1");
    assert_observed(&recorder, &[("layer POST /layer/unscoped", "not_configured", 1)]);
    assert_eq!(log.lines_with("has no scope").len(), 1, "{}", log.text());
    assert_eq!(stage.shaped(), 0);
}

#[tokio::test]
async fn the_handler_of_a_first_request_outlives_its_client() {
    in_time(async {
        for (form, _) in FORMS {
            let idempotency = Idempotency::new(MemoryBackend::new());
            let (service, stage) = serve(idempotency.clone().observing()).await;
            let (guarding, _stage) = serve(idempotency).await;
            let first = tokio::spawn(service.calling(form, Some("k"), "held").send());
            stage.started.notified().await;
            first.abort();
            assert!(first.await.is_err(), "its client has left");
            until("the first one is recorded", async || {
                stage.go_on.notify_waiters();
                guarding.call(form, Some("k"), "held").await.is_replay()
            })
            .await;
        }
    })
    .await;
}
