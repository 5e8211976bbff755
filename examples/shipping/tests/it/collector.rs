//! A collector of OpenTelemetry traces, on a free loopback port.
//!
//! Owns OTLP over HTTP as far as a test needs it: it takes every batch and keeps the spans.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) struct Collector {
    pub(crate) endpoint: String,
    taken: Taken,
    serving: JoinHandle<()>,
}

/// The spans, each with the name of the service that it is from.
type Taken = Arc<Mutex<Vec<(String, Span)>>>;

impl Collector {
    pub(crate) async fn start() -> Self {
        let taken = Taken::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(taken.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving never ends");
        });
        Self {
            endpoint,
            taken,
            serving,
        }
    }

    /// What was taken so far of one trace, by the service of that name.
    pub(crate) fn spans(&self, service: &str, trace: &str) -> Vec<Span> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = taken
            .iter()
            .filter(|(name, span)| name == service && hex(&span.trace_id) == trace);
        wanted.map(|(_, span)| span.clone()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(taken): State<Taken>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let batch = ExportTraceServiceRequest::decode(body).expect("OTLP");
    for spans in batch.resource_spans {
        let resource = spans.resource.expect("spans are somebody's");
        let service = text(&resource.attributes, "service.name").expect("services have a name");
        let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.extend(spans.map(|span| (service.clone(), span)));
    }
}

/// The attribute of that name, if it is a text.
pub(crate) fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
    match &attribute.value {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => Some(text.clone()),
        _ => None,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
