//! Where a record cannot be written, and where none is.

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::sqlx::{self, AssertSqlSafe};
use idem_axum::{
    BackendErrorKind, Joint, JointErrorKind, MemoryBackend, PostgresBackend, RedisBackend, Transaction, idempotent,
};
use idem_tests::{RedisServer, Service, SqliteFile, in_time};
use reqwest::Method;

use super::handler::Steps;
use super::{Database, Scene, on_both_databases};

on_both_databases! {
    without_a_key_the_handler_commits_and_rolls_back_by_the_same_rules
    in_an_outage_the_handler_runs_without_a_record
    in_a_handler_without_the_attribute_nothing_would_be_recorded
}

async fn without_a_key_the_handler_commits_and_rolls_back_by_the_same_rules(scene: Scene) {
    let send = async |told| {
        let answer = scene.call("/charges/optional", &[("answer", told)]).send().await;
        (answer.status.as_u16(), scene.counts().await)
    };
    assert_eq!(send("201").await, (201, (1, 0)));
    assert_eq!(send("404").await, (404, (2, 0)));
    assert_eq!(send("kept 500").await, (500, (3, 0)));
    for (told, status) in [("500", 500), ("429", 429), ("release", 201), ("unknown", 201)] {
        assert_eq!(send(told).await, (status, (3, 0)), "{told}");
    }
    let keyed = scene.call("/charges/optional", &[]).key("k").send().await;
    assert_eq!(keyed.status, StatusCode::CREATED);
    assert_eq!(scene.counts().await, (4, 1));
}

async fn in_an_outage_the_handler_runs_without_a_record(scene: Scene) {
    let scene = match scene.database {
        Database::Postgres(server, schema) => {
            let away = PostgresBackend::new(server.pool().await).with_schema("not_there");
            Scene::with(Database::Postgres(server, schema), away).await
        }
        Database::Sqlite(file) => {
            let away = file.backend().await.with_table("not_there");
            Scene::with(Database::Sqlite(file), away).await
        }
    };
    let send = |told| scene.call("/charges/outage", &[("answer", told)]).key("k").send();
    let answer = send("201").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert!(answer.says_not_stored(), "{answer:?}");
    assert_eq!(send("500").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(scene.counts().await, (1, 0));
}

async fn in_a_handler_without_the_attribute_nothing_would_be_recorded(scene: Scene) {
    let refused = scene.call("/charges/unguarded", &[]).key("k").send().await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refused.problem(), "not-configured");
    assert_eq!(scene.counts().await, (0, 0));
    assert_eq!(scene.steps.errors(), [JointErrorKind::NotConfigured]);
}

/// The handler would write to the one file, and its record is elsewhere.
async fn assert_refused_before_the_claim(scene: &Scene) {
    scene
        .service
        .idempotency
        .check()
        .await
        .expect("nothing has asked for it yet");
    for _ in 0..2 {
        let refused = scene.send(&[]).await;
        assert_eq!(refused.problem(), "not-configured", "{refused:?}");
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(scene.counts().await, (0, 0));
    let error = scene
        .service
        .idempotency
        .check()
        .await
        .expect_err("a handler wants what is not there");
    assert_eq!(error.kind(), BackendErrorKind::Config);
    assert!(error.to_string().contains("Joint"), "{error}");
}

async fn a_file() -> Database {
    let database = Database::Sqlite(SqliteFile::create().await);
    database.create().await;
    database
}

#[tokio::test]
async fn on_memory_it_is_refused_before_the_claim_and_the_check_fails() {
    in_time(async {
        let scene = Scene::with(a_file().await, MemoryBackend::new()).await;
        assert_refused_before_the_claim(&scene).await;
    })
    .await;
}

#[tokio::test]
async fn on_redis_it_is_refused_before_the_claim_and_the_check_fails() {
    in_time(async {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        let scene = Scene::with(a_file().await, backend).await;
        assert_refused_before_the_claim(&scene).await;
    })
    .await;
}

#[idempotent(ttl = "24h", scope = global)]
async fn both(Extension(steps): Extension<Steps>, mut transaction: Transaction, joint: Joint) -> StatusCode {
    // The record would be written by the one, and looked for by the other.
    let connection = transaction.begin().await.expect("the server answers");
    let insert = format!("INSERT INTO {} (entry) VALUES ('entry')", steps.ledger);
    let row = sqlx::raw_sql(AssertSqlSafe(insert));
    row.execute(connection).await.expect("a row");
    drop(joint);
    StatusCode::CREATED
}

/// Each of them would end the one claim in a transaction of its own.
#[tokio::test]
async fn a_handler_that_takes_a_transaction_and_a_joint_is_refused_before_the_claim() {
    in_time(async {
        let scene = Scene::postgres().await;
        let Database::Postgres(server, schema) = &scene.database else {
            return;
        };
        let backend = PostgresBackend::new(server.pool().await).with_schema(schema);
        let routes = Router::new()
            .route("/both", post(both))
            .layer(Extension(scene.steps.clone()));
        let service = Service::start(backend, routes, None).await;
        let refused = service.client.call(Method::POST, "/both").key("k").send().await;
        assert_eq!(refused.problem(), "not-configured", "{refused:?}");
        assert_eq!(scene.counts().await, (0, 0));
        assert!(service.idempotency.check().await.is_err());
    })
    .await;
}
