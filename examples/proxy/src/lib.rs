//! A proxy in front of a service that knows nothing of idempotency.
//!
//! Owns who may call, and how a request is forwarded. The layer does the rest: the service behind gets each POST and PATCH at most
//! once, however often a client sends it. If the connection to it breaks half-way, nobody knows whether it acted, and retries get
//! 409 `outcome-unknown`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use idem_axum::{AfterCrash, Idempotency, IdempotencyLayer, Policy};
use reqwest::redirect::Policy as Redirects;

/// For how long answers are replayed.
const TTL: Duration = Duration::from_hours(24);

/// For how long the service behind may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Headers of a connection, which are not forwarded, beside those that `Connection` lists.
const OF_THE_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Which token belongs to which tenant.
pub type Tenants = Arc<HashMap<String, String>>;

/// Who calls, as [`authenticate`] has found out.
#[derive(Clone, Debug)]
struct Tenant(String);

/// The service behind.
#[derive(Clone, Debug)]
struct Upstream {
    base: Arc<str>,
    client: reqwest::Client,
}

/// The proxy in front of `base`, such as `http://orders.internal:8080`.
///
/// # Errors
///
/// When the client for it cannot be made.
pub fn router(base: &str, tenants: Tenants, idempotency: Idempotency) -> reqwest::Result<Router> {
    // An answer that was lost may stand for an order that was placed, so nothing is sent a second time.
    let policy = Policy::new().with_after_crash(AfterCrash::Refuse);
    let layer = IdempotencyLayer::new(idempotency, TTL)
        .with_policy(policy)
        .scope_extension(|tenant: &Tenant| tenant.0.clone());
    // A redirect is the client's to follow.
    let client = reqwest::Client::builder().redirect(Redirects::none()).timeout(PATIENCE);
    let upstream = Upstream {
        base: base.trim_end_matches('/').into(),
        client: client.build()?,
    };
    let router = Router::new()
        .fallback(forward)
        .with_state(upstream)
        .layer(layer)
        // Outermost: a caller that it refuses gets no replay either.
        .layer(from_fn_with_state(tenants, authenticate));
    Ok(router)
}

async fn authenticate(
    State(tenants): State<Tenants>,
    mut request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer "));
    let tenant = token
        .and_then(|token| tenants.get(token))
        .ok_or(StatusCode::UNAUTHORIZED)?;
    request.extensions_mut().insert(Tenant(tenant.clone()));
    Ok(next.run(request).await)
}

/// Sends a request on, and its answer back.
///
/// An upstream that cannot be connected to is a 503, which says that nothing was done: a retry asks it again. Any other failure
/// is a 502, which leaves open whether something was done.
async fn forward(State(upstream): State<Upstream>, request: Request) -> Result<Response, StatusCode> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let url = format!("{}{target}", upstream.base);
    let request = upstream
        .client
        .request(head.method, url)
        .headers(without_connection(head.headers))
        .body(reqwest::Body::wrap_stream(body.into_data_stream()));
    let answer = request.send().await.map_err(|error| {
        tracing::error!(%error, "the upstream does not answer");
        if error.is_connect() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::BAD_GATEWAY
        }
    })?;
    let (status, headers) = (answer.status(), without_connection(answer.headers().clone()));
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn without_connection(mut headers: HeaderMap) -> HeaderMap {
    let listed = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|names| names.to_str().ok());
    let listed = listed
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok());
    let listed: Vec<HeaderName> = listed.collect();
    for name in OF_THE_CONNECTION.into_iter().chain(listed) {
        headers.remove(name);
    }
    headers
}
