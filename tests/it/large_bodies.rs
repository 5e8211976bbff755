//! IDEM-20: what requests hold while they wait for another one's answer.
//!
//! The figure is the memory of a whole process, so it is taken in one of its own.

use std::process::Command;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::idempotent;
use idem_tests::{App, Service, in_time};
use reqwest::Method;
use tokio::sync::watch;

const MIB: usize = 1024 * 1024;
const BODY: usize = 4 * MIB;
const DUPLICATES: usize = 19;

/// A body, and a count of those that are there.
struct Uploaded(Bytes);

impl<S: Send + Sync> FromRequest<S> for Uploaded {
    type Rejection = BytesRejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, BytesRejection> {
        let count = request.extensions().get::<Arc<watch::Sender<usize>>>().cloned();
        let body = Bytes::from_request(request, state).await?;
        count.expect("it is layered").send_modify(|count| *count += 1);
        Ok(Self(body))
    }
}

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", wait = "50s")]
async fn upload(
    Extension(open): Extension<Arc<watch::Sender<bool>>>,
    Uploaded(body): Uploaded,
) -> (StatusCode, String) {
    let length = body.len();
    drop(body);
    let mut gate = open.subscribe();
    gate.wait_for(|open| *open).await.expect("the sender lives");
    (StatusCode::CREATED, length.to_string())
}

/// The memory of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .expect("it is there");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

/// Set in the process that measures.
const MEASURES: &str = "IDEM_TESTS_MEASURE_LARGE_BODIES";

#[test]
fn duplicates_of_a_large_request_that_wait_share_one_body() {
    let test = "large_bodies::in_a_process_of_its_own";
    let me = std::env::current_exe().expect("a path");
    let measured = Command::new(me)
        .args(["--exact", test, "--nocapture"])
        .env(MEASURES, "1")
        .output();
    let measured = measured.expect("it runs");
    let said = String::from_utf8_lossy(&measured.stderr).into_owned() + &String::from_utf8_lossy(&measured.stdout);
    assert!(measured.status.success(), "{said}");
    assert!(said.contains("they hold"), "it measured nothing: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_process_of_its_own() {
    if std::env::var_os(MEASURES).is_none() {
        return;
    }
    in_time(async {
        let open = Arc::new(watch::Sender::new(false));
        let uploaded = Arc::new(watch::Sender::new(0_usize));
        let routes = Router::<App>::new()
            .route("/upload", post(upload))
            .layer(DefaultBodyLimit::max(BODY))
            .layer(Extension(uploaded.clone()))
            .layer(Extension(open.clone()));
        let service = Service::memory(routes).await;
        // Shared by all calls of the client.
        let body = Bytes::from(vec![1_u8; BODY]);
        let before = resident();
        let call = || {
            service
                .client
                .call(Method::POST, "/upload")
                .key("k")
                .body(body.clone())
                .send()
        };
        let calls: Vec<_> = (0..=DUPLICATES).map(|_| tokio::spawn(call())).collect();
        let mut there = uploaded.subscribe();
        there
            .wait_for(|count| *count == DUPLICATES + 1)
            .await
            .expect("the sender lives");
        // One runs, and the others wait or are about to.
        let held = resident().saturating_sub(before);
        eprintln!("they hold {} MiB", held / MIB);
        open.send_replace(true);
        for call in calls {
            assert_eq!(call.await.expect("no panic").status, StatusCode::CREATED);
        }
        assert!(
            held < 8 * BODY,
            "{} MiB for {DUPLICATES} duplicates of {} MiB",
            held / MIB,
            BODY / MIB
        );
    })
    .await;
}
