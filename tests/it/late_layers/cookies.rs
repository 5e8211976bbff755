//! tower-cookies: the layer writes `Set-Cookie` lines into the response that comes out of the handler.

use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::idempotent;
use idem_tests::{Answer, Call, Service};
use reqwest::Method;
use tower_cookies::{Cookie, CookieManagerLayer, Cookies};

use super::{Gate, hang_up};

#[idempotent(ttl = "1h", scope = global)]
async fn by_the_layer(cookies: Cookies, Extension(gate): Extension<Gate>, theme: String) -> StatusCode {
    cookies.add(Cookie::new("theme", theme));
    gate.pass().await;
    StatusCode::NO_CONTENT
}

#[idempotent(ttl = "1h", scope = global)]
async fn by_the_handler(Extension(gate): Extension<Gate>, theme: String) -> impl IntoResponse {
    gate.pass().await;
    (StatusCode::NO_CONTENT, [(SET_COOKIE, format!("theme={theme}"))])
}

async fn service(gate: &Gate) -> Service {
    let routes = Router::new()
        .route("/by-the-layer", post(by_the_layer))
        .route("/by-the-handler", post(by_the_handler));
    super::service(gate, routes, |router| router.layer(CookieManagerLayer::new())).await
}

fn call(service: &Service, path: &str, key: &str) -> Call {
    service.client.call(Method::POST, path).key(key).body("dark")
}

fn cookie(answer: &Answer) -> Option<&str> {
    let cookie = answer.headers.get(SET_COOKIE)?;
    Some(cookie.to_str().expect("it is text"))
}

#[tokio::test]
async fn a_cookie_that_the_layer_sets_is_missing_from_the_replay_and_after_a_disconnect() {
    let gate = Gate::default();
    let service = service(&gate).await;
    let first = call(&service, "/by-the-layer", "k").send().await;
    assert_eq!(cookie(&first), Some("theme=dark"));
    let replay = call(&service, "/by-the-layer", "k").send().await;
    assert!(replay.is_replay());
    assert_eq!(cookie(&replay), None);

    hang_up(&service, &gate, call(&service, "/by-the-layer", "left")).await;
    let retry = call(&service, "/by-the-layer", "left").send().await;
    assert!(retry.is_replay());
    assert_eq!(cookie(&retry), None);
}

#[tokio::test]
async fn a_cookie_in_the_handlers_own_answer_is_in_the_replay_and_there_after_a_disconnect() {
    let gate = Gate::default();
    let service = service(&gate).await;
    let first = call(&service, "/by-the-handler", "k").send().await;
    assert_eq!(cookie(&first), Some("theme=dark"));
    let replay = call(&service, "/by-the-handler", "k").send().await;
    replay.assert_replays(&first);

    hang_up(&service, &gate, call(&service, "/by-the-handler", "left")).await;
    let retry = call(&service, "/by-the-handler", "left").send().await;
    assert!(retry.is_replay());
    assert_eq!(cookie(&retry), Some("theme=dark"));
}
