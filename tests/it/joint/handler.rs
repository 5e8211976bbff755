//! The handler: what it does with its transaction is told by headers, so that a retry of the same request can do something else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use futures_util::stream;
use idem_axum::sqlx::postgres::PgPool;
use idem_axum::sqlx::sqlite::SqlitePool;
use idem_axum::sqlx::{self, AssertSqlSafe, Postgres, Sqlite, Transaction};
use idem_axum::{Joint, JointError, JointErrorKind, Verdict, idempotent};
use idem_tests::App;
use tokio::sync::Notify;

/// The shortest time for which a record can be kept.
const SHORT: Duration = Duration::from_millis(100);

/// The pool of an application, as its repositories have it.
#[derive(Clone)]
pub(super) enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// A transaction of the handler's own.
enum Own {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(Transaction<'static, Sqlite>),
}

impl Pool {
    async fn begin(&self) -> sqlx::Result<Own> {
        Ok(match self {
            Self::Postgres(pool) => Own::Postgres(pool.begin().await?),
            Self::Sqlite(pool) => Own::Sqlite(pool.begin().await?),
        })
    }
}

impl Own {
    async fn execute(&mut self, sql: &str) -> sqlx::Result<u64> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        Ok(match self {
            Self::Postgres(own) => sql.execute(&mut **own).await?.rows_affected(),
            Self::Sqlite(own) => sql.execute(&mut **own).await?.rows_affected(),
        })
    }

    async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Postgres(own) => own.commit().await,
            Self::Sqlite(own) => own.commit().await,
        }
    }
}

/// What the handler needs besides its request.
#[derive(Clone)]
pub(super) struct Steps {
    pub(super) pool: Pool,
    /// The name of the table of charges.
    pub(super) ledger: String,
    /// Told at the step that the request names.
    pub(super) reached: Arc<Notify>,
    /// Waited for after that, where the request says so.
    pub(super) go_on: Arc<Notify>,
    /// The errors that its `Joint` has returned.
    pub(super) errors: Arc<Mutex<Vec<JointErrorKind>>>,
}

impl Steps {
    /// Waits to be let go on, if the request says so of this step.
    async fn hold(&self, headers: &HeaderMap, step: &str) {
        if told(headers, "hold") == step {
            self.reached.notify_one();
            self.go_on.notified().await;
        }
    }

    /// The right answer to an error.
    fn refuse(&self, error: JointError) -> Response {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(error.kind());
        error.into_response()
    }

    /// The errors so far.
    pub(super) fn errors(&self) -> Vec<JointErrorKind> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a header tells the handler to do.
fn told(headers: &HeaderMap, name: &str) -> String {
    let told = headers.get(name).and_then(|value| value.to_str().ok());
    told.unwrap_or_default().to_owned()
}

/// The answer that the header `answer` asks for.
fn answer(told: &str, entry: &str) -> Response {
    let body = entry.to_owned();
    let chunks = |len: usize| {
        let chunk = |number: usize| Ok::<_, std::io::Error>(vec![b'0' + u8::try_from(number % 10).unwrap_or(0); 10]);
        // Each of them comes later.
        stream::unfold(0, move |number| async move {
            tokio::task::yield_now().await;
            (number < len / 10).then(|| (chunk(number), number + 1))
        })
    };
    if let Some(len) = told.strip_prefix("length ") {
        return vec![b'x'; len.parse().expect("a length")].into_response();
    }
    if let Some(len) = told.strip_prefix("streamed ") {
        return Body::from_stream(chunks(len.parse().expect("a length"))).into_response();
    }
    if let Ok(status) = told.parse() {
        return (StatusCode::from_u16(status).expect("a status"), body).into_response();
    }
    match told {
        "headers" => (
            StatusCode::CREATED,
            [("x-receipt", "a"), ("location", "/charges/1")],
            body,
        )
            .into_response(),
        "binary" => vec![0, 0xFF, b'\'', b'\\', b'"', b'$', b'1', b'?', b'\n'].into_response(),
        "kept for 100 ms" => (StatusCode::CREATED, Verdict::KeepFor(SHORT), body).into_response(),
        "kept 500" => (StatusCode::INTERNAL_SERVER_ERROR, Verdict::Keep, body).into_response(),
        "unknown" => (StatusCode::CREATED, Verdict::Unknown, body).into_response(),
        "release" => (StatusCode::CREATED, Verdict::Release, body).into_response(),
        _ => (StatusCode::CREATED, body).into_response(),
    }
}

fn failed(_: sqlx::Error) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the handler's own").into_response()
}

