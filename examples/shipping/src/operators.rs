//! What those who run the service are shown.
//!
//! Owns its paths and where they are: on the tenants' address, so that a probe finds what a tenant would; a listener of
//! its own answers though the other one has stopped. No token is asked for and no tenant told of, and what faces the world
//! forwards `/shipping` and nothing else. Outside the tenants' layers: nobody retries a probe, and its spans would outnumber
//! all others. What is answered is in [`metrics`] and [`health`].

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::health::{self, Needed};
use crate::metrics;

pub(crate) fn router(needed: Needed, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(metrics::page))
        .with_state(metrics)
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .with_state(needed)
}
