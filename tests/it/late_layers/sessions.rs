//! tower-sessions: the layer saves the session, and sets its cookie, once it has the response.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::routing::{get, post};
use axum::{Extension, Router};
use idem_axum::idempotent;
use idem_tests::{Answer, Call, Service};
use reqwest::Method;
use tower_http::timeout::TimeoutLayer;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result as StoreResult};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer, SessionStore};

use super::{Gate, hang_up};

#[idempotent(ttl = "1h", scope = global)]
async fn left_to_the_layer(
    session: Session,
    Extension(gate): Extension<Gate>,
    name: String,
) -> Result<StatusCode, StatusCode> {
    session
        .insert("name", name)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    gate.pass().await;
    Ok(StatusCode::NO_CONTENT)
}

#[idempotent(ttl = "1h", scope = global)]
async fn saved_in_the_handler(
    session: Session,
    Extension(gate): Extension<Gate>,
    name: String,
) -> Result<StatusCode, StatusCode> {
    session
        .insert("name", name)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    gate.pass().await;
    session.save().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins a session.
async fn visit(session: Session) {
    session.insert("visits", 1).await.expect("a number can be written");
}

async fn name(session: Session) -> String {
    let name = session.get("name").await.expect("the store answers");
    name.unwrap_or_default()
}

/// A store that can be told to refuse.
#[derive(Clone, Debug, Default)]
struct Store {
    sessions: MemoryStore,
    refuses: Arc<AtomicBool>,
}

type Done<'f, T> = Pin<Box<dyn Future<Output = StoreResult<T>> + Send + 'f>>;

impl SessionStore for Store {
    fn save<'a, 'b, 'f>(&'a self, record: &'b Record) -> Done<'f, ()>
    where
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        Box::pin(async {
            if self.refuses.load(Ordering::SeqCst) {
                return Err(Error::Backend("away".to_owned()));
            }
            self.sessions.save(record).await
        })
    }

    fn load<'a, 'b, 'f>(&'a self, id: &'b Id) -> Done<'f, Option<Record>>
    where
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        self.sessions.load(id)
    }

    fn delete<'a, 'b, 'f>(&'a self, id: &'b Id) -> Done<'f, ()>
    where
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        self.sessions.delete(id)
    }
}

/// A service, and the cookie of a session that has begun.
async fn service(gate: &Gate, store: &Store, wrap: impl FnOnce(Router) -> Router) -> (Service, String) {
    let routes = Router::new()
        .route("/left-to-the-layer", post(left_to_the_layer))
        .route("/saved-in-the-handler", post(saved_in_the_handler))
        .route("/visit", post(visit))
        .route("/name", get(name));
    let sessions = SessionManagerLayer::new(store.clone()).with_secure(false);
    let service = super::service(gate, routes, |router| wrap(router.layer(sessions))).await;
    let visit = service.client.call(Method::POST, "/visit").send().await;
    let cookie = visit.headers[SET_COOKIE].to_str().expect("it is text");
    let (cookie, _attributes) = cookie.split_once(';').expect("it has attributes");
    let cookie = cookie.to_owned();
    (service, cookie)
}

fn call(service: &Service, path: &str, key: &str, cookie: &str) -> Call {
    let call = service.client.call(Method::POST, path).key(key).body("ada");
    call.header("cookie", cookie.as_bytes())
}

/// The name in the session of `cookie`.
async fn name_in(service: &Service, cookie: &str) -> String {
    let call = service.client.call(Method::GET, "/name");
    let Answer { body, .. } = call.header("cookie", cookie.as_bytes()).send().await;
    String::from_utf8(body.to_vec()).expect("it is text")
}

