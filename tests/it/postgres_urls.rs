//! A Postgres backend by URL, which an application with any client of the database can have: also over TLS.

use std::error::Error;
use std::iter::successors;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use idem_axum::{BackendError, BackendErrorKind, PostgresBackend, Transaction, idempotent, sqlx};
use idem_tests::{Certificates, Order, PostgresServer, Proxy, Service, in_time};
use reqwest::Method;
use tokio::net::TcpListener;

const PASSWORD: &str = "sesame";

/// What an error says in every form, sources included.
fn said(error: &BackendError) -> String {
    let sources = successors(error.source(), |&error| error.source());
    let sources = sources.map(|error| format!(" {error} {error:?}"));
    format!("{error} {error:?} {error:#?}") + &sources.collect::<String>()
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_without_a_word_of_its_password() {
    for url in [
        "",
        PASSWORD,
        "idem.db",
        "mysql://app:sesame@localhost/shop",
        "postgres:app:sesame@localhost/shop",
        "app:sesame@localhost/shop",
        "postgres://app:sesame@localhost:port/shop",
        "postgres://app:se/sesame@localhost/shop",
        "postgres://app:sesame@localhost:543299/shop",
        "postgres://app:%FFsesame@localhost/shop",
        "postgres://app:sesame@localhost/shop?sslmode=sesame",
        "postgres://localhost/shop?port=sesame",
    ] {
        for made in [PostgresBackend::lazy(url), PostgresBackend::connect(url).await] {
            let error = made.expect_err(url);
            assert_eq!(error.kind(), BackendErrorKind::Config, "{url}: {error}");
            assert!(!said(&error).contains(PASSWORD), "{}", said(&error));
        }
    }
    let backend = PostgresBackend::lazy("postgres://app:sesame@localhost/shop").expect("a URL");
    assert!(!format!("{backend:?}").contains(PASSWORD), "{backend:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_does_not_answer_is_an_error_within_seconds() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let [no_answer, nobody] = [&silent, &gone].map(|listener| listener.local_addr().expect("it is bound"));
        drop(gone);
        for url in [
            format!("postgres://app:{PASSWORD}@{no_answer}/shop"),
            format!("postgres://app:{PASSWORD}@{nobody}/shop"),
            // It is there, and has neither the role nor the database.
            format!("postgres://app:{PASSWORD}@{}/shop", server.address()),
        ] {
            let asked = Instant::now();
            let error = PostgresBackend::connect(&url).await.expect_err("nobody answers");
            assert!(asked.elapsed() < Duration::from_secs(5), "{error}");
            assert!(error.is_transient(), "{error}");
            assert!(!said(&error).contains(PASSWORD), "{}", said(&error));
        }
        let missing = format!("{}/not-there", server.url().trim_end_matches("/postgres"));
        let error = PostgresBackend::connect(&missing).await.expect_err("it is not there");
        assert_eq!(error.kind(), BackendErrorKind::Config, "{error}");
    })
    .await;
}

#[idempotent(ttl = "24h", scope = global)]
async fn pay(mut transaction: Transaction, entry: String) -> Result<StatusCode, StatusCode> {
    let connection = transaction.begin().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let row = sqlx::query("INSERT INTO paid VALUES ($1)").bind(entry);
    row.execute(connection).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(StatusCode::CREATED)
}

fn routes() -> Router<idem_tests::App> {
    Router::new().route("/pay", post(pay))
}

/// Orders and payments are carried out and replayed, and payments are committed.
async fn assert_works(server: &PostgresServer, backend: PostgresBackend) {
    backend.migrate().await.expect("a table");
    server.execute("CREATE TABLE paid (entry text NOT NULL)").await;
    let service = Service::start(backend, routes(), None).await;
    service.idempotency.check().await.expect("it is ready");
    let order = || service.client.order("k", &Order::new("o")).send();
    let first = order().await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    order().await.assert_replays(&first);
    let payment = || service.client.call(Method::POST, "/pay").key("k").body("entry").send();
    let first = payment().await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    payment().await.assert_replays(&first);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM paid").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_its_url_alone_a_backend_keeps_records_and_commits_transactions() {
    in_time(async {
        let server = PostgresServer::start().await;
        let backend = PostgresBackend::connect(&server.url()).await;
        assert_works(&server, backend.expect("the server answers")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_before_its_database_does() {
    in_time(async {
        let server = PostgresServer::start().await;
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let nobody = gone.local_addr().expect("it is bound");
        drop(gone);
        let proxy = Proxy::start(nobody).await;
        let url = format!("postgresql://postgres@{}/postgres", proxy.address);
        let backend = PostgresBackend::lazy(&url).expect("a URL");
        let early = Service::start(backend.clone(), routes(), None).await;
        let refused = early.client.order("k", &Order::new("o")).send().await;
        assert_eq!(refused.problem(), "backend-unavailable");
        proxy.lead_to(server.address());
        assert_works(&server, backend).await;
    })
    .await;
}

/// How many connections of others are encrypted, and how many are not.
async fn connections(server: &PostgresServer) -> (i64, i64) {
    let count = |ssl| {
        let others = "pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE backend_type = 'client backend'";
        format!("SELECT count(*) FROM {others} AND ssl = {ssl} AND pid <> pg_backend_pid()")
    };
    (server.query(&count(true)).await, server.query(&count(false)).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_and_transactions_go_over_tls_where_the_url_says_so() {
    in_time(async {
        let certificates = Certificates::new();
        let root = certificates.root.display();
        for mode in [
            "require".to_owned(),
            format!("verify-ca&sslrootcert={root}"),
            format!("verify-full&sslrootcert={root}"),
        ] {
            let server = PostgresServer::start_with_tls(&certificates).await;
            let url = server.url().replace("127.0.0.1", "localhost") + "?sslmode=" + &mode;
            let backend = PostgresBackend::connect(&url).await.expect("the server answers");
            assert_works(&server, backend.clone()).await;
            let (encrypted, plain) = connections(&server).await;
            assert!(encrypted >= 2, "{mode}: one for records and one for a transaction");
            assert_eq!(plain, 0, "{mode}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cannot_prove_what_it_is_called_or_speaks_no_tls_is_not_trusted() {
    in_time(async {
        let certificates = Certificates::new();
        let secured = PostgresServer::start_with_tls(&certificates).await;
        let plain = PostgresServer::shared().await;
        let by_name = secured.url().replace("127.0.0.1", "localhost");
        let other = Certificates::new();
        for url in [
            // The roots of the system do not know its authority.
            format!("{by_name}?sslmode=verify-full"),
            format!("{by_name}?sslmode=verify-full&sslrootcert={}", other.root.display()),
            // The certificate has another name.
            format!(
                "{}?sslmode=verify-full&sslrootcert={}",
                secured.url(),
                certificates.root.display()
            ),
            format!("{}?sslmode=require", plain.url()),
        ] {
            let error = PostgresBackend::connect(&url).await.expect_err("it is not trusted");
            let said = said(&error);
            assert!(said.contains("certificate") || said.contains("TLS"), "{url}: {said}");
        }
        assert_eq!(connections(&secured).await, (0, 0));
    })
    .await;
}