/// Writes a row and the record, and then does what it is told.
async fn work(steps: &Steps, joint: &Joint, headers: &HeaderMap, entry: &str) -> Result<Response, Response> {
    let then = told(headers, "then");
    steps.hold(headers, "before").await;
    let mut own = steps.pool.begin().await.map_err(failed)?;
    let insert = format!("INSERT INTO {} (entry) VALUES ('{entry}')", steps.ledger);
    own.execute(&insert).await.map_err(failed)?;
    if told(headers, "hold") == "a while" {
        tokio::time::sleep(15 * SHORT).await;
    }
    let record = joint.record(answer(&told(headers, "answer"), entry)).await;
    let record = record.map_err(|error| steps.refuse(error))?;
    let mut changed = 0;
    let executions = match then.as_str() {
        "execute nothing and swallow the error" => 0,
        "execute twice" => 2,
        _ => 1,
    };
    for _ in 0..executions {
        changed = own.execute(record.sql()).await.map_err(failed)?;
    }
    let written = if then == "pass on no number and swallow the error" {
        record.written(-1_i64)
    } else {
        record.written(changed)
    };
    let written = written.map_err(|error| steps.refuse(error));
    if then.contains("swallow the error") {
        own.commit().await.map_err(failed)?;
        return Ok("rebuilt".into_response());
    }
    steps.hold(headers, "written").await;
    end(steps, headers, own, written?).await
}

/// Ends the transaction of an answer that was written.
async fn end(steps: &Steps, headers: &HeaderMap, mut own: Own, mut written: Response) -> Result<Response, Response> {
    let then = told(headers, "then");
    match then.as_str() {
        "forget" => return Ok(written),
        "forget and rebuild" => return Ok((StatusCode::CREATED, "rebuilt").into_response()),
        "forget and stream" => {
            *written.body_mut() = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
            return Ok(written);
        }
        "roll back and refuse" => return Err((StatusCode::NOT_FOUND, "refused").into_response()),
        "answer before the commit" => {
            let steps = steps.clone();
            tokio::spawn(async move {
                steps.go_on.notified().await;
                own.commit().await.expect("it can be committed");
            });
            return Ok(written);
        }
        "break the commit" => {
            let broken = format!("UPDATE {} SET account = 7", steps.ledger);
            own.execute(&broken).await.map_err(failed)?;
        }
        "fail and swallow that" => drop(own.execute("SELECT nothing").await),
        _ => {}
    }
    own.commit().await.map_err(failed)?;
    steps.hold(headers, "committed").await;
    match then.as_str() {
        "rebuild" => return Ok((StatusCode::CREATED, "entry").into_response()),
        "refuse" => return Ok((StatusCode::NOT_FOUND, "refused").into_response()),
        "fail afterwards" => return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        "panic" => panic!("on purpose"),
        "change" => drop(written.headers_mut().insert("x-changed", HeaderValue::from_static("1"))),
        "pause" => tokio::time::sleep(3 * SHORT).await,
        _ => {}
    }
    Ok(written)
}

#[idempotent(ttl = "24h", scope = global, max_response = "1KiB")]
async fn charge(
    Extension(steps): Extension<Steps>,
    headers: HeaderMap,
    joint: Joint,
    entry: String,
) -> Result<Response, Response> {
    work(&steps, &joint, &headers, &entry).await
}

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", wait = "30s")]
async fn waiting(
    Extension(steps): Extension<Steps>,
    headers: HeaderMap,
    joint: Joint,
    entry: String,
) -> Result<Response, Response> {
    work(&steps, &joint, &headers, &entry).await
}

/// Its claim expires while it runs, unless it is renewed.
#[idempotent(ttl = "500ms", scope = global, lease = "500ms")]
async fn short(
    Extension(steps): Extension<Steps>,
    headers: HeaderMap,
    joint: Joint,
    entry: String,
) -> Result<Response, Response> {
    work(&steps, &joint, &headers, &entry).await
}

#[idempotent(ttl = "24h", scope = global, required = false)]
async fn optional(
    Extension(steps): Extension<Steps>,
    headers: HeaderMap,
    joint: Joint,
    entry: String,
) -> Result<Response, Response> {
    work(&steps, &joint, &headers, &entry).await
}

#[idempotent(ttl = "24h", scope = global, on_outage = "run")]
async fn in_outage(
    Extension(steps): Extension<Steps>,
    headers: HeaderMap,
    joint: Joint,
    entry: String,
) -> Result<Response, Response> {
    work(&steps, &joint, &headers, &entry).await
}

async fn without_the_attribute(
    Extension(steps): Extension<Steps>,
    headers: HeaderMap,
    joint: Joint,
    entry: String,
) -> Result<Response, Response> {
    work(&steps, &joint, &headers, &entry).await
}

/// The routes of the service.
pub(super) fn routes(steps: &Steps) -> Router<App> {
    Router::new()
        .route("/charges", post(charge))
        .route("/charges/waiting", post(waiting))
        .route("/charges/short", post(short))
        .route("/charges/optional", post(optional))
        .route("/charges/outage", post(in_outage))
        .route("/charges/unguarded", post(without_the_attribute))
        .layer(Extension(steps.clone()))
}
