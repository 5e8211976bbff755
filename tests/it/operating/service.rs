//! A service whose handlers get into trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::{RedisBackend, StepError, Steps, idempotent};
use idem_tests::{App, RedisServer, Service, Tenant};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What the handlers share with a test.
#[derive(Clone, Debug, Default)]
pub(super) struct Shop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether the handlers are mended.
    is_mended: AtomicBool,
    runs: AtomicU32,
    mails: AtomicU32,
    charges: AtomicU32,
    exports: AtomicU32,
    started: Notify,
    /// Ends the handler that hangs.
    release: Notify,
}

impl Shop {
    pub(super) fn mend(&self) {
        self.0.is_mended.store(true, Ordering::Relaxed);
    }

    fn is_mended(&self) -> bool {
        self.0.is_mended.load(Ordering::Relaxed)
    }

    pub(super) fn runs(&self) -> u32 {
        self.0.runs.load(Ordering::Relaxed)
    }

    pub(super) fn charges(&self) -> u32 {
        self.0.charges.load(Ordering::Relaxed)
    }

    pub(super) fn mails(&self) -> u32 {
        self.0.mails.load(Ordering::Relaxed)
    }

    pub(super) async fn until_started(&self) {
        self.0.started.notified().await;
    }

    pub(super) fn release(&self) {
        self.0.release.notify_waiters();
    }

    fn run(&self) -> u32 {
        self.0.runs.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[idempotent(ttl = "24h", scope = tenant, after_crash = "refuse")]
async fn payments(tenant: Tenant, Extension(shop): Extension<Shop>) -> Response {
    let run = shop.run();
    if shop.is_mended() {
        return (StatusCode::CREATED, Json(json!({ "charge": run }))).into_response();
    }
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[idempotent(ttl = "24h", scope = tenant)]
async fn quotes(tenant: Tenant, Extension(shop): Extension<Shop>, body: Json<Value>) -> Response {
    shop.run();
    let total = if shop.is_mended() { 42 } else { 0 };
    (StatusCode::CREATED, Json(json!({ "total": total, "of": body.0 }))).into_response()
}

#[idempotent(ttl = "24h", scope = tenant)]
async fn prices(tenant: Tenant, Extension(shop): Extension<Shop>) -> Response {
    shop.run();
    (
        StatusCode::CREATED,
        Json(json!({ "price": if shop.is_mended() { 2 } else { 1 } })),
    )
        .into_response()
}

/// What the handler with steps answers.
struct Unfinished(Response);

impl From<StepError> for Unfinished {
    fn from(error: StepError) -> Self {
        Self(error.into_response())
    }
}

impl IntoResponse for Unfinished {
    fn into_response(self) -> Response {
        self.0
    }
}

#[idempotent(ttl = "24h", scope = tenant)]
async fn subscriptions(tenant: Tenant, Extension(shop): Extension<Shop>, steps: Steps) -> Result<Response, Unfinished> {
    shop.run();
    let charging = steps.run("charge", async |_| {
        shop.0.charges.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Unfinished>("ch_new".to_owned())
    });
    let charge: String = charging.at_most_once().await?;
    let mailing = steps.run("mail", async |_| {
        shop.0.mails.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Unfinished>(())
    });
    mailing.await?;
    Ok((StatusCode::CREATED, Json(json!({ "charge": charge }))).into_response())
}

#[idempotent(ttl = "24h", scope = tenant, lease = "1s")]
async fn exports(tenant: Tenant, Extension(shop): Extension<Shop>) -> Response {
    let run = shop.0.exports.fetch_add(1, Ordering::Relaxed) + 1;
    if run == 1 {
        let released = shop.0.release.notified();
        shop.0.started.notify_one();
        released.await;
    }
    (StatusCode::CREATED, Json(json!({ "run": run }))).into_response()
}

#[idempotent(ttl = "24h", scope = tenant, max_response = "16B")]
async fn reports(tenant: Tenant, Extension(shop): Extension<Shop>) -> Response {
    shop.run();
    (StatusCode::CREATED, "a report of more than sixteen bytes").into_response()
}

/// The service on a Redis server of its own.
pub(super) async fn start() -> (Service, RedisServer, Shop) {
    let server = RedisServer::start().await;
    let shop = Shop::default();
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    let routes = Router::<App>::new()
        .route("/payments", post(payments))
        .route("/quotes", post(quotes))
        .route("/prices", post(prices))
        .route("/subscriptions", post(subscriptions))
        .route("/exports", post(exports))
        .route("/reports", post(reports))
        .layer(Extension(shop.clone()));
    let service = Service::start(backend, routes, None).await;
    (service, server, shop)
}

/// Longer than any claim of these tests has to last.
pub(super) const DAY: Duration = Duration::from_hours(24);
