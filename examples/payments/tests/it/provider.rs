//! A payment provider as they are: it knows the keys of holds and mails for a while, and none of captures; it fails on demand, and
//! can be asked what became of a capture.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How long a key is known. A retry after a crash comes a lease later, which is a second.
const KNOWN: Duration = Duration::from_secs(30);

/// What a failure leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It fails before it has acted.
    Before,
    /// It acts, and fails.
    After,
    /// It refuses for good.
    Declined,
}

/// What was done, by what it was for.
#[derive(Debug, Default)]
struct Done {
    holds: HashMap<String, u32>,
    captures: HashMap<String, u32>,
    mails: HashMap<String, u32>,
    /// The answers of keys that are known.
    answers: HashMap<String, (Instant, String)>,
    /// How the next call of a kind fails.
    failures: HashMap<&'static str, Failure>,
}

type Shared = Arc<Mutex<Done>>;

pub(crate) struct Provider {
    done: Shared,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Payment {
    reference: String,
}

fn lock(done: &Shared) -> MutexGuard<'_, Done> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Done {
    /// Acts once for each key that is known, and fails if it was told to.
    fn once(
        &mut self,
        what: &'static str,
        headers: &HeaderMap,
        act: impl FnOnce(&mut Self) -> String,
    ) -> Result<String, StatusCode> {
        let failure = self.failures.remove(what);
        if failure == Some(Failure::Before) {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
        let key = format!("{what} {}", key.unwrap_or_default());
        self.answers.retain(|_, (since, _)| since.elapsed() < KNOWN);
        let known = self.answers.get(&key).map(|(_, answer)| answer.clone());
        let answer = known.unwrap_or_else(|| act(self));
        self.answers.insert(key, (Instant::now(), answer.clone()));
        match failure {
            Some(Failure::After) => Err(StatusCode::SERVICE_UNAVAILABLE),
            _ => Ok(answer),
        }
    }
}

async fn hold(
    State(done): State<Shared>,
    headers: HeaderMap,
    Json(payment): Json<Payment>,
) -> Result<String, StatusCode> {
    lock(&done).once("hold", &headers, |done| {
        *done.holds.entry(payment.reference.clone()).or_default() += 1;
        // The id of a hold is what it is for, so that a capture can be told from another one.
        payment.reference
    })
}

async fn capture(State(done): State<Shared>, Path(hold): Path<String>) -> Result<String, StatusCode> {
    let mut done = lock(&done);
    match done.failures.remove("capture") {
        Some(Failure::Before) => return Err(StatusCode::SERVICE_UNAVAILABLE),
        Some(Failure::Declined) => return Err(StatusCode::PAYMENT_REQUIRED),
        failure => {
            *done.captures.entry(hold.clone()).or_default() += 1;
            if failure.is_some() {
                return Err(StatusCode::SERVICE_UNAVAILABLE);
            }
        }
    }
    Ok(format!("charge of {hold}"))
}

async fn find_capture(State(done): State<Shared>, Path(hold): Path<String>) -> Result<String, StatusCode> {
    let is_captured = lock(&done).captures.contains_key(&hold);
    is_captured
        .then(|| format!("charge of {hold}"))
        .ok_or(StatusCode::NOT_FOUND)
}

async fn mail(
    State(done): State<Shared>,
    headers: HeaderMap,
    Json(payment): Json<Payment>,
) -> Result<String, StatusCode> {
    lock(&done).once("mail", &headers, |done| {
        *done.mails.entry(payment.reference).or_default() += 1;
        String::new()
    })
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let done = Shared::default();
        let router = Router::new()
            .route("/holds", post(hold))
            .route("/holds/{hold}/captures", post(capture).get(find_capture))
            .route("/mails", post(mail))
            .with_state(done.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving never ends");
        });
        Self { done, address, serving }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets the next `hold`, `capture` or `mail` fail.
    pub(crate) fn fail_next(&self, what: &'static str, failure: Failure) {
        lock(&self.done).failures.insert(what, failure);
    }

    /// How many holds, captures and mails there were for `reference`.
    pub(crate) fn done(&self, reference: &str) -> [u32; 3] {
        let done = lock(&self.done);
        [&done.holds, &done.captures, &done.mails].map(|done| done.get(reference).copied().unwrap_or_default())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
