//! Cookies, sessions and units of work inside of the layer: right on the first answer, on a replay and after a disconnect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use idem_axum::{Idempotency, IdempotencyProblem};
use idem_tests::{PostgresServer, Service};
use reqwest::Method;
use tower_cookies::{Cookie, CookieManagerLayer, Cookies};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

use super::{idempotency, layer, serve};
use crate::late_layers::commits::{Shared, TABLES, commit_on_response, write};
use crate::late_layers::{Gate, hang_up};

async fn choose_theme(cookies: Cookies, Extension(gate): Extension<Gate>, theme: String) -> StatusCode {
    cookies.add(Cookie::new("theme", theme));
    gate.pass().await;
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn a_cookie_that_an_inner_layer_sets_is_replayed_and_survives_a_disconnect() {
    let (idempotency, gate) = (idempotency(), Gate::default());
    let routes = Router::new()
        .route("/theme", post(choose_theme))
        .layer(Extension(gate.clone()))
        .layer(CookieManagerLayer::new())
        .layer(layer(&idempotency));
    let service = serve(&idempotency, routes).await;
    let call = |key| service.client.call(Method::POST, "/theme").key(key).body("dark");
    let first = call("k").send().await;
    assert_eq!(first.headers[SET_COOKIE], "theme=dark");
    call("k").send().await.assert_replays(&first);

    hang_up(&service, &gate, call("left")).await;
    let retry = call("left").send().await;
    assert!(retry.is_replay());
    assert_eq!(retry.headers[SET_COOKIE], "theme=dark");
}

async fn choose_name(session: Session, Extension(gate): Extension<Gate>, name: String) -> StatusCode {
    session.insert("name", name).await.expect("a text can be written");
    gate.pass().await;
    StatusCode::NO_CONTENT
}

async fn name(session: Session) -> String {
    let name = session.get("name").await.expect("the store answers");
    name.unwrap_or_default()
}

/// The name in the session whose cookie an answer has set.
async fn name_in(service: &Service, answer: &idem_tests::Answer) -> String {
    let cookie = answer.headers[SET_COOKIE].to_str().expect("it is text");
    let (cookie, _attributes) = cookie.split_once(';').expect("it has attributes");
    let call = service.client.call(Method::GET, "/name");
    let answer = call.header("cookie", cookie.as_bytes()).send().await;
    String::from_utf8(answer.body.to_vec()).expect("it is text")
}

#[tokio::test]
async fn a_session_of_an_inner_layer_is_saved_and_its_cookie_replayed_although_the_client_left() {
    let (idempotency, gate) = (idempotency(), Gate::default());
    let sessions = SessionManagerLayer::new(MemoryStore::default()).with_secure(false);
    let routes = Router::new()
        .route("/name", get(name).post(choose_name))
        .layer(Extension(gate.clone()))
        .layer(sessions)
        .layer(layer(&idempotency));
    let service = serve(&idempotency, routes).await;
    let call = |key| service.client.call(Method::POST, "/name").key(key).body("ada");
    let first = call("k").send().await;
    assert_eq!(name_in(&service, &first).await, "ada");
    call("k").send().await.assert_replays(&first);

    hang_up(&service, &gate, call("left")).await;
    let retry = call("left").send().await;
    assert!(retry.is_replay());
    assert_eq!(name_in(&service, &retry).await, "ada");
}

async fn charge(Extension(gate): Extension<Gate>, Extension(shared): Extension<Shared>, account: String) -> StatusCode {
    {
        let mut shared = shared.lock().await;
        let transaction = shared.as_mut().expect("the layer has begun it");
        write(transaction, account).await.expect("it is checked at the commit");
    }
    gate.pass().await;
    StatusCode::CREATED
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_of_work_inside_is_committed_once_or_refused_and_is_never_a_replayed_success_without_its_rows() {
    let gate = Gate::default();
    let server = PostgresServer::start().await;
    server.execute(TABLES).await;
    let (backend, _schema) = server.backend().await;
    let idempotency = Idempotency::new(backend);
    let commits = from_fn_with_state(server.pool().await, commit_on_response);
    let routes = Router::new()
        .route("/charge", post(charge))
        .layer(Extension(gate.clone()))
        .layer(commits)
        .layer(layer(&idempotency));
    let service = serve(&idempotency, routes).await;
    let call = |account: &'static str| service.client.call(Method::POST, "/charge").key(account).body(account);
    let rows = || server.query::<i64>("SELECT count(*) FROM ledger");

    for _ in 0..2 {
        let refused = call("unknown").send().await;
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!refused.is_replay());
    }
    assert_eq!(rows().await, 0);
    hang_up(&service, &gate, call("good")).await;
    assert_eq!(rows().await, 1);
    let retry = call("good").send().await;
    assert_eq!(retry.status, StatusCode::CREATED);
    assert!(retry.is_replay());
    assert_eq!(rows().await, 1);
}

/// Answers in place of the handler while it is told to.
async fn refuse_while_told(State(refuses): State<Arc<AtomicBool>>, request: Request, next: Next) -> Response {
    if refuses.load(Ordering::SeqCst) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    next.run(request).await
}

#[tokio::test]
async fn a_refusal_of_an_inner_layer_is_not_kept() {
    let (idempotency, refuses, runs) = (
        idempotency(),
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicU32::new(0)),
    );
    let counted = runs.clone();
    let handler = move || async move { counted.fetch_add(1, Ordering::SeqCst).to_string() };
    let routes = Router::new()
        .route("/x", post(handler))
        .layer(from_fn_with_state(refuses.clone(), refuse_while_told))
        .layer(layer(&idempotency));
    let service = serve(&idempotency, routes).await;
    let call = || service.client.call(Method::POST, "/x").key("k");
    assert_eq!(call().send().await.status, StatusCode::UNAUTHORIZED);
    refuses.store(false, Ordering::SeqCst);
    let first = call().send().await;
    assert_eq!(first.body, "0");
    // The layer answers before the inner one is asked: what may be withdrawn belongs outside of it.
    refuses.store(true, Ordering::SeqCst);
    call().send().await.assert_replays(&first);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refusal_of_an_outer_layer_claims_nothing_and_hides_the_replay() {
    let (idempotency, is_closed) = (idempotency(), Arc::new(AtomicBool::new(true)));
    let routes = Router::new()
        .route("/x", post(async || "done"))
        .layer(layer(&idempotency))
        .layer(from_fn_with_state(is_closed.clone(), refuse_while_told));
    let service = serve(&idempotency, routes).await;
    let call = || service.client.call(Method::POST, "/x").key("k");
    assert_eq!(call().send().await.status, StatusCode::UNAUTHORIZED);
    is_closed.store(false, Ordering::SeqCst);
    assert!(!call().send().await.is_replay());
    is_closed.store(true, Ordering::SeqCst);
    let hidden = call().send().await;
    assert_eq!((hidden.status, hidden.is_replay()), (StatusCode::UNAUTHORIZED, false));
}

/// Sees what the layer answers in place of the handler.
#[tokio::test]
async fn the_problems_of_the_layer_are_in_the_extensions_of_its_answers() {
    async fn see(request: Request, next: Next) -> Response {
        let response = next.run(request).await;
        let problem = response.extensions().get::<IdempotencyProblem>().copied();
        let code = problem.map_or("none", IdempotencyProblem::code);
        ([("x-problem", code)], response).into_response()
    }
    let idempotency = idempotency();
    let routes = Router::new()
        .route("/x", post(async || "done"))
        .layer(layer(&idempotency))
        .layer(axum::middleware::from_fn(see));
    let service = serve(&idempotency, routes).await;
    let refused = service.client.call(Method::POST, "/x").send().await;
    assert_eq!(refused.problem(), "key-missing");
    assert_eq!(refused.headers["x-problem"], "key-missing");
}
