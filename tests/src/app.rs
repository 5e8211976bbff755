//! The service under test: orders whose handlers tests can hold, count and make fail.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use idem_axum::{Execution, Idempotency, idempotent};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What tests see and steer, shared by all handlers of one process.
#[derive(Clone, Debug)]
pub struct App {
    executions: Arc<Mutex<HashMap<String, u32>>>,
    started: Arc<watch::Sender<u32>>,
    departed: Arc<watch::Sender<u32>>,
    returned: Arc<AtomicU32>,
    gate: Arc<watch::Sender<bool>>,
}

/// The body of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Names the order; executions are counted by it.
    pub order: String,
    /// Whether the handler waits until the gate is open.
    #[serde(default)]
    pub held: bool,
    /// The status of the answer, 201 where it is left out.
    #[serde(default)]
    pub status: Option<u16>,
}

impl Order {
    /// An order that is executed at once.
    pub fn new(order: &str) -> Self {
        Self {
            order: order.to_owned(),
            held: false,
            status: None,
        }
    }

    /// The same, waiting for the gate.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.held = true;
        self
    }

    /// The same, answered with `status`.
    #[must_use]
    pub fn answered_with(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
}

impl App {
    fn new() -> Self {
        Self {
            executions: Arc::default(),
            started: Arc::new(watch::Sender::new(0)),
            departed: Arc::new(watch::Sender::new(0)),
            returned: Arc::default(),
            gate: Arc::new(watch::Sender::new(false)),
        }
    }

    /// How often `order` was executed.
    pub fn executions(&self, order: &str) -> u32 {
        let executions = self.executions.lock().unwrap_or_else(PoisonError::into_inner);
        executions.get(order).copied().unwrap_or_default()
    }

    /// Lets all held handlers, now and later, go on.
    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// How many permits handlers have held and given back.
    pub fn returned_permits(&self) -> u32 {
        self.returned.load(Ordering::SeqCst)
    }

    /// Waits until `count` handlers have started.
    pub async fn wait_until_started(&self, count: u32) {
        let mut started = self.started.subscribe();
        started
            .wait_for(|started| *started >= count)
            .await
            .expect("the sender lives");
    }

    /// Waits until axum has dropped `count` requests because their clients have left.
    pub async fn wait_until_departed(&self, count: u32) {
        let mut departed = self.departed.subscribe();
        departed
            .wait_for(|departed| *departed >= count)
            .await
            .expect("the sender lives");
    }

    /// What every order does.
    pub async fn execute(&self, tenant: &Tenant, order: &Order) -> (StatusCode, Json<Value>) {
        let execution = {
            let mut executions = self.executions.lock().unwrap_or_else(PoisonError::into_inner);
            let count = executions.entry(order.order.clone()).or_default();
            *count += 1;
            *count
        };
        self.started.send_modify(|started| *started += 1);
        if order.held {
            let mut gate = self.gate.subscribe();
            gate.wait_for(|open| *open).await.expect("the sender lives");
        }
        let status = order.status.and_then(|status| StatusCode::from_u16(status).ok());
        let body = json!({ "order": order.order, "tenant": tenant.0, "execution": execution });
        (status.unwrap_or(StatusCode::CREATED), Json(body))
    }
}

/// Whoever the bearer token names; any token does.
#[derive(Clone, Debug)]
pub struct Tenant(String);

impl Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        token
            .map(|token| Self(token.to_owned()))
            .ok_or(StatusCode::UNAUTHORIZED)
    }
}

/// What a handler may hold for as long as it runs, given back when it is dropped.
struct Permit(App);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.returned.fetch_add(1, Ordering::SeqCst);
    }
}

impl FromRequestParts<App> for Permit {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, StatusCode> {
        Ok(Self(app.clone()))
    }
}

#[idempotent(ttl = "24h", scope = "tenant")]
async fn holding(
    State(app): State<App>,
    _: Permit,
    tenant: Tenant,
    Json(order): Json<Order>,
) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "24h", scope = "tenant")]
async fn place_order(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, lease = "1s")]
async fn short_lease(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, required = false, header = "X-Request-Key", name = "optional")]
async fn optional_key(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, key = order.order)]
async fn natural_key(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "1s", scope = global)]
async fn short_ttl(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, in_flight = "wait", wait = "50s", lease = "2s")]
async fn waiting(
    State(app): State<App>,
    tenant: Tenant,
    execution: Execution,
    Json(order): Json<Order>,
) -> (StatusCode, Json<Value>) {
    let (status, Json(mut body)) = app.execute(&tenant, &order).await;
    body["attempt"] = execution.attempt().into();
    body["downstream"] = execution.downstream_key("charge").into();
    (status, Json(body))
}

#[idempotent(ttl = "24h", scope = tenant, in_flight = "wait", wait = "50s", lease = "5m")]
async fn waiting_long(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, in_flight = "accept")]
async fn accepting(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, in_flight = "wait", wait = "50s", lease = "2s", after_crash = "refuse")]
async fn refusing(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, on_outage = "run")]
async fn run_in_outage(
    State(app): State<App>,
    tenant: Tenant,
    execution: Execution,
    Json(order): Json<Order>,
) -> (StatusCode, Json<Value>) {
    let (status, Json(mut body)) = app.execute(&tenant, &order).await;
    body["protected"] = execution.record_key().is_some().into();
    (status, Json(body))
}

async fn naive(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

async fn executions(State(app): State<App>, Path(order): Path<String>) -> String {
    app.executions(&order).to_string()
}

async fn open_gate(State(app): State<App>) {
    app.open_gate();
}

/// Counts the requests whose future is dropped before it has an answer.
async fn watch_departures(State(app): State<App>, request: Request, next: Next) -> Response {
    struct Departure(Option<App>);
    impl Drop for Departure {
        fn drop(&mut self) {
            if let Some(app) = &self.0 {
                app.departed.send_modify(|departed| *departed += 1);
            }
        }
    }
    let mut departure = Departure(Some(app));
    let response = next.run(request).await;
    departure.0 = None;
    response
}

/// The service, with `more` routes that a test adds.
pub fn router(idempotency: &Idempotency, more: Router<App>) -> (Router, App) {
    let app = App::new();
    let router = Router::new()
        .route("/orders", post(place_order))
        .route("/orders/short-lease", post(short_lease))
        .route("/orders/optional", post(optional_key))
        .route("/orders/natural", post(natural_key))
        .route("/orders/short-ttl", post(short_ttl))
        .route("/orders/waiting", post(waiting))
        .route("/orders/waiting-long", post(waiting_long))
        .route("/orders/accepting", post(accepting))
        .route("/orders/refusing", post(refusing))
        .route("/orders/run-in-outage", post(run_in_outage))
        .route("/orders/holding", post(holding))
        .route("/orders/naive", post(naive))
        .merge(more)
        .layer(idempotency.clone())
        .layer(middleware::from_fn_with_state(app.clone(), watch_departures))
        .route("/executions/{order}", get(executions))
        .route("/gate", post(open_gate))
        .with_state(app.clone());
    (router, app)
}
