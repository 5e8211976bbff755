//! Bodies that cannot be compared reach their handlers as they came.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use idem_axum::{Idempotency, MemoryBackend};
use tower::ServiceExt as _;

use super::stage::{Stage, assert_own, observed, routes};
use super::{assert_observed, recorder};

#[tokio::test]
async fn a_body_above_the_limit_reaches_the_handler_whole() {
    let recorder = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (service, stage) = observed().await;
    let too_large = [("/measuring", 3_000_000), ("/layer/measuring", 1_001)];
    for (path, len) in too_large {
        for (announced, run) in [(true, 1), (false, 2)] {
            let call = service.calling(path, Some("k"), "");
            let call = if announced {
                call.body("x".repeat(len))
            } else {
                let pieces = ["x".repeat(500), "x".repeat(len - 500)].map(Ok::<_, std::io::Error>);
                call.body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)))
            };
            assert_own(&call.send().await, StatusCode::OK, &len.to_string());
            assert_eq!(stage.runs(), run, "{path}");
        }
        stage.take_runs();
    }
    let counts = [("POST /measuring", 2), ("layer POST /layer/measuring", 2)];
    assert_observed(&recorder, &counts.map(|(name, count)| (name, "body_refused", count)));
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_in_the_handler() {
    let recorder = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::default();
    let router = routes(&Idempotency::new(MemoryBackend::new()).observing(), &stage);
    for path in ["/measuring", "/layer/measuring"] {
        let pieces = [Ok("abc"), Ok("de"), Err(std::io::Error::other("on purpose"))];
        let request = Request::post(path).header("idempotency-key", "k");
        let request = request.body(Body::from_stream(futures_util::stream::iter(pieces)));
        let answer = router
            .clone()
            .oneshot(request.expect("a request"))
            .await
            .expect("infallible");
        assert_eq!(answer.status(), StatusCode::OK);
        let body = to_bytes(answer.into_body(), 100).await.expect("it is there");
        assert_eq!(body, "broke off after 5", "{path}");
    }
    let names = ["POST /measuring", "layer POST /layer/measuring"];
    assert_observed(&recorder, &names.map(|name| (name, "body_refused", 1)));
}
