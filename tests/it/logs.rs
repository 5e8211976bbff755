//! IDEM-9: what clients send is harmless in logs and in storage.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, Request, StatusCode};
use axum::routing::post;
use idem_axum::{BackendError, Idempotency, RedisBackend, idempotent};
use idem_tests::{Log, Order, Service, TENANT, in_time, until};
use tower::ServiceExt as _;

#[idempotent(ttl = "1m", scope = body)]
async fn scoped_by_body(body: String) -> String {
    body
}

#[idempotent(ttl = "1m", scope = global)]
async fn unscoped() {}

#[idempotent(ttl = "1m", scope = global, fingerprint = (&body, Unserializable))]
async fn unserializable(body: String) -> String {
    body
}

struct Unserializable;

impl serde::Serialize for Unserializable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no form\nERROR forged: line"))
    }
}

#[idempotent(ttl = "1m", scope = global, lease = "100ms")]
async fn endless() {
    std::future::pending::<()>().await;
}

fn request(path: &str, key: &str, body: &str) -> Request<Body> {
    Request::post(path)
        .header("idempotency-key", key)
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

/// A backend that nobody listens behind, so that every request is logged as refused.
async fn unreachable() -> Result<Idempotency, BackendError> {
    let mut server = idem_tests::RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await?;
    server.kill();
    Ok(Idempotency::new(backend))
}

#[tokio::test]
async fn keys_and_scopes_cannot_forge_a_line_of_the_log() {
    let idempotency = unreachable().await.expect("the server answers");
    let router: Router = Router::new().route("/scoped", post(scoped_by_body)).layer(idempotency);
    let (log, _guard) = Log::listen(tracing::Level::TRACE);
    let request = request(
        "/scoped",
        "{k}:*%../ \"q\"",
        "acme\nERROR forged: line\r\u{1b}[31m\u{9b}m\u{2028}",
    );
    let response = router.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = log.text();
    assert!(text.contains("%7Bk%7D%3A%2A%25../%20%22q%22"), "{text}");
    assert!(text.contains("acme%0AERROR%20forged"), "{text}");
    for syntax in ["ERROR forged", "\u{1b}", "\u{9b}", "\u{2028}", "\r"] {
        assert!(!text.contains(syntax), "{syntax:?} in {text:?}");
    }
}

/// At ten renewals, and at each doubling.
#[tokio::test]
async fn a_handler_that_does_not_end_is_noticed_in_the_log() {
    in_time(async {
        let (log, _guard) = Log::listen(tracing::Level::WARN);
        let idempotency = Idempotency::new(idem_axum::MemoryBackend::new());
        let router: Router = Router::new().route("/endless", post(endless)).layer(idempotency);
        let _running = tokio::spawn(router.oneshot(request("/endless", "k", "")));
        for (lines, renewals) in [(1, "renewals=10"), (2, "renewals=20"), (3, "renewals=40")] {
            until("it is noticed", async || {
                log.lines_with("running for several leases").len() == lines
            })
            .await;
            assert_eq!(log.lines_with(renewals).len(), 1, "{}", log.text());
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_value_says_of_its_missing_form_is_logged_on_one_line() {
    let idempotency = Idempotency::new(idem_axum::MemoryBackend::new());
    let router: Router = Router::new().route("/", post(unserializable)).layer(idempotency);
    let (log, _guard) = Log::listen(tracing::Level::TRACE);
    let response = router.oneshot(request("/", "k", "b")).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let text = log.text();
    assert!(text.contains("`fingerprint` of an #[idempotent] handler"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("ERROR forged")), "{text}");
}

#[tokio::test]
async fn without_the_layer_the_log_says_what_to_add() {
    let router: Router = Router::new().route("/", post(unscoped));
    let (log, _guard) = Log::listen(tracing::Level::TRACE);
    let response = router.oneshot(request("/", "k", "")).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let text = log.text();
    assert!(
        text.contains("ERROR") && text.contains("add `.layer(idempotency.clone())`"),
        "{text}"
    );
}

/// Over a real socket, into a real Redis: each is one record of its own, replayed to its own key only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_look_like_syntax_are_keys_like_any_other() {
    let service = Service::redis(Router::new()).await;
    let keys = [
        "{}",
        "{a}",
        "*",
        "?",
        "[a-z]",
        "%",
        "%25",
        "%0d%0a",
        "a:b",
        "a",
        "b",
        ":",
        "::c",
        "../",
        "../../etc/passwd",
        "/",
        "\\",
        "\\r\\n",
        "'; DROP TABLE orders; --",
        "$(id)",
        "`id`",
        "<script>",
        "${jndi:ldap://x}",
        "@global",
        "(a)",
        TENANT,
        "nil",
        "null",
        "-",
        "0",
    ];
    let mut firsts = Vec::new();
    for key in keys {
        let first = service.client.order(key, &Order::new(key)).send().await;
        assert_eq!(first.status, StatusCode::CREATED, "{key}");
        assert!(!first.is_replay(), "{key}");
        firsts.push(first);
    }
    for (key, first) in keys.iter().zip(&firsts) {
        service
            .client
            .order(key, &Order::new(key))
            .send()
            .await
            .assert_replays(first);
        assert_eq!(service.app.executions(key), 1, "{key}");
    }
}

/// A line break never gets as far as the key.
#[test]
fn a_header_cannot_carry_a_line_break() {
    for key in ["a\r\nx: 1", "a\nb", "a\0b"] {
        assert!(
            Request::post("/")
                .header(HeaderName::from_static("idempotency-key"), key)
                .body(())
                .is_err()
        );
    }
}
