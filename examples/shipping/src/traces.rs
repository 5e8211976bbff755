//! OpenTelemetry traces, to the collector that an operator names.
//!
//! Owns the export and the span round each request, below the caller's by its `traceparent`. The span `idempotent` below
//! that is idem's, and those below it the handlers'. Tracing is never a reason to fail: what is wrong with it is a warning.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Status, TracerProvider as _};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use reqwest::Url;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument as _, Subscriber, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{self, InvalidVariable};

/// How long the last spans may take at the end of the process.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Where spans go.
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// `None` where nobody asks for traces.
    pub(crate) fn from_env() -> Result<Option<Self>, InvalidVariable> {
        let endpoint = config::OTLP_ENDPOINT.read()?.unwrap_or_default();
        if endpoint.is_empty() {
            return Ok(None);
        }
        let name = config::OTEL_SERVICE_NAME.read()?.unwrap_or_default();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(traces_url(&endpoint).map_err(|reason| config::OTLP_ENDPOINT.invalid(reason))?)
            .build()
            .map_err(|error| config::OTLP_ENDPOINT.invalid(error.to_string()))?;
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(name).build())
            .with_batch_exporter(Watched {
                exporter,
                is_failing: AtomicBool::new(false),
            })
            .build();
        Ok(Some(Self(provider)))
    }

    /// What takes spans down, from INFO on whatever the log leaves out: a trace with holes misleads.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(env!("CARGO_PKG_NAME")))
            // A request moves from thread to thread.
            .with_threads(false)
            .with_filter(LevelFilter::INFO)
    }

    /// Sends what is left. Call it when every handler has ended.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::warn!(%error, "the last spans may be lost");
        }
    }
}

/// Where a collector at `endpoint` takes traces.
fn traces_url(endpoint: &str) -> Result<String, &'static str> {
    let url = Url::parse(endpoint).map_err(|_| "is not a URL, such as http://127.0.0.1:4318")?;
    if url.scheme() != "http" {
        return Err("must begin with http://; this program speaks to a collector beside it, without TLS");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold credentials; OTEL_EXPORTER_OTLP_HEADERS takes them");
    }
    Ok(format!("{}/v1/traces", url.as_str().trim_end_matches('/')))
}

/// An exporter whose failures are in the log: once when they begin, and once when they are over.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(exported.is_err(), Ordering::Relaxed);
        match &exported {
            Err(error) if !was_failing => tracing::warn!(
                %error,
                spans,
                "{}: the collector does not take traces; spans are lost until it does",
                config::OTLP_ENDPOINT.name
            ),
            Ok(()) if was_failing => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Answers `request` within a span of its own. The span of a request whose client leaves ends with its handler.
pub(crate) async fn in_span(request: Request, next: Next) -> Response {
    let method = request.method().as_str();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let span = info_span!("request", otel.kind = "server", otel.name = name);
    let caller = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
    // It fails where nothing is exported.
    let _ = span.set_parent(caller);
    // By OpenTelemetry's names for these; the log has them in the span's name.
    span.set_attribute("http.request.method", method.to_owned());
    span.set_attribute("url.path", request.uri().path().to_owned());
    if let Some(route) = route {
        span.set_attribute("http.route", route.to_owned());
    }
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_have_a_path_of_their_own_below_the_endpoint() {
        let table = [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector/", "http://collector/v1/traces"),
            ("http://collector/otlp/", "http://collector/otlp/v1/traces"),
        ];
        for (endpoint, url) in table {
            assert_eq!(traces_url(endpoint).as_deref(), Ok(url));
        }
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_is_refused_without_repeating_it() {
        for endpoint in [
            "hunter2",
            "127.0.0.1:4318",
            "https://hunter2",
            "http://u:hunter2@collector",
            "http://",
        ] {
            let reason = traces_url(endpoint).expect_err(endpoint);
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
