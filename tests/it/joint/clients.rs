//! The statement as clients and servers of other kinds take it.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http_body_util::{BodyExt as _, Full};
use idem_axum::sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use idem_axum::sqlx::{self, AssertSqlSafe};
use idem_axum::{Joint, PostgresBackend, idempotent};
use idem_tests::{Answer, PgBouncer, PostgresServer, Service, in_time};
use reqwest::Method;

/// What the one handler of a test does besides its record.
#[derive(Clone)]
struct Way {
    pool: PgPool,
    /// Executed at the beginning of the transaction.
    begin: &'static str,
    /// Whether the statement is prepared.
    is_prepared: bool,
}

fn failed(error: &sqlx::Error) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
}

async fn work(way: Way, joint: Joint, entry: String) -> Result<Response, Response> {
    let mut own = way.pool.begin().await.map_err(|error| failed(&error))?;
    sqlx::raw_sql(way.begin)
        .execute(&mut *own)
        .await
        .map_err(|error| failed(&error))?;
    if entry == "long" {
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    let record = joint.record((StatusCode::CREATED, entry.clone())).await;
    let record = record.map_err(IntoResponse::into_response)?;
    let sql = AssertSqlSafe(record.sql());
    let done = if entry == "over the pool" {
        sqlx::raw_sql(sql).execute(&way.pool).await
    } else if entry == "in one message" {
        let both = format!("INSERT INTO written VALUES (1); {}", record.sql());
        sqlx::raw_sql(AssertSqlSafe(both)).execute(&way.pool).await
    } else if way.is_prepared {
        sqlx::query(sql).persistent(false).execute(&mut *own).await
    } else {
        sqlx::raw_sql(sql).execute(&mut *own).await
    };
    let changed = done.map_err(|error| failed(&error))?.rows_affected();
    let answer = record.written(changed).map_err(IntoResponse::into_response)?;
    own.commit().await.map_err(|error| failed(&error))?;
    Ok(answer)
}

#[idempotent(ttl = "24h", scope = global)]
async fn charge(Extension(way): Extension<Way>, joint: Joint, entry: String) -> Result<Response, Response> {
    work(way, joint, entry).await
}

/// Its claim expires while it runs, unless it is renewed.
#[idempotent(ttl = "500ms", scope = global, lease = "500ms")]
async fn short(Extension(way): Extension<Way>, joint: Joint, entry: String) -> Result<Response, Response> {
    work(way, joint, entry).await
}

/// A service with records in a schema of its own, whose handlers connect with `options`.
struct Scene {
    service: Service,
    server: Arc<PostgresServer>,
}

impl Scene {
    async fn start(options: &[(&str, &str)], begin: &'static str, is_prepared: bool) -> Self {
        let server = PostgresServer::shared().await;
        let connect: PgConnectOptions = server.url().parse().expect("a URL");
        let connect = connect.options(options.iter().copied());
        let (backend, _) = server.backend().await;
        Self::on(server, backend, connect, (begin, is_prepared)).await
    }

    async fn on(
        server: Arc<PostgresServer>,
        backend: PostgresBackend,
        connect: PgConnectOptions,
        (begin, is_prepared): (&'static str, bool),
    ) -> Self {
        let pool = PgPoolOptions::new().connect_with(connect);
        let way = Way {
            pool: pool.await.expect("the server answers"),
            begin,
            is_prepared,
        };
        let routes = Router::new()
            .route("/", post(charge))
            .route("/short", post(short))
            .route("/trailers", post(trailers))
            .layer(Extension(way));
        let service = Service::start(backend, routes, None).await;
        Self { service, server }
    }

    async fn send(&self, path: &str, key: &str, body: &str) -> Answer {
        let call = self.service.client.call(Method::POST, path).key(key);
        call.body(body.to_owned()).send().await
    }
}

#[tokio::test]
async fn a_statement_is_the_same_however_a_session_reads_strings_and_however_it_is_sent() {
    in_time(async {
        for setting in [
            &[][..],
            &[("standard_conforming_strings", "off"), ("backslash_quote", "off")],
            &[("standard_conforming_strings", "off"), ("bytea_output", "escape")],
            &[("client_encoding", "LATIN1")],
            &[("search_path", "nowhere")],
        ] {
            for is_prepared in [false, true] {
                let scene = Scene::start(setting, "", is_prepared).await;
                let first = scene.send("/", "k\\'", "it's \\ \u{e9} \0 $1 ?").await;
                assert_eq!(first.status, StatusCode::CREATED, "{setting:?}: {first:?}");
                let replay = scene.send("/", "k\\'", "it's \\ \u{e9} \0 $1 ?").await;
                replay.assert_replays(&first);
            }
        }
    })
    .await;
}

/// A transaction is on one connection of the server, and the next question may be on another one.
#[tokio::test]
async fn through_a_pooler_a_statement_and_its_commit_are_found() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (_, schema) = server.backend().await;
        let pooler = PgBouncer::before(&server).await;
        for is_prepared in [false, true] {
            let connect: PgConnectOptions = pooler.url().parse().expect("a URL");
            let backend = PostgresBackend::lazy(&pooler.url())
                .expect("a URL")
                .with_schema(&schema);
            let scene = Scene::on(server.clone(), backend, connect, ("", is_prepared)).await;
            let key = if is_prepared { "prepared" } else { "as text" };
            let first = scene.send("/", key, "entry").await;
            assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
            scene.send("/", key, "entry").await.assert_replays(&first);
        }
    })
    .await;
}

