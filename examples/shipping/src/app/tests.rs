//! The router in this process: that its orders are replayed, and what a client gets when the backend fails.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::routing::{MethodRouter, post};
use idem_axum::testing::{BackendCall, Fault, ReplayTest, ScriptedBackend, assert_replays};
use idem_axum::{Backend, BackendErrorKind, Idempotency, MemoryBackend, SqliteBackend};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::{App, router};
use crate::db::Db;
use crate::orders;
use crate::tenant::Tokens;

struct Fixture {
    app: Router,
    db: Db,
    _folder: TempDir,
}

async fn on(backend: impl Backend) -> Fixture {
    let folder = tempfile::tempdir().expect("a temporary folder");
    with(backend, post(orders::place_order_by_request), folder).await
}

/// The records are in the file of the orders.
async fn on_one_file() -> Fixture {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backend = SqliteBackend::open(folder.path().join("shipping.db")).await;
    with(backend.expect("a new file"), post(orders::place_order), folder).await
}

async fn with(backend: impl Backend, place_order: MethodRouter<App>, folder: TempDir) -> Fixture {
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("shipping.db").display());
    let db = Db::open(&url).await.expect("a database");
    let app = App {
        db: db.clone(),
        tokens: Tokens::parse("t=acme").expect("well-formed").into(),
        delay: Duration::ZERO,
    };
    Fixture {
        app: router(app, Idempotency::new(backend), place_order),
        db,
        _folder: folder,
    }
}

fn order(path: &str) -> Request<String> {
    let request = Request::post(path)
        .header("Authorization", "Bearer t")
        .header("Idempotency-Key", "order-1")
        .header("Content-Type", "application/json");
    let order = r#"{"order_id": "1", "vendor": "Acme", "address": "1 Main St"}"#;
    request.body(order.to_owned()).expect("a request")
}

impl Fixture {
    async fn send(&self) -> Response<Body> {
        let answer = self.app.clone().oneshot(order("/shipping/order")).await;
        answer.unwrap_or_else(|never| match never {})
    }

    async fn rows(&self) -> usize {
        let tokens = Tokens::parse("t=acme").expect("well-formed");
        let tenant = tokens.tenant("t").expect("a tenant");
        self.db.orders(tenant).await.expect("a list").len()
    }
}

#[tokio::test]
async fn an_order_is_replayed() {
    let shipping = on(MemoryBackend::new()).await;
    let answer = assert_replays(&shipping.app, order("/shipping/order")).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(shipping.rows().await, 1);
}

#[tokio::test]
async fn an_order_whose_record_is_in_its_file_is_replayed() {
    let shipping = on_one_file().await;
    let answer = assert_replays(&shipping.app, order("/shipping/order")).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(shipping.rows().await, 1);
}

#[tokio::test]
async fn the_naive_route_is_caught() {
    let shipping = on(MemoryBackend::new()).await;
    let ran = ReplayTest::new(order("/naive/shipping/order")).run(&shipping.app).await;
    let report = ran.expect_err("it ships each time").to_string();
    assert!(report.contains("the handler ran 5 times"), "{report}");
    assert_eq!(shipping.rows().await, 5);
}

#[tokio::test]
async fn nothing_is_shipped_while_the_backend_is_away() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    let shipping = on(backend.clone()).await;
    backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
    let refused = shipping.send().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shipping.rows().await, 0);

    backend.recover();
    assert_eq!(shipping.send().await.status(), StatusCode::CREATED);
    assert_eq!(shipping.rows().await, 1);
}

#[tokio::test]
async fn an_order_whose_claim_was_lost_says_that_a_retry_ships_again() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    let shipping = on(backend.clone()).await;
    backend.on_next(BackendCall::Complete, Fault::LostClaim);
    let answer = shipping.send().await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["idempotency-stored"], "false");
}
