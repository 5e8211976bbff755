//! IDEM-2: whatever response a handler can build, its replay is equal but for the marker, the date and what belongs to the
//! connection.
//!
//! Each of the responses goes over a real socket twice, over HTTP/1.1 and HTTP/2 in turn. The seed is printed;
//! `PROPTEST_RNG_SEED` takes one.

use std::cell::Cell;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use futures_util::stream;
use idem_axum::idempotent;
use idem_tests::{Answer, Client, Service};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed, TestRunner};
use reqwest::Method;

const CASES: u32 = 1_000;
const LIMIT: usize = 1024 * 1024;
/// What a connection adds or takes away. `Transfer-Encoding` and `Upgrade` are the server's and not among what is generated.
const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
];

/// A response to build.
#[derive(Clone, Debug)]
struct Plan {
    status: u16,
    lines: Vec<(HeaderName, HeaderValue)>,
    body: Framed,
    seed: u8,
    http2: bool,
}

/// How the body is handed to the server; each piece is so long.
#[derive(Clone, Debug)]
enum Framed {
    Whole(usize),
    /// In pieces that are there at once.
    Ready(Vec<usize>),
    /// In pieces that are not.
    Later(Vec<usize>),
    /// The same, with its length said before.
    Announced(Vec<usize>),
}

impl Plan {
    fn pieces(&self) -> Vec<Bytes> {
        let sizes = match &self.body {
            Framed::Whole(size) => std::slice::from_ref(size),
            Framed::Ready(sizes) | Framed::Later(sizes) | Framed::Announced(sizes) => sizes,
        };
        // Of a length that is no multiple of anything, so that pieces cannot be exchanged unseen.
        let pattern: Vec<u8> = (0..251).map(|at: u8| at.wrapping_mul(31) ^ self.seed).collect();
        let piece = |(index, size): (usize, &usize)| {
            let mut bytes = pattern.repeat(size / pattern.len() + 2);
            bytes.drain(..index);
            bytes.truncate(*size);
            Bytes::from(bytes)
        };
        sizes.iter().enumerate().map(piece).collect()
    }

    fn respond(&self) -> Response {
        let pieces = self.pieces();
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let body = match self.body {
            Framed::Whole(_) => Body::from(pieces.concat()),
            Framed::Ready(_) => Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>))),
            Framed::Later(_) | Framed::Announced(_) => {
                Body::from_stream(stream::unfold(pieces.into_iter(), |mut pieces| async move {
                    tokio::task::yield_now().await;
                    Some((Ok::<_, Infallible>(pieces.next()?), pieces))
                }))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).expect("a status");
        for (name, value) in &self.lines {
            response.headers_mut().append(name, value.clone());
        }
        if let Framed::Announced(_) = self.body {
            response.headers_mut().insert("content-length", length.into());
        }
        response
    }
}

/// What the handler answers next.
type Next = Arc<Mutex<Option<Plan>>>;

/// There is nothing to answer twice, so a second run is a panic.
#[idempotent(ttl = "1m", scope = global, store = "all")]
async fn answer(Extension(next): Extension<Next>) -> Response {
    let plan = next.lock().unwrap_or_else(PoisonError::into_inner).take();
    plan.expect("it runs once").respond()
}

fn any_line() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let known = prop::sample::select(vec![
        "set-cookie",
        "etag",
        "location",
        "vary",
        "link",
        "content-type",
        "content-encoding",
        "cache-control",
        "retry-after",
        "date",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "x-a",
    ]);
    let name = prop_oneof![known.prop_map(str::to_owned), "x-[a-z0-9_~-]{1,20}"];
    let byte = prop_oneof![4 => b'!'..=b'~', 1 => Just(b' '), 1 => Just(b'\t'), 1 => 128_u8..];
    let times = prop_oneof![9 => Just(1), 1 => Just(100)];
    (name, vec(byte, 0..40), times).prop_map(|(name, value, times)| {
        let value = value.repeat(times);
        // HTTP takes white space at the ends away.
        let value = HeaderValue::from_bytes(value.trim_ascii()).expect("a header value");
        (name.parse().expect("a header name"), value)
    })
}