/// Rows and record would be committed apart, and nobody would see it until a process dies in between.
#[tokio::test]
async fn a_statement_outside_of_a_transaction_is_refused_by_the_server() {
    in_time(async {
        let scene = Scene::start(&[], "", false).await;
        scene
            .server
            .execute("CREATE TABLE IF NOT EXISTS written (id int)")
            .await;
        for body in ["over the pool", "in one message"] {
            let refused = scene.send("/", body, body).await;
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
            assert!(refused.text().contains("in the transaction of the rows"), "{refused:?}");
        }
        assert_eq!(scene.server.query::<i64>("SELECT count(*) FROM written").await, 0);
    })
    .await;
}

/// The snapshot of its transaction is older than each renewal of its lease.
#[tokio::test]
async fn above_read_committed_a_long_handler_can_commit() {
    in_time(async {
        for begin in [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1",
        ] {
            let scene = Scene::start(&[], begin, true).await;
            let first = scene.send("/short", "k", "long").await;
            assert_eq!(first.status, StatusCode::CREATED, "{begin}: {first:?}");
        }
    })
    .await;
}

/// An answer that ends with trailers is not stored, and reaches the client as it is.
#[idempotent(ttl = "24h", scope = global)]
async fn trailers(Extension(way): Extension<Way>, joint: Joint) -> Result<Response, Response> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    let data = Full::from("data").with_trailers(ready(Some(Ok(trailers))));
    let mut own = way.pool.begin().await.map_err(|error| failed(&error))?;
    let record = joint.record((StatusCode::CREATED, Body::new(data))).await;
    let record = record.map_err(IntoResponse::into_response)?;
    let done = sqlx::raw_sql(AssertSqlSafe(record.sql())).execute(&mut *own).await;
    let answer = record
        .written(done.map_err(|error| failed(&error))?.rows_affected())
        .map_err(IntoResponse::into_response)?;
    own.commit().await.map_err(|error| failed(&error))?;
    Ok(answer)
}

#[tokio::test]
async fn an_answer_with_trailers_is_committed_without_its_body_and_keeps_them() {
    in_time(async {
        let scene = Scene::start(&[], "", false).await;
        let client = scene.service.client.with_http2();
        let send = || client.call(Method::POST, "/trailers").key("k").send();
        let first = send().await;
        assert_eq!((first.status, first.text()), (StatusCode::CREATED, "data"));
        assert!(first.says_not_stored(), "{first:?}");
        assert_eq!(send().await.problem(), "response-not-stored");
    })
    .await;
}
