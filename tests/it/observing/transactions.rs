//! A `Transaction` is committed by the handler's own answer, and never with a record.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::sqlx::{self, AssertSqlSafe};
use idem_axum::{Idempotency, MemoryBackend, Transaction, idempotent};
use idem_tests::{App, Order, PostgresServer, Service, Tenant, in_time};
use reqwest::Method;

use super::stage::assert_own;
use super::{assert_observed, recorder};

#[idempotent(ttl = "1h", scope = global)]
async fn charge(
    State(app): State<App>,
    tenant: Tenant,
    Extension(schema): Extension<String>,
    mut transaction: Transaction,
    Json(order): Json<Order>,
) -> (StatusCode, String) {
    let Ok(connection) = transaction.begin().await else {
        return (StatusCode::BAD_GATEWAY, "no transaction".to_owned());
    };
    let sql = format!("INSERT INTO {schema}.ledger (entry) VALUES ($1)");
    let insert = sqlx::query(AssertSqlSafe(sql)).bind(&order.order);
    let inserted = insert.execute(connection).await;
    if order.held {
        let _answer = app.execute(&tenant, &order).await;
    }
    let status = order.status.and_then(|status| StatusCode::from_u16(status).ok());
    (status.unwrap_or(StatusCode::CREATED), format!("{}", inserted.is_ok()))
}

/// A service that observes, and the server and the schema of its ledger.
async fn observed() -> (Arc<PostgresServer>, String, Service) {
    let server = PostgresServer::shared().await;
    let (backend, schema) = server.backend().await;
    let create = format!("CREATE TABLE {schema}.ledger (entry text)");
    server.execute(&create).await;
    let routes = Router::new().route("/charges", post(charge));
    let routes = routes.layer(Extension(schema.clone()));
    let idempotency = Idempotency::new(backend).observing();
    let service = Service::wrapped(idempotency, routes, |router| router).await;
    (server, schema, service)
}

async fn send(service: &Service, key: Option<&str>, order: &Order) -> idem_tests::Answer {
    let call = service.client.call(Method::POST, "/charges").json(order);
    match key {
        Some(key) => call.key(key).send().await,
        None => call.send().await,
    }
}

#[tokio::test]
async fn duplicates_and_requests_without_a_key_commit_what_they_do() {
    in_time(async {
        let recorder = recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (server, schema, service) = observed().await;
        let order = Order::new("o");
        for key in [Some("k"), Some("k"), None] {
            assert_own(&send(&service, key, &order).await, StatusCode::CREATED, "true");
        }
        let other = Order::new("other").answered_with(404);
        for key in [Some("k"), Some("l"), Some("l")] {
            assert_own(&send(&service, key, &other).await, StatusCode::NOT_FOUND, "true");
        }
        let count = async |table: &str, entry: &str| -> i64 {
            server
                .query(&format!("SELECT count(*) FROM {schema}.{table} WHERE {entry}"))
                .await
        };
        assert_eq!(count("ledger", "entry = 'o'").await, 3);
        assert_eq!(count("ledger", "entry = 'other'").await, 0, "a refusal is rolled back");
        assert_eq!(count("idem_records", "state = 2").await, 2);
        let counts = [("executed", 2), ("key_missing", 1), ("mismatch", 1), ("replayed", 2)];
        assert_observed(
            &recorder,
            &counts.map(|(outcome, count)| ("POST /charges", outcome, count)),
        );
    })
    .await;
}

#[tokio::test]
async fn a_first_request_commits_though_its_record_is_gone() {
    in_time(async {
        let (server, schema, service) = observed().await;
        let call = service.client.call(Method::POST, "/charges").key("k");
        let answering = tokio::spawn(call.json(&Order::new("o").held()).send());
        service.app.wait_until_started(1).await;
        server.execute(&format!("DELETE FROM {schema}.idem_records")).await;
        service.app.open_gate();
        assert_own(&answering.await.expect("no panic"), StatusCode::CREATED, "true");
        let entries: i64 = server.query(&format!("SELECT count(*) FROM {schema}.ledger")).await;
        assert_eq!(entries, 1);
    })
    .await;
}

/// Without a `PostgresBackend`, there is no transaction to begin; the handler says so itself.
#[tokio::test]
async fn on_another_backend_the_handler_gets_the_error() {
    let recorder = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let routes = Router::new().route("/charges", post(charge));
    let routes = routes.layer(Extension(String::new()));
    let idempotency = Idempotency::new(MemoryBackend::new()).observing();
    let service = Service::wrapped(idempotency, routes, |router| router).await;
    let answer = send(&service, Some("k"), &Order::new("o")).await;
    assert_own(&answer, StatusCode::BAD_GATEWAY, "no transaction");
    assert_observed(&recorder, &[("POST /charges", "not_configured", 1)]);
}
