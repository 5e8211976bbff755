//! The two forms in which a handler is guarded, with the same options.
//!
//! Owns the layer that stands for each annotated handler of the stage.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequestParts as _, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::MethodRouter;
use idem_axum::{AfterCrash, Compared, Idempotency, IdempotencyLayer, InFlight, OnOutage, Policy, StoredAnswers};
use idem_tests::App;

use super::stage::Caller;

/// How the handlers of a service are guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// By `#[idempotent]` on each handler.
    Attribute,
    /// By an `IdempotencyLayer` around each route, with the same options.
    Layer,
}

/// The handler without an attribute.
pub(super) async fn bare(caller: Caller, body: Bytes) -> Response {
    drop(body);
    caller.scene.answer().await
}

/// Finds out who calls, outside of a layer.
async fn authenticate(request: Request, next: Next) -> Result<Response, StatusCode> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &()).await?;
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// The layer with the options of the annotated handler of that name.
pub(super) fn layered(route: MethodRouter<App>, idempotency: &Idempotency, name: &str) -> MethodRouter<App> {
    let minute = Duration::from_mins(1);
    let half_a_second = Duration::from_millis(500);
    // As the attribute's default is; the layer's is another one.
    let policy = Policy::new().with_store(StoredAnswers::Final);
    let waiting = policy.with_in_flight(InFlight::Wait).with_wait(Duration::from_secs(30));
    let refusing = waiting
        .with_after_crash(AfterCrash::Refuse)
        .with_lease(Duration::from_secs(3));
    let (ttl, policy) = match name {
        "other_header" => (minute, policy.with_header("x-request-key")),
        "optional" => (minute, policy.with_required(false)),
        "accepting" => (minute, policy.with_in_flight(InFlight::Accept)),
        "waiting" => (minute, waiting),
        "impatient" => (minute, waiting.with_wait(Duration::from_millis(100))),
        "refusing" => (minute, refusing),
        "refusing_all" => (
            minute,
            policy
                .with_after_crash(AfterCrash::Refuse)
                .with_store(StoredAnswers::All),
        ),
        "successes" => (minute, policy.with_store(StoredAnswers::Success)),
        "everything" => (minute, policy.with_store(StoredAnswers::All)),
        "sixteen" => (minute, policy.with_max_response(16)),
        "uncompared" => (minute, policy.with_fingerprint(Compared::Nothing)),
        "brief" => (half_a_second, policy),
        "brief_unknown" => (half_a_second, refusing),
        "unprotected" => (minute, policy.with_on_outage(OnOutage::Run)),
        _ => (minute, policy),
    };
    let layer = IdempotencyLayer::new(idempotency.clone(), ttl)
        .with_policy(policy)
        .when(|_| true);
    let layer = match name {
        "uncompared" => layer.with_name("uncompared"),
        "shared" => layer.with_name("shared"),
        _ => layer,
    };
    let layer = match name {
        "global" => layer.scope_global(),
        "by_a" => layer.scope_extension(|caller: &Caller| caller.a.clone()),
        _ => layer.scope_extension(|caller: &Caller| caller.token.clone()),
    };
    route.layer(layer).layer(from_fn(authenticate))
}
