//! A layer that sets a `task_local!` value for what is inside of it.

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::idempotent;
use idem_tests::{Call, Service};
use reqwest::Method;

use super::{Gate, hang_up};

tokio::task_local! {
    static USER: &'static str;
}

#[derive(Clone)]
struct User(&'static str);

async fn with_user(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(User("ada"));
    USER.scope("ada", next.run(request)).await
}

/// Says which of both values it finds once it has passed the gate.
#[idempotent(ttl = "1h", scope = global)]
async fn who(Extension(gate): Extension<Gate>, Extension(user): Extension<User>) -> String {
    gate.pass().await;
    let local = USER.try_with(|user| *user).unwrap_or("nobody");
    format!("task local: {local}, extension: {}", user.0)
}

fn call(service: &Service, key: &str) -> Call {
    service.client.call(Method::POST, "/who").key(key)
}

/// IDEM-5.
#[tokio::test]
async fn a_task_local_is_gone_once_the_client_has_left_and_an_extension_is_not() {
    let gate = Gate::default();
    let routes = Router::new().route("/who", post(who));
    let service = super::service(&gate, routes, |router| router.layer(from_fn(with_user))).await;
    let first = call(&service, "k").send().await;
    assert_eq!(first.body, "task local: ada, extension: ada");

    hang_up(&service, &gate, call(&service, "left")).await;
    let retry = call(&service, "left").send().await;
    assert!(retry.is_replay());
    assert_eq!(retry.body, "task local: nobody, extension: ada");
}
