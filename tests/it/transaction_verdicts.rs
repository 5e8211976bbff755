//! What a verdict means for the rows of a handler's transaction: with a key, without one, and in an outage.
//!
//! `transaction_ends` has the ends without a verdict.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use idem_axum::sqlx::{self, AssertSqlSafe};
use idem_axum::{PostgresBackend, Transaction, Verdict, idempotent};
use idem_tests::{Answer, Log, PostgresServer, Service, in_time};
use reqwest::Method;

const HOUR: Duration = Duration::from_hours(1);

fn verdict(name: &str) -> Option<Verdict> {
    match name {
        "keep" => Some(Verdict::Keep),
        "keep-for" => Some(Verdict::KeepFor(HOUR)),
        "release" => Some(Verdict::Release),
        "unknown" => Some(Verdict::Unknown),
        _ => None,
    }
}

/// Writes a row, and then executes what the path says.
async fn work(transaction: &mut Transaction, path: (u16, String, String), entry: String) -> sqlx::Result<Response> {
    let (status, said, then) = path;
    let connection = transaction.begin().await?;
    let row = sqlx::query("INSERT INTO ledger VALUES ($1)").bind(entry);
    row.execute(&mut *connection).await?;
    let body = match then.as_str() {
        "nothing" => axum::body::Body::from("the handler's own"),
        "streams" => axum::body::Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>()),
        // Its error is swallowed.
        sql => {
            let _ = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
            axum::body::Body::from("the handler's own")
        }
    };
    let status = StatusCode::from_u16(status).expect("a status");
    Ok((status, verdict(&said), body).into_response())
}