/// Sometimes a `Connection` that names another header.
fn any_lines() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    (vec(any_line(), 0..12), prop::bool::weighted(0.1)).prop_map(|(mut lines, with_hop)| {
        if with_hop {
            let hop = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
            lines.extend([hop("connection", "X-Hop"), hop("x-hop", "1")]);
        }
        lines
    })
}

fn any_body() -> impl Strategy<Value = Framed> {
    let size = || prop_oneof![8 => 0..2_000_usize, 1 => 0..100_000_usize];
    let sizes = || vec(size(), 0..6);
    prop_oneof![
        20 => size().prop_map(Framed::Whole),
        1 => (LIMIT - 2..=LIMIT).prop_map(Framed::Whole),
        10 => sizes().prop_map(Framed::Ready),
        10 => sizes().prop_map(Framed::Later),
        1 => (0..LIMIT).prop_map(|first| Framed::Later(vec![first, LIMIT - first])),
        10 => sizes().prop_map(Framed::Announced),
    ]
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let status = prop_oneof![2 => 200..300_u16, 1 => 300..600_u16, 1 => prop::sample::select(vec![204, 205, 304])];
    (status, any_lines(), any_body(), any::<u8>(), any::<bool>()).prop_map(|(status, lines, body, seed, http2)| Plan {
        status,
        lines,
        body,
        seed,
        http2,
    })
}

/// What is left of an answer's headers where a connection is not asked.
fn own(answer: &Answer, named: bool) -> HeaderMap {
    let mut headers = answer.headers.clone();
    for name in HOP_BY_HOP.iter().chain(&["date", "idempotent-replayed"]) {
        headers.remove(*name);
    }
    if named {
        headers.remove("x-hop");
    }
    headers
}

struct Sockets {
    service: Service,
    http2: Client,
    next: Next,
}

impl Sockets {
    async fn open() -> Self {
        let next = Next::default();
        let routes = Router::new()
            .route("/generated", post(answer))
            .layer(Extension(next.clone()));
        let service = Service::memory(routes).await;
        let http2 = Client::http2(&format!("http://{}", service.address));
        Self { service, http2, next }
    }

    async fn twice(&self, key: &str, plan: &Plan) -> [Answer; 2] {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan.clone());
        let client = if plan.http2 { &self.http2 } else { &self.service.client };
        let call = || client.call(Method::POST, "/generated").key(key).send();
        let first = call().await;
        // Of a length that was announced, a client knows the end before it is recorded.
        self.service.idempotency.drain().await;
        [first, call().await]
    }
}

fn check(plan: &Plan, [first, replay]: &[Answer; 2]) -> Result<(), TestCaseError> {
    let sent = plan.pieces().concat();
    let has_body = ![204, 304].contains(&plan.status);
    prop_assert_eq!(first.status.as_u16(), plan.status);
    prop_assert_eq!(&first.body[..], if has_body { &sent[..] } else { &[] });
    prop_assert!(!first.is_replay() && replay.is_replay());
    prop_assert_eq!(replay.status, first.status);
    prop_assert_eq!(&replay.body, &first.body);
    let named = plan.lines.iter().any(|(name, _)| name == "connection");
    prop_assert_eq!(own(replay, named), own(first, named));
    prop_assert!(!named || !replay.headers.contains_key("x-hop"));
    Ok(())
}

#[test]
fn every_generated_response_is_replayed_as_it_was() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let sockets = runtime.block_on(Sockets::open());
    let mut config = ProptestConfig {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "it/generated_responses.regressions",
        ))),
        ..ProptestConfig::default()
    };
    if let RngSeed::Random = config.rng_seed {
        config.rng_seed = RngSeed::Fixed(new_seed());
    }
    println!("{CASES} responses of {:?}", config.rng_seed);
    let played = Cell::new(0);
    let outcome = TestRunner::new(config).run(&any_plan(), |plan| {
        played.set(played.get() + 1);
        let key = format!("response {}", played.get());
        check(&plan, &runtime.block_on(sockets.twice(&key, &plan)))
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

fn new_seed() -> u64 {
    RandomState::new().hash_one(())
}
