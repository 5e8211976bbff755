//! Handlers that keep a journal, and die where a request tells them to.
//!
//! Owns the points at which a process can be killed. A request names one in a header, which is no part of its
//! fingerprint; it is the process itself that sends the signal, so that the point is a point and not luck.

mod transacting;

use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::{Execution, StepError, Steps, idempotent};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::transacting::{transacting_in_postgres, transacting_in_sqlite};
use super::journal::{Event, Journal};
use super::random::Random;
use crate::App;
use crate::process::signal;

/// Where on the way of a request its process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Point {
    /// In an extractor: nothing is claimed yet.
    BeforeClaim,
    /// In the handler, before it has had its effect.
    BeforeEffect,
    /// In the handler, between its effect and its end: nothing is recorded yet.
    AfterEffect,
    /// In a middleware outside the handler, with the answer in hand.
    AfterCompletion,
}

impl Point {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [
        Self::BeforeClaim,
        Self::BeforeEffect,
        Self::AfterEffect,
        Self::AfterCompletion,
    ];

    /// As it is written in a header and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeClaim => "before-claim",
            Self::BeforeEffect => "before-effect",
            Self::AfterEffect => "after-effect",
            Self::AfterCompletion => "after-completion",
        }
    }
}

/// Names a request among those under its key, for the journal.
pub const REQUEST: &str = "x-request-id";
/// Names the [`Point`] at which the process that gets this request dies.
pub const DIE: &str = "x-die";

/// Names the run that an answer is of, by its token.
pub(super) const RUN: &str = "x-run";

/// The lease of the handlers under `/journaled`: more than one and a half times the longest stall that the lab makes, so that no
/// stall is longer than two thirds of it.
pub const LEASE: Duration = Duration::from_secs(6);

/// How a handler answers that could not write its row: its client asks again.
pub(super) const UNDONE: StatusCode = StatusCode::BAD_GATEWAY;

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What is ordered.
    pub order: String,
    /// How long the handler takes, in milliseconds.
    pub takes: u64,
    /// How many bytes its answer has besides, which nothing can compress.
    pub padding: usize,
}

/// What a request says about itself. Extracting it is where a process dies before the claim.
#[derive(Debug)]
struct Asked {
    key: String,
    request: String,
    die: Option<Point>,
    journal: Journal,
}

impl Asked {
    fn of(headers: &HeaderMap, journal: Journal) -> Self {
        let text = |name| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let die = text(DIE);
        Self {
            key: text("idempotency-key"),
            request: text(REQUEST),
            die: Point::ALL.into_iter().find(|point| point.name() == die),
            journal,
        }
    }

    /// Ends this process, if it was told to end it here.
    fn pass(&self, at: Point, recorded: bool) {
        if self.die == Some(at) {
            end_process(&self.journal, &self.key, at, recorded);
        }
    }
}

