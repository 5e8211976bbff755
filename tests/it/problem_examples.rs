//! The examples in `docs/http.md` are what a service sends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use http_body_util::BodyExt as _;
use idem_axum::sqlx::{self, AssertSqlSafe};
use idem_axum::{
    Idempotency, IdempotencyLayer, IdempotencyProblem, MemoryBackend, RedisBackend, Transaction, idempotent,
};
use idem_tests::{Answer, App, Order, PostgresServer, RedisServer, Service, in_time};
use reqwest::Method;
use serde_json::Value;

use crate::raw::Raw;

/// The headers that an example shows if the answer has them.
const SHOWN: [&str; 4] = ["content-type", "idempotency-code", "link", "retry-after"];

/// One answer, in the documentation or from the service.
#[derive(Debug, PartialEq)]
struct Example {
    status: String,
    headers: BTreeMap<String, String>,
    body: Option<Value>,
}

impl Example {
    /// Reads what is between the fences.
    fn written(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header line");
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            status: status.expect("a status line").to_owned(),
            headers: lines.map(header).collect(),
            body: (!body.trim().is_empty()).then(|| serde_json::from_str(body).expect("JSON")),
        }
    }

    fn sent(answer: &Answer) -> Self {
        let shown = |name: &&str| {
            let value = answer.headers.get(*name)?;
            Some(((*name).to_owned(), value.to_str().expect("text").to_owned()))
        };
        Self {
            status: answer.status.to_string(),
            headers: SHOWN.iter().filter_map(shown).collect(),
            body: (!answer.body.is_empty()).then(|| answer.json()),
        }
    }
}

/// Every example, by its heading without backquotes, and after the first below a heading by its status too.
fn documented() -> BTreeMap<String, Example> {
    let page = include_str!("../../docs/http.md");
    let mut documented = BTreeMap::new();
    for section in page.split("\n### ").skip(1) {
        let heading = section.lines().next().unwrap_or_default().trim_matches('`');
        for (index, block) in section.split("```http\n").skip(1).enumerate() {
            let example = Example::written(block.split_once("\n```").expect("its end").0);
            let name = match index {
                0 => heading.to_owned(),
                _ => format!("{heading} {}", &example.status[..3]),
            };
            documented.insert(name, example);
        }
    }
    documented
}

#[idempotent(ttl = "1m", scope = global, max_response = "1B")]
async fn too_large() -> &'static str {
    "two"
}

fn nobody(_: &HeaderMap) -> &'static str {
    ""
}

#[idempotent(ttl = "1m", scope = nobody(headers))]
async fn scoped(headers: HeaderMap, body: String) -> String {
    body
}

#[idempotent(ttl = "1m", scope = global)]
async fn panicking() -> StatusCode {
    panic!("in a handler, on purpose")
}

/// Whoever comes after the panic waits until the claim has lapsed.
#[idempotent(ttl = "1m", scope = global, after_crash = "refuse", lease = "1s", in_flight = "wait", wait = "50s")]
async fn refusing() -> StatusCode {
    panic!("in a handler, on purpose")
}

/// Lets a statement of its transaction fail, or does worse, and does not act on it.
#[idempotent(ttl = "1m", scope = global)]
async fn careless(mut transaction: Transaction, sql: String) -> StatusCode {
    let Ok(connection) = transaction.begin().await else {
        return StatusCode::BAD_GATEWAY;
    };
    let _ = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    StatusCode::CREATED
}

/// What a transaction comes to, each with a statement that makes it so.
async fn add_transactions(sent: &mut BTreeMap<String, Example>) {
    let server = PostgresServer::shared().await;
    let (backend, _) = server.backend().await;
    let idempotency = Idempotency::new(backend).with_documentation("https://example.com/idempotency");
    let routes = Router::<App>::new().route("/careless", post(careless));
    let service = Service::wrapped(idempotency, routes, |router| router).await;
    for (heading, sql) in [
        ("rolled-back", "SELECT nothing"),
        ("rolled-back 503", "SELECT pg_terminate_backend(pg_backend_pid())"),
        ("not-committed", "COMMIT"),
    ] {
        let call = service
            .client
            .call(Method::POST, "/careless")
            .key(&sql.replace(' ', "-"));
        let answer = call.body(sql).send().await;
        sent.insert(heading.to_owned(), Example::sent(&answer));
    }
}

async fn service() -> Service {
    let server = RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    let idempotency = Idempotency::new(backend).with_documentation("https://example.com/idempotency");
    let layer = IdempotencyLayer::new(idempotency.clone(), Duration::from_mins(1))
        .scope_global()
        .with_body_limit(1);
    let routes = Router::<App>::new()
        .route("/by-the-layer", post(async || "done").layer(layer))
        .route("/too-large", post(too_large))
        .route("/scoped", post(scoped))
        .route("/panicking", post(panicking))
        .route("/refusing", post(refusing));
    let mut service = Service::wrapped(idempotency, routes, |router| router).await;
    service.redis = Some(server);
    service
}

