//! What a claim says of its attempts: which process holds it, and when the first one began.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::{Backend, Execution, Idempotency, MemoryBackend, RedisBackend, idempotent};
use idem_core::claim::{millis_of_time, time_from_millis};
use idem_core::{Claim, IdempotencyKey, Record, RecordKey, Scope};
use idem_tests::{Call, Order, PostgresServer, RedisServer, Service, in_time};
use reqwest::Method;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What the handler shares with its test.
#[derive(Clone)]
struct Stage {
    /// What each attempt was told of its beginning.
    beginnings: Arc<Mutex<Vec<Option<SystemTime>>>>,
    /// Has one permit for each first attempt that has started to hang.
    hanging: Arc<Semaphore>,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            beginnings: Arc::default(),
            hanging: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Stage {
    fn note_beginning(&self, began_at: Option<SystemTime>) {
        let mut beginnings = self.beginnings.lock().unwrap_or_else(PoisonError::into_inner);
        beginnings.push(began_at);
    }

    fn beginnings(&self) -> Vec<Option<SystemTime>> {
        let beginnings = self.beginnings.lock().unwrap_or_else(PoisonError::into_inner);
        beginnings.clone()
    }

    /// Waits until a first attempt hangs.
    async fn until_hanging(&self) {
        self.hanging.acquire().await.expect("it is never closed").forget();
    }
}

/// Hangs in its first attempt, whose claim then lapses.
#[idempotent(ttl = "1m", scope = global, name = "hung", required = false, lease = "600ms", max_run = "800ms")]
async fn hung(execution: Execution, Extension(stage): Extension<Stage>) -> StatusCode {
    stage.note_beginning(execution.began_at());
    if execution.record_key().is_some() && execution.attempt() == 1 {
        stage.hanging.add_permits(1);
        std::future::pending::<()>().await;
    }
    StatusCode::CREATED
}

async fn serve(idempotency: Idempotency) -> (Service, Stage) {
    let stage = Stage::default();
    let routes = Router::new().route("/hung", post(hung)).layer(Extension(stage.clone()));
    let service = Service::wrapped(idempotency, routes, |router| router).await;
    (service, stage)
}

fn call(service: &Service, key: &str) -> Call {
    service.client.call(Method::POST, "/hung").key(key)
}

/// The claim that is stored under a key.
async fn stored(backend: &impl Backend, key: &str) -> Claim {
    let record = RecordKey::new("hung", &Scope::global(), &IdempotencyKey::of(&key)).expect("a valid key");
    match backend.read(&record).await.expect("a healthy server") {
        Some(Record::Claimed { claim, .. }) => claim,
        other => panic!("{other:?} is no claim"),
    }
}

async fn a_claim_names_its_owner(backend: impl Backend + Clone) {
    for (set, stored_as) in [("web:7", "web:7"), ("web\0\n7", "web__7")] {
        let (service, stage) = serve(Idempotency::new(backend.clone()).with_owner(set)).await;
        let mut client = JoinSet::new();
        client.spawn(call(&service, stored_as).send());
        stage.until_hanging().await;
        assert_eq!(stored(&backend, stored_as).await.owner.as_str(), stored_as);
    }
}

async fn every_attempt_is_told_when_the_first_one_began(backend: impl Backend + Clone) {
    let (service, stage) = serve(Idempotency::new(backend.clone())).await;
    // Records have whole milliseconds.
    let before = time_from_millis(millis_of_time(SystemTime::now()));
    let mut client = JoinSet::new();
    client.spawn(call(&service, "k").send());
    stage.until_hanging().await;
    let (after, began_at) = (SystemTime::now(), stored(&backend, "k").await.began_at);
    assert!(
        before <= began_at && began_at <= after,
        "{before:?} {began_at:?} {after:?}"
    );
    assert_eq!(stage.beginnings(), [Some(began_at)]);

    while call(&service, "k").send().await.status != StatusCode::CREATED {}
    assert_eq!(stage.beginnings(), [Some(began_at); 2], "the second attempt keeps it");

    let unprotected = service.client.call(Method::POST, "/hung").send().await;
    assert_eq!(unprotected.status, StatusCode::CREATED);
    assert_eq!(stage.beginnings()[2], None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_names_the_owner_of_its_attempt_after_it_has_ended() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let (service, _stage) = serve(Idempotency::new(backend).with_owner("web:7")).await;
        let placed = service.client.order("k", &Order::new("o")).send().await;
        assert_eq!(placed.status, StatusCode::CREATED);
        let owner: String = server.query(&format!("SELECT owner FROM {schema}.idem_records")).await;
        assert_eq!(owner, "web:7");
    })
    .await;
}

/// The same on each backend.
macro_rules! on_each_backend {
    ($($test:ident)*) => {
        mod memory {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    in_time(super::$test(MemoryBackend::new())).await;
                }
            )*
        }

        mod redis {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let server = RedisServer::start().await;
                    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
                    in_time(super::$test(backend)).await;
                }
            )*
        }

        mod postgres {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let server = PostgresServer::shared().await;
                    let (backend, _schema) = server.backend().await;
                    in_time(super::$test(backend)).await;
                }
            )*
        }
    };
}

on_each_backend! {
    a_claim_names_its_owner
    every_attempt_is_told_when_the_first_one_began
}