/// Kills this process by SIGKILL, once the journal says so.
pub(super) fn end_process(journal: &Journal, key: &str, at: Point, recorded: bool) -> ! {
    let key = key.to_owned();
    journal.write(Event::Dies { key, at, recorded });
    signal(std::process::id(), "-KILL");
    loop {
        // Until the signal is there.
        std::thread::park();
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, StatusCode> {
        let journal = Extension::<Journal>::from_request_parts(parts, state).await;
        let Extension(journal) = journal.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let asked = Self::of(&parts.headers, journal);
        asked.pass(Point::BeforeClaim, false);
        Ok(asked)
    }
}

/// The fencing token of a run, which names it in the journal and in answers.
fn token(execution: &Execution) -> String {
    execution.token().map(|token| token.to_string()).unwrap_or_default()
}

/// What handlers answer, with the token of the run in a header.
type Carried = (StatusCode, [(&'static str, String); 1], Json<Value>);

/// What most handlers do: nothing that could fail.
async fn execute(asked: Asked, execution: Execution, task: Task) -> Carried {
    carry_out(asked, execution, task, std::future::ready(true)).await
}

/// What every handler does. `effect` is what it is about, and says whether it could be done.
async fn carry_out(asked: Asked, execution: Execution, task: Task, effect: impl Future<Output = bool>) -> Carried {
    let token = token(&execution);
    let half = Duration::from_millis(task.takes / 2);
    let journal = &asked.journal;
    journal.write(Event::Began {
        key: asked.key.clone(),
        request: asked.request.clone(),
        order: task.order.clone(),
        attempt: execution.attempt(),
        token: token.clone(),
    });
    tokio::time::sleep(half).await;
    asked.pass(Point::BeforeEffect, false);
    let is_done = effect.await;
    if is_done {
        journal.write(Event::Effect { token: token.clone() });
        tokio::time::sleep(half).await;
        asked.pass(Point::AfterEffect, false);
    }
    journal.write(Event::Ended { token: token.clone() });
    if !is_done {
        return (UNDONE, [(RUN, token)], Json(Value::Null));
    }
    let padding = padding(&token, task.padding);
    let body = json!({ "order": task.order, "attempt": execution.attempt(), "token": token, "padding": padding });
    (StatusCode::CREATED, [(RUN, token)], Json(body))
}

/// So many characters of JSON text that follow from the token. They repeat themselves too far apart for a server to compress.
fn padding(token: &str, length: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const PERIOD: usize = 64 * 1024;
    let seed = token
        .bytes()
        .fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = Random::new(seed);
    let period = (0..PERIOD.min(length)).map(|_| char::from(random.one_of(LETTERS)));
    let mut padding = period.collect::<String>().repeat(length / PERIOD + 1);
    padding.truncate(length);
    padding
}

#[idempotent(ttl = "24h", scope = global, lease = "6s")]
async fn rejecting(asked: Asked, execution: Execution, Json(task): Json<Task>) -> Carried {
    execute(asked, execution, task).await
}

#[idempotent(ttl = "24h", scope = global, lease = "6s", in_flight = "wait", wait = "10s")]
async fn waiting(asked: Asked, execution: Execution, Json(task): Json<Task>) -> Carried {
    execute(asked, execution, task).await
}

#[idempotent(ttl = "24h", scope = global, lease = "6s", in_flight = "wait", wait = "10s", after_crash = "refuse")]
async fn refusing(asked: Asked, execution: Execution, Json(task): Json<Task>) -> Carried {
    execute(asked, execution, task).await
}

#[idempotent(ttl = "24h", scope = global, lease = "1s", in_flight = "wait", wait = "30s")]
async fn brisk(asked: Asked, execution: Execution, Json(task): Json<Task>) -> Carried {
    execute(asked, execution, task).await
}

#[idempotent(ttl = "24h", scope = global, lease = "1s", in_flight = "wait", wait = "30s", after_crash = "refuse")]
async fn brisk_refusing(asked: Asked, execution: Execution, Json(task): Json<Task>) -> Carried {
    execute(asked, execution, task).await
}

/// Runs twice at most.
#[idempotent(ttl = "24h", scope = global, lease = "1s", in_flight = "wait", wait = "30s", max_attempts = 2)]
async fn brisk_twice(asked: Asked, execution: Execution, Json(task): Json<Task>) -> Carried {
    execute(asked, execution, task).await
}

/// Is not run again when its lease has lapsed: the lease is longer than the time in which it may.
#[idempotent(ttl = "24h", scope = global, lease = "1s", in_flight = "wait", wait = "30s", rerun_within = "500ms")]
async fn brisk_briefly(asked: Asked, execution: Execution, Json(task): Json<Task>) -> Carried {
    execute(asked, execution, task).await
}

#[idempotent(ttl = "24h", scope = global, lease = "6s", in_flight = "wait", wait = "10s", max_response = "4MiB")]
async fn large(asked: Asked, execution: Execution, Json(task): Json<Task>) -> Carried {
    execute(asked, execution, task).await
}

/// Its effect is a step, and an operator settles its record meanwhile.
#[idempotent(ttl = "24h", scope = global, lease = "6s", in_flight = "wait", wait = "10s")]
async fn operated(asked: Asked, execution: Execution, steps: Steps, Json(task): Json<Task>) -> Carried {
    let effect = async {
        let step: Result<(), StepError> = steps.run("effect", async |_| Ok(())).await;
        step.is_ok()
    };
    carry_out(asked, execution, task, effect).await
}

/// Asked whether the records can be reached.
#[idempotent(ttl = "1m", scope = global, lease = "1s")]
async fn probe() -> StatusCode {
    StatusCode::CREATED
}

/// Where a process dies with the answer in hand.
async fn die_with_the_answer(Extension(journal): Extension<Journal>, request: Request, next: Next) -> Response {
    let asked = Asked::of(request.headers(), journal);
    let response = next.run(request).await;
    let recorded = response.status() == StatusCode::CREATED && !response.headers().contains_key("idempotency-stored");
    asked.pass(Point::AfterCompletion, recorded);
    response
}

/// The handlers, for [`router`](crate::router), with that of a backend that has transactions.
pub fn routes(journal: Journal, transacting: Router<App>) -> Router<App> {
    transacting
        .route("/journaled/rejecting", post(rejecting))
        .route("/journaled/waiting", post(waiting))
        .route("/journaled/refusing", post(refusing))
        .route("/journaled/large", post(large))
        .route("/journaled/operated", post(operated))
        .route("/journaled/probe", post(probe))
        .route("/journaled/brisk", post(brisk))
        .route("/journaled/brisk-refusing", post(brisk_refusing))
        .route("/journaled/brisk-twice", post(brisk_twice))
        .route("/journaled/brisk-briefly", post(brisk_briefly))
        .layer(middleware::from_fn(die_with_the_answer))
        .layer(Extension(journal))
}
