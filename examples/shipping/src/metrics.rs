//! What Prometheus scrapes.
//!
//! Owns the recorder behind the `metrics` facade, the buckets of its histograms and the page. What is counted, and under
//! which names and labels, is idem's own.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::interval;

/// From a call to a Redis nearby, over a call's deadline of a second, to the longest wait of a duplicate.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0,
];

/// From a receipt to the largest answer that is kept.
const BYTES: [f64; 7] = [128.0, 512.0, 2_048.0, 8_192.0, 32_768.0, 131_072.0, 1_048_576.0];

/// How often samples become counts in buckets. Reading the page does that too, but where nobody reads it they would pile
/// up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Records for the whole process from now on. A second call fails.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .install_recorder()?;
    tokio::spawn(keep_up(handle.clone()));
    Ok(handle)
}

async fn keep_up(handle: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

/// `GET /metrics`
pub(crate) async fn page(State(handle): State<PrometheusHandle>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        handle.render(),
    )
}
