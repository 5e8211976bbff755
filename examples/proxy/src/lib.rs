//! A proxy in front of a service that knows nothing of idempotency.
//!
//! Owns who may call, and how a request is forwarded. The layer does the rest: the service behind gets each POST and PATCH once,
//! however often a client sends it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use idem_axum::{Idempotency, IdempotencyLayer};

/// For how long answers are replayed.
const TTL: Duration = Duration::from_hours(24);

/// Headers of a connection, which are not forwarded.
const OF_THE_CONNECTION: [HeaderName; 4] = [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];

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
pub fn router(base: &str, tenants: Tenants, idempotency: Idempotency) -> Router {
    let layer = IdempotencyLayer::new(idempotency, TTL).scope_extension(|tenant: &Tenant| tenant.0.clone());
    let upstream = Upstream {
        base: base.trim_end_matches('/').into(),
        client: reqwest::Client::new(),
    };
    Router::new()
        .fallback(forward)
        .with_state(upstream)
        .layer(layer)
        // Outermost: a caller that it refuses gets no replay either.
        .layer(from_fn_with_state(tenants, authenticate))
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
/// An upstream that cannot be reached is a 502, which is not kept: a retry asks it again.
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
        StatusCode::BAD_GATEWAY
    })?;
    let (status, headers) = (answer.status(), without_connection(answer.headers().clone()));
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn without_connection(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(HOST);
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
    headers
}
