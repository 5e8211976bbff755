//! The same handler several times: alone, behind what people write by hand, and annotated.

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use idem_axum::{Idempotency, MemoryBackend, RedisBackend};
use idem_bench::{bare, guarded};
use redis::IntoConnectionInfo as _;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use tokio::net::TcpListener;

#[cfg(feature = "postgres")]
use crate::sql;

/// A day, in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// Twenty lines that do the least there is to do: claim, run, store; no fingerprint, no fencing, no lease.
async fn floor(State(mut redis): State<MultiplexedConnection>, request: Request, next: Next) -> Response {
    let key = key(request.headers());
    let mut claim = redis::cmd("SET");
    claim.arg(&key).arg("P").arg("NX").arg("GET").arg("PX").arg(DAY);
    let held: Option<Vec<u8>> = claim.query_async(&mut redis).await.expect("SET");
    if let Some(stored) = held {
        read_if_large(request).await;
        return (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], stored).into_response();
    }
    let (parts, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let mut store = redis::cmd("SET");
    store.arg(&key).arg(&body[..]).arg("PX").arg(DAY);
    store.exec_async(&mut redis).await.expect("SET");
    Response::from_parts(parts, Body::from(body))
}

/// The scheme of many an article: a hash a key, whose field is set first by one of all. It never expires.
async fn article(State(mut redis): State<MultiplexedConnection>, request: Request, next: Next) -> Response {
    let key = key(request.headers());
    let mut claim = redis::cmd("HSETNX");
    claim.arg(&key).arg("status").arg("pending");
    let is_first: bool = claim.query_async(&mut redis).await.expect("HSETNX");
    if !is_first {
        read_if_large(request).await;
        let mut read = redis::cmd("HGET");
        read.arg(&key).arg("response");
        let stored: Option<Vec<u8>> = read.query_async(&mut redis).await.expect("HGET");
        let headers = [(CONTENT_TYPE, "application/json")];
        return match stored {
            Some(stored) => (StatusCode::CREATED, headers, stored).into_response(),
            None => StatusCode::CONFLICT.into_response(),
        };
    }
    let (parts, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let mut store = redis::cmd("HSET");
    store.arg(&key).arg("status").arg("done").arg("response").arg(&body[..]);
    store.exec_async(&mut redis).await.expect("HSET");
    Response::from_parts(parts, Body::from(body))
}

/// A server hangs up on a client whose body nobody reads, unless it has come already, as small ones have.
async fn read_if_large(request: Request) {
    if request.body().size_hint().lower() > 8 * 1024 {
        let _read = to_bytes(request.into_body(), usize::MAX).await.expect("a body");
    }
}

pub(crate) fn key(headers: &HeaderMap) -> String {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    format!("order:{}", key.expect("each request has a key"))
}

/// Serves until the process is killed; prints where.
pub(crate) async fn run(variant: &str, url: &str) {
    let router = match variant {
        "bare" => bare(),
        "floor" => bare().layer(middleware::from_fn_with_state(connection(url).await, floor)),
        "article" => bare().layer(middleware::from_fn_with_state(connection(url).await, article)),
        #[cfg(feature = "postgres")]
        "sql" => sql::by_hand(url, sql::NARROW).await,
        #[cfg(feature = "postgres")]
        "sql-wide" => sql::by_hand(url, sql::WIDE).await,
        #[cfg(feature = "postgres")]
        "postgres" => sql::annotated(url, sql::NARROW, false).await,
        #[cfg(feature = "postgres")]
        "postgres-wide" => sql::annotated(url, sql::WIDE, false).await,
        #[cfg(feature = "postgres")]
        "swept" => sql::annotated(url, sql::NARROW, true).await,
        #[cfg(feature = "sqlite")]
        "sqlite-by-hand" => crate::sqlite::by_hand(url).await,
        #[cfg(feature = "sqlite")]
        "sqlite" => crate::sqlite::annotated(url).await,
        "memory" => guarded(Idempotency::new(MemoryBackend::new())),
        "redis" => {
            let backend = RedisBackend::connect(url).await;
            guarded(Idempotency::new(backend.expect("the server answers")))
        }
        _ => panic!("no such variant: {variant}"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("it is bound"));
    axum::serve(listener, router).await.expect("serving never ends");
}

/// As fast as the backend's: without delay, and one for all requests.
pub(crate) async fn connection(url: &str) -> MultiplexedConnection {
    let settings = url.into_connection_info().expect("a URL");
    let settings = settings.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = redis::Client::open(settings).expect("settings");
    client
        .get_multiplexed_async_connection()
        .await
        .expect("the server answers")
}