/// A request to the layer whose chunked body breaks its own rules.
async fn broken_off(address: SocketAddr) -> Example {
    let mut raw = Raw::post_chunked(address, "/by-the-layer", &["idempotency-key: b"]).await;
    raw.write(b"no length\r\n").await;
    let answered = raw.answer().await;
    let status = StatusCode::from_u16(answered.status).expect("a status");
    let lines = answered.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let shown = lines.filter(|(name, _)| SHOWN.contains(name));
    Example {
        status: status.to_string(),
        headers: shown.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: serde_json::from_str(&answered.body).ok(),
    }
}

/// The answer of a service that runs as many handlers as it may.
async fn too_busy() -> Example {
    let idempotency = Idempotency::new(MemoryBackend::new())
        .with_documentation("https://example.com/idempotency")
        .with_max_in_flight(1);
    let service = Service::wrapped(idempotency, Router::<App>::new(), |router| router).await;
    // It is held until the service ends.
    let _first = tokio::spawn(service.client.order("k", &Order::new("o").held()).send());
    service.app.wait_until_started(1).await;
    Example::sent(&service.client.order("l", &Order::new("p")).send().await)
}

/// The answer of a layer whose service stays busy. It is waited for in `layered::errors`, on a paused clock.
async fn not_ready() -> Example {
    let (head, body) = idem_http::problem::not_ready().into_parts();
    let body = body.collect().await.expect("no failure").to_bytes();
    let (status, headers) = (head.status, head.headers);
    Example::sent(&Answer { status, headers, body })
}

/// Every case, made to happen.
async fn sent() -> BTreeMap<String, Example> {
    let mut service = service().await;
    let mut sent = BTreeMap::new();
    let mut add = |heading: &str, answer: &Answer| sent.insert(heading.to_owned(), Example::sent(answer));
    let call = |path: &str| service.client.call(Method::POST, path).key("k");

    let without = service.client.call(Method::POST, "/orders").json(&Order::new("o"));
    add("key-missing", &without.send().await);
    add(
        "key-invalid",
        &call("/orders").key("k").json(&Order::new("o")).send().await,
    );
    add("not-configured", &call("/scoped").body(" ").send().await);
    add("too-large", &call("/by-the-layer").body("two").send().await);
    add("Panicked", &call("/panicking").send().await);

    for (path, started, heading) in [("/orders", 1, "in-flight"), ("/orders/accepting", 2, "Accepted")] {
        let order = Order::new(path).held();
        // It is held until the service ends.
        let _first = tokio::spawn(service.client.order_at(path, "k", &order).send());
        service.app.wait_until_started(started).await;
        add(heading, &service.client.order_at(path, "k", &order).send().await);
    }
    add(
        "key-reused",
        &service.client.order("k", &Order::new("other")).send().await,
    );

    call("/too-large").send().await;
    add("response-not-stored", &call("/too-large").send().await);
    call("/refusing").send().await;
    add("outcome-unknown", &call("/refusing").send().await);

    let body_failed = broken_off(service.address).await;
    service.redis.as_mut().expect("it is on Redis").kill();
    add(
        "backend-unavailable",
        &service.client.order("l", &Order::new("o")).send().await,
    );
    sent.insert("Body failed".to_owned(), body_failed);
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_is_what_a_service_sends() {
    in_time(async {
        let (mut sent, documented) = (sent().await, documented());
        add_transactions(&mut sent).await;
        sent.insert("Not ready".to_owned(), not_ready().await);
        sent.insert("too-busy".to_owned(), too_busy().await);
        for (heading, example) in &documented {
            assert_eq!(sent.remove(heading).as_ref(), Some(example), "{heading}");
        }
        assert!(sent.is_empty(), "not documented: {sent:?}");
    })
    .await;
}

#[test]
fn every_problem_has_its_example() {
    let problems = [
        IdempotencyProblem::KeyMissing,
        IdempotencyProblem::KeyInvalid,
        IdempotencyProblem::TooLarge,
        IdempotencyProblem::KeyReused,
        IdempotencyProblem::InFlight,
        IdempotencyProblem::OutcomeUnknown,
        IdempotencyProblem::ResponseNotStored,
        IdempotencyProblem::BackendUnavailable,
        IdempotencyProblem::TooBusy,
        IdempotencyProblem::RolledBack { may_pass: false },
        IdempotencyProblem::NotCommitted,
        IdempotencyProblem::NotConfigured,
    ];
    let documented = documented();
    for problem in problems {
        let example = documented.get(problem.code()).expect("it is documented");
        assert_eq!(example.status, problem.status().to_string());
    }
    assert_eq!(
        documented.len(),
        problems.len() + 5,
        "with the four that are no problems, and the other case of `rolled-back`"
    );
}
