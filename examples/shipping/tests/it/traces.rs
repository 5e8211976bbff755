//! The traces that a collector is sent.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::client::{order, raw_order};
use crate::collector::{Collector, hex, text};
use crate::process::Service;

/// The traces of two callers, and the spans of theirs that they call within.
const FIRST: (&str, &str) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
const RETRY: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");

/// Sends the order from within a caller's span.
fn send(service: &Service, (trace, span): (&str, &str)) -> TcpStream {
    let more = format!("traceparent: 00-{trace}-{span}-01\r\nconnection: close\r\n");
    let request = raw_order(&service.client.addr, "k", &more, &order("a"));
    let mut connection = TcpStream::connect(&service.client.addr).expect("it listens");
    connection.write_all(request.as_bytes()).expect("it reads");
    connection
}

/// The one span of that name.
#[track_caller]
fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    let (Some(span), None) = (named.next(), named.next()) else {
        panic!("not one span {name:?}: {spans:#?}")
    };
    span
}

/// The names of the spans, each with that of the span it is in; the caller's is of another service.
fn tree(spans: &[Span]) -> BTreeSet<(&str, &str)> {
    let parent = |span: &Span| spans.iter().find(|other| other.span_id == span.parent_span_id);
    let named = spans
        .iter()
        .map(|span| (parent(span).map_or("caller", |parent| &parent.name), span.name.as_str()));
    named.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_whose_client_has_left_is_in_its_callers_trace_and_so_is_the_retry() {
    let collector = Collector::start().await;
    let mut service = Service::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint),
        ("RUST_LOG", "info,idem=debug"),
        ("SHIPPING_DELAY_MS", "1000"),
    ]);

    let first = send(&service, FIRST);
    service.process.wait_for_log("packing");
    drop(first);
    service
        .process
        .wait_for_log("an idempotent request has ended key=POST%20/shipping/order:acme:k outcome=\"executed\"");
    let mut answer = String::new();
    send(&service, RETRY).read_to_string(&mut answer).expect("an answer");
    service.process.terminate();
    let ended = service.process.ended();

    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(ended.status.success(), "{ended:#?}");
    let first = collector.spans("shipping", FIRST.0);
    let request = "POST /shipping/order";
    // The last one began when nobody was there any more.
    let whole = [
        ("caller", request),
        (request, "idempotent"),
        ("idempotent", "pack"),
        ("idempotent", "insert"),
    ];
    assert_eq!(tree(&first), BTreeSet::from(whole), "{first:#?}");
    assert_eq!(hex(&named(&first, request).parent_span_id), FIRST.1);
    assert_eq!(named(&first, request).kind(), SpanKind::Server);
    let idempotent = named(&first, "idempotent");
    let attributes =
        ["operation", "scope", "idempotency_key", "outcome"].map(|name| text(&idempotent.attributes, name));
    assert_eq!(attributes.map(Option::unwrap), [request, "acme", "k", "executed"]);

    let retry = collector.spans("shipping", RETRY.0);
    assert_eq!(
        tree(&retry),
        BTreeSet::from([("caller", request), (request, "idempotent")]),
        "{retry:#?}"
    );
    assert_eq!(hex(&named(&retry, request).parent_span_id), RETRY.1);
    let outcome = text(&named(&retry, "idempotent").attributes, "outcome");
    assert_eq!(outcome.as_deref(), Some("replayed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_is_a_warning_and_nothing_else() {
    let mut service = Service::start_with(&[
        // Nothing listens on port 1: it is reserved for a service that is not in use any more.
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("SHIPPING_DELAY_MS", "0"),
    ]);

    let answer = service
        .client
        .post("/shipping/order", "acme-demo", "k", &order("a"))
        .await;
    assert_eq!(answer.status, 201);
    let warning = "WARN shipping::traces: OTEL_EXPORTER_OTLP_ENDPOINT: the collector does not take traces";
    service.process.wait_for_log(warning);
    // Its spans are lost as well, at the latest at the end.
    let replayed = service
        .client
        .post("/shipping/order", "acme-demo", "k", &order("a"))
        .await;
    assert_eq!(replayed.status, 201);
    service.process.terminate();
    let ended = service.process.ended();

    assert!(ended.status.success(), "{ended:#?}");
    assert_eq!(ended.stderr.matches("does not take traces").count(), 1, "{ended:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_cannot_be_used_is_a_warning_that_does_not_repeat_it() {
    let mut service = Service::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:hunter2@collector"),
        ("SHIPPING_DELAY_MS", "0"),
    ]);
    service
        .process
        .wait_for_log("WARN shipping: OTEL_EXPORTER_OTLP_ENDPOINT: must begin with http://");

    let answer = service
        .client
        .post("/shipping/order", "acme-demo", "k", &order("a"))
        .await;
    service.process.terminate();
    let ended = service.process.ended();

    assert_eq!(answer.status, 201);
    assert!(!ended.stderr.contains("hunter2"), "{ended:#?}");
}