#[tokio::test]
async fn the_cookie_of_a_session_that_begins_in_the_handler_is_missing_from_the_replay() {
    let (service, _) = service(&Gate::default(), &Store::default(), |router| router).await;
    for path in ["/left-to-the-layer", "/saved-in-the-handler"] {
        let call = || service.client.call(Method::POST, path).key("k").body("ada");
        let first = call().send().await;
        assert!(first.headers.contains_key(SET_COOKIE), "{path}");
        let replay = call().send().await;
        assert!(replay.is_replay(), "{path}");
        assert!(!replay.headers.contains_key(SET_COOKIE), "{path}");
    }
}

#[tokio::test]
async fn a_session_change_that_the_layer_was_to_save_is_lost_with_the_client() {
    let gate = Gate::default();
    let (service, cookie) = service(&gate, &Store::default(), |router| router).await;
    hang_up(&service, &gate, call(&service, "/left-to-the-layer", "k", &cookie)).await;
    let retry = call(&service, "/left-to-the-layer", "k", &cookie).send().await;
    assert_eq!(retry.status, StatusCode::NO_CONTENT);
    assert!(retry.is_replay());
    assert_eq!(name_in(&service, &cookie).await, "");
}

/// To what is inside of it, a timeout that fires is a client that leaves.
#[tokio::test]
async fn a_session_change_that_the_layer_was_to_save_is_lost_when_a_timeout_outside_fires() {
    let gate = Gate::default();
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(200));
    let (service, cookie) = service(&gate, &Store::default(), |router| router.layer(timeout)).await;
    gate.close();
    let timed_out = call(&service, "/left-to-the-layer", "k", &cookie).send().await;
    assert_eq!(timed_out.status, StatusCode::GATEWAY_TIMEOUT);
    gate.open();
    service.idempotency.drain().await;
    let retry = call(&service, "/left-to-the-layer", "k", &cookie).send().await;
    assert_eq!(retry.status, StatusCode::NO_CONTENT);
    assert!(retry.is_replay());
    assert_eq!(name_in(&service, &cookie).await, "");
}

#[tokio::test]
async fn a_session_that_the_layer_cannot_save_is_a_500_and_then_a_replayed_success() {
    let store = Store::default();
    let (service, cookie) = service(&Gate::default(), &store, |router| router).await;
    store.refuses.store(true, Ordering::SeqCst);
    let first = call(&service, "/left-to-the-layer", "k", &cookie).send().await;
    assert_eq!(first.status, StatusCode::INTERNAL_SERVER_ERROR);
    store.refuses.store(false, Ordering::SeqCst);
    let retry = call(&service, "/left-to-the-layer", "k", &cookie).send().await;
    assert_eq!(retry.status, StatusCode::NO_CONTENT);
    assert!(retry.is_replay());
    assert_eq!(name_in(&service, &cookie).await, "");
}

#[tokio::test]
async fn a_session_that_the_handler_saves_is_there_on_a_replay_and_after_a_disconnect() {
    let gate = Gate::default();
    let (service, cookie) = service(&gate, &Store::default(), |router| router).await;
    hang_up(&service, &gate, call(&service, "/saved-in-the-handler", "k", &cookie)).await;
    assert_eq!(name_in(&service, &cookie).await, "ada");
    let retry = call(&service, "/saved-in-the-handler", "k", &cookie).send().await;
    assert_eq!(retry.status, StatusCode::NO_CONTENT);
    assert!(retry.is_replay());
    assert_eq!(name_in(&service, &cookie).await, "ada");
}

#[tokio::test]
async fn a_session_that_the_handler_cannot_save_is_refused_and_saved_by_the_retry() {
    let store = Store::default();
    let (service, cookie) = service(&Gate::default(), &store, |router| router).await;
    store.refuses.store(true, Ordering::SeqCst);
    let first = call(&service, "/saved-in-the-handler", "k", &cookie).send().await;
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    store.refuses.store(false, Ordering::SeqCst);
    let retry = call(&service, "/saved-in-the-handler", "k", &cookie).send().await;
    assert_eq!(retry.status, StatusCode::NO_CONTENT);
    assert!(!retry.is_replay());
    assert_eq!(name_in(&service, &cookie).await, "ada");
}
