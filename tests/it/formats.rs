//! Records as they are stored: those of the version before the layout was final, and what `docs/formats.md` says of the tables.
//!
//! The records below were written by that version's own binary: an order that was completed, and one whose process was killed. The
//! row of an order whose answer was not stored is made by hand; `formats/before.sql` says how.

use axum::Router;
use axum::http::StatusCode;
use idem_axum::sqlx::{self, AssertSqlSafe};
use idem_axum::{BackendErrorKind, PostgresBackend, RedisBackend};
use idem_core::{Backend as _, IdempotencyKey, RecordKey, Scope};
use idem_tests::{Order, PostgresServer, RedisServer, Service, in_time};
use reqwest::Method;

const PAGE: &str = include_str!("../../docs/formats.md");
const ROWS_BEFORE: &str = include_str!("formats/before.sql");

/// Keys and values in Redis, as hexadecimal digits.
const VALUES_BEFORE: [(&str, &str); 2] = [
    (
        "claimed",
        "010162b07841cbb3f8c17268b1f1d1245ca10000000101b9021f6a525a64727014cb32d8828d85dca38769c8694e1f050026cb38ab365d\
         0000000005265c000000000000007530",
    ),
    (
        "completed",
        "0102d57c9ff1b97a5b87b5351a2c078a6f8f00000001010a8b1400efe0b92d74a394b27a92064491afd6a4e477583586d2d08c56c7674e\
         010100c900010c636f6e74656e742d74797065000000106170706c69636174696f6e2f6a736f6e7b22657865637574696f6e223a312c22\
         6f72646572223a22636f6d706c65746564222c2274656e616e74223a2261636d65227d",
    ),
];

fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<_> = digits.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("two digits");
    digits.chunks(2).map(byte).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_the_version_before_are_refused_on_redis_and_stay_as_they_are() {
    in_time(async {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        let mut connection = server.connection().await;
        for (key, value) in VALUES_BEFORE {
            let mut set = redis::cmd("SET");
            set.arg(format!("idem:{{POST%20/orders:acme:{key}}}"))
                .arg(bytes(value))
                .arg("PX")
                .arg(86_400_000);
            set.exec_async(&mut connection).await.expect("it is set");
        }
        let service = Service::start(backend.clone(), Router::new(), None).await;
        for (key, value) in VALUES_BEFORE {
            let answer = service.client.order(key, &Order::new(key)).send().await;
            assert_eq!(answer.problem(), "backend-unavailable", "{key}");
            assert_eq!(service.app.executions(key), 0, "{key} was taken for absent");
            let record = RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of(key)).expect("a key");
            let read = backend.read(&record).await.map_err(|error| error.kind());
            assert_eq!(read, Err(BackendErrorKind::Unreadable));
            let name = format!("idem:{{POST%20/orders:acme:{key}}}");
            let held: Vec<u8> = redis::cmd("GET")
                .arg(name)
                .query_async(&mut connection)
                .await
                .expect("it is there");
            assert_eq!(held, bytes(value), "{key}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_the_version_before_are_read_on_postgres_once_it_is_migrated() {
    in_time(async {
        let server = PostgresServer::start().await;
        server.execute(ROWS_BEFORE).await;
        let backend = PostgresBackend::new(server.pool().await);
        assert!(backend.check().await.is_err(), "it is not migrated yet");
        backend.migrate().await.expect("it can be migrated");
        let service = Service::start(backend, Router::new(), None).await;
        let ask = async |path: &str, key: &str, body: &'static str| {
            let call = service.client.call(Method::POST, path).key(key).body(body);
            call.header("content-type", b"application/json").send().await
        };
        let completed = ask("/orders", "completed", r#"{"order": "completed"}"#).await;
        assert!(completed.is_replay(), "{completed:?}");
        assert_eq!(completed.status, StatusCode::CREATED);
        assert_eq!(
            completed.text(),
            r#"{"execution":1,"order":"completed","tenant":"acme"}"#
        );
        let changed = ask("/orders", "completed", r#"{"order": "another"}"#).await;
        assert_eq!(changed.problem(), "key-reused");
        for (body, problem) in [
            (r#"{"order": "not-stored"}"#, "response-not-stored"),
            (r#"{"order": "another"}"#, "key-reused"),
        ] {
            assert_eq!(ask("/orders", "not-stored", body).await.problem(), problem);
        }
        assert_eq!(service.app.executions("not-stored"), 0, "it was taken for absent");
        // Its lease has lapsed long ago.
        service.app.open_gate();
        let claimed = ask(
            "/orders/short-lease",
            "claimed",
            r#"{"order": "claimed", "held": true}"#,
        )
        .await;
        assert_eq!(claimed.status, StatusCode::CREATED, "{claimed:?}");
        assert!(!claimed.is_replay());
        let attempt: i64 = server
            .query("SELECT attempt FROM idem_records WHERE key LIKE '%claimed'")
            .await;
        assert_eq!(attempt, 2, "it was not taken for absent");
    })
    .await;
}

/// The rows of the page's table whose heading is `heading`, as name and type.
fn documented(heading: &str) -> Vec<(String, String)> {
    let table = PAGE.split_once(heading).expect("the page has it").1;
    let rows = table.lines().skip_while(|line| !line.starts_with("| `"));
    let rows = rows.take_while(|line| line.starts_with("| `"));
    let cell = |line: &str, at: usize| line.split('|').nth(at).unwrap_or_default().trim().replace('`', "");
    rows.map(|line| {
        let kind = cell(line, 2);
        (cell(line, 1), kind.split(',').next().unwrap_or_default().to_owned())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_names_every_column_of_the_tables() {
    let server = PostgresServer::shared().await;
    let (_backend, schema) = server.backend().await;
    for (table, heading) in [
        ("idem_records", "## A record in Postgres"),
        ("idem_records_leases", "has a row in `idem_records_leases`"),
    ] {
        let columns: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT attname::text, CASE format_type(atttypid, NULL) WHEN 'timestamp with time zone' THEN 'timestamptz' \
             ELSE format_type(atttypid, NULL) END FROM pg_attribute \
             WHERE attrelid = '{schema}.{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )))
        .fetch_all(&mut server.connection().await)
        .await
        .expect("the columns");
        assert_eq!(documented(heading), columns);
    }
}
