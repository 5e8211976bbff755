//! Requests without sockets, one at a time on one thread, so that what they cost can be counted.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use idem_axum::{Idempotency, MemoryBackend};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// The handler alone.
    Bare,
    /// The annotated handler on the memory backend.
    Memory,
}

/// Which keys requests carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each its own.
    First,
    /// One, which has been used before.
    Replay,
}

/// The four things to count, in the order of tables.
pub const CALLS: [(Callee, Kind, &str); 4] = [
    (Callee::Bare, Kind::First, "bare, first request"),
    (Callee::Memory, Kind::First, "memory, first request"),
    (Callee::Bare, Kind::Replay, "bare, replay"),
    (Callee::Memory, Kind::Replay, "memory, replay"),
];

/// Requests before anything is counted: maps have grown, and what is made once is made.
const WARM_UP: u32 = 1_000;

/// A service in this process.
#[derive(Debug)]
pub struct Within {
    runtime: Runtime,
    router: Router,
    kind: Kind,
    next: u32,
}

impl Within {
    /// A service that has answered its first requests.
    ///
    /// # Panics
    ///
    /// When there is no runtime to be had.
    #[must_use]
    pub fn warm(callee: Callee, kind: Kind) -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let router = match callee {
            Callee::Bare => crate::bare(),
            Callee::Memory => crate::guarded(Idempotency::new(MemoryBackend::new())),
        };
        let mut within = Self {
            runtime,
            // As serving does, which makes routes of handlers once and not for each request.
            router: router.with_state(()),
            kind,
            next: 0,
        };
        let warming = within.requests(WARM_UP);
        within.send(warming);
        within
    }

    /// The next requests, to be made outside of what is counted.
    ///
    /// # Panics
    ///
    /// Never: they are well-formed.
    pub fn requests(&mut self, count: u32) -> Vec<Request<Body>> {
        let first = self.next;
        self.next += count;
        let request = |number: u32| {
            let number = if self.kind == Kind::First { number } else { 0 };
            let key = format!("8e03978e-40d5-43dd-bc93-{number:012}");
            let body = format!("\"{}\"", "x".repeat(198));
            let value = |value: &str| HeaderValue::from_maybe_shared(shared(value)).expect("a header value");
            let mut request = Request::new(Body::from(shared(&body)));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = Uri::from_maybe_shared(shared("/orders")).expect("a path");
            let headers = request.headers_mut();
            headers.insert(HOST, value("bench"));
            headers.insert(CONTENT_TYPE, value("application/json"));
            headers.insert("idempotency-key", value(&key));
            headers.insert(CONTENT_LENGTH, value("200"));
            request
        };
        (first..self.next).map(request).collect()
    }

    /// Sends them one after another.
    ///
    /// # Panics
    ///
    /// When one is not answered as it should be.
    pub fn send(&self, requests: Vec<Request<Body>>) {
        self.runtime.block_on(async {
            for request in requests {
                let answer = self.router.clone().oneshot(request).await;
                assert_eq!(answer.expect("infallible").status(), StatusCode::CREATED);
            }
        });
    }
}

/// Bytes that share their memory with others, as those of a request do that a server has read.
fn shared(text: &str) -> Bytes {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    bytes.clone()
}