#[idempotent(ttl = "24h", scope = global, required = false)]
async fn protected(Path(path): Path<(u16, String, String)>, mut transaction: Transaction, entry: String) -> Response {
    let worked = work(&mut transaction, path, entry).await;
    worked.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

#[idempotent(ttl = "24h", scope = global, on_outage = "run")]
async fn in_outage(Path(path): Path<(u16, String, String)>, mut transaction: Transaction, entry: String) -> Response {
    let worked = work(&mut transaction, path, entry).await;
    worked.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

/// A service whose records are kept, and one whose backend is away, on one ledger.
struct Services {
    server: PostgresServer,
    protected: Service,
    unprotected: Service,
}

impl Services {
    async fn start() -> Self {
        let server = PostgresServer::start().await;
        server.execute("CREATE TABLE ledger (entry text NOT NULL)").await;
        let backend = PostgresBackend::new(server.pool().await);
        backend.migrate().await.expect("a table");
        let away = backend.clone().with_table("not_there");
        let path = "/{status}/{verdict}/{then}";
        let protected = Service::start(backend, Router::new().route(path, post(protected)), None).await;
        let unprotected = Service::start(away, Router::new().route(path, post(in_outage)), None).await;
        Self {
            server,
            protected,
            unprotected,
        }
    }

    /// Sends a request, and says how it was answered and how many rows it has left.
    async fn send(&self, service: &Service, path: &str, key: Option<&str>, entry: &str) -> (Answer, i64) {
        let call = service.client.call(Method::POST, path).body(entry.to_owned());
        let call = match key {
            Some(key) => call.key(key),
            None => call,
        };
        let answer = call.send().await;
        let rows = format!("SELECT count(*) FROM ledger WHERE entry = '{entry}'");
        (answer, self.server.query(&rows).await)
    }

    /// The same under a key that is the entry.
    async fn send_keyed(&self, path: &str, entry: &str) -> (Answer, i64) {
        self.send(&self.protected, path, Some(entry), entry).await
    }

    /// For how many seconds more the record of a key is kept; zero where there is none.
    async fn kept_for(&self, key: &str) -> i64 {
        let left = "extract(epoch FROM expires_at - now())";
        let kept = format!("SELECT coalesce((SELECT {left} FROM idem_records WHERE key LIKE '%:{key}'), 0)::bigint");
        self.server.query(&kept).await
    }
}

/// What a retry gets.
#[derive(Clone, Copy, Debug)]
enum Retry {
    Replayed,
    Runs,
    Unknown,
}

const REPLAYED: (i64, Retry) = (1, Retry::Replayed);
const UNDONE: (i64, Retry) = (0, Retry::Replayed);
const RELEASED: (i64, Retry) = (0, Retry::Runs);
const UNKNOWN: (i64, Retry) = (0, Retry::Unknown);

/// Status, verdict, the rows that stay, and what a retry gets.
const TABLE: [(u16, &str, (i64, Retry)); 25] = [
    (201, "none", REPLAYED),
    (201, "keep", REPLAYED),
    (201, "keep-for", REPLAYED),
    (201, "release", RELEASED),
    (201, "unknown", UNKNOWN),
    (303, "none", REPLAYED),
    (303, "keep", REPLAYED),
    (303, "keep-for", REPLAYED),
    (303, "release", RELEASED),
    (303, "unknown", UNKNOWN),
    (404, "none", UNDONE),
    (404, "keep", REPLAYED),
    (404, "keep-for", REPLAYED),
    (404, "release", RELEASED),
    (404, "unknown", UNKNOWN),
    (429, "none", RELEASED),
    (429, "keep", REPLAYED),
    (429, "keep-for", REPLAYED),
    (429, "release", RELEASED),
    (429, "unknown", UNKNOWN),
    (500, "none", RELEASED),
    (500, "keep", REPLAYED),
    (500, "keep-for", REPLAYED),
    (500, "release", RELEASED),
    (500, "unknown", UNKNOWN),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_that_keeps_an_answer_commits_its_work_and_any_other_rolls_it_back() {
    in_time(async {
        let services = Services::start().await;
        for (status, said, (rows, retry)) in TABLE {
            let (path, case) = (format!("/{status}/{said}/nothing"), format!("{status}-{said}"));
            let (first, left) = services.send_keyed(&path, &case).await;
            assert_eq!((first.status.as_u16(), left), (status, rows), "{case}: {first:?}");
            let kept_for = match (retry, said) {
                (Retry::Runs, _) => 0,
                (_, "keep-for") => 60 * 60,
                _ => 24 * 60 * 60,
            };
            let seconds = services.kept_for(&case).await;
            assert!((kept_for - 120..=kept_for).contains(&seconds), "{case} for {seconds} s");

            let (second, after) = services.send_keyed(&path, &case).await;
            assert_eq!(after, rows, "{case}");
            match retry {
                Retry::Replayed => second.assert_replays(&first),
                Retry::Runs => assert!(
                    !second.is_replay() && second.status == first.status,
                    "{case}: {second:?}"
                ),
                Retry::Unknown => assert_eq!(second.problem(), "outcome-unknown", "{case}"),
            }

            let entry = format!("without-{case}");
            let (unkeyed, left) = services.send(&services.protected, &path, None, &entry).await;
            assert_eq!((unkeyed.status.as_u16(), left), (status, rows), "{entry}: {unkeyed:?}");
            let entry = format!("outage-{case}");
            let (outage, left) = services.send(&services.unprotected, &path, Some(&entry), &entry).await;
            assert_eq!((outage.status.as_u16(), left), (status, rows), "{entry}: {outage:?}");
        }
    })
    .await;
}

/// What was to be kept cannot be committed, so it is no answer of this key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_to_be_kept_and_cannot_be_committed_is_refused_and_rolled_back() {
    in_time(async {
        let services = Services::start().await;
        for (status, said) in [(409, "keep"), (500, "keep-for"), (201, "keep")] {
            let (path, case) = (format!("/{status}/{said}/SELECT%20nothing"), format!("{status}-{said}"));
            for _ in 0..2 {
                let (refused, rows) = services.send_keyed(&path, &case).await;
                assert_eq!((refused.status.as_u16(), rows), (500, 0), "{case}: {refused:?}");
                assert_eq!(refused.problem(), "rolled-back", "{case}");
            }
            let (refused, rows) = services.send(&services.protected, &path, None, "unkeyed").await;
            assert_eq!((refused.problem().as_str(), rows), ("rolled-back", 0), "{case}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_refused_whatever_its_verdict_keeps() {
    in_time(async {
        let services = Services::start().await;
        for said in ["none", "keep", "keep-for"] {
            let (refused, rows) = services.send_keyed(&format!("/201/{said}/streams"), said).await;
            assert_eq!((refused.problem().as_str(), rows), ("not-configured", 0), "{said}");
        }
    })
    .await;
}

/// A handler that has committed by itself must not come twice, so its key is not released.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_the_handler_has_committed_itself_is_not_done_twice_whatever_its_verdict() {
    in_time(async {
        let services = Services::start().await;
        for (said, code) in [("release", "response-not-stored"), ("unknown", "outcome-unknown")] {
            let path = format!("/201/{said}/COMMIT");
            let (first, rows) = services.send_keyed(&path, said).await;
            assert_eq!((first.status.as_u16(), rows), (201, 1), "{said}: {first:?}");
            let (retry, rows) = services.send_keyed(&path, said).await;
            assert_eq!((retry.problem().as_str(), rows), (code, 1), "{said}");
        }
    })
    .await;
}

/// On one thread, on which the log is listened to.
#[tokio::test]
async fn the_log_says_why_an_answer_that_is_to_be_kept_was_not() {
    in_time(async {
        let (log, _guard) = Log::listen(tracing::Level::ERROR);
        let services = Services::start().await;
        services.send_keyed("/409/keep/SELECT%20nothing", "k").await;
        let lines = log.lines_with("was to be committed although a statement of its Transaction had failed");
        assert_eq!(lines.len(), 1, "{}", log.text());
    })
    .await;
}
