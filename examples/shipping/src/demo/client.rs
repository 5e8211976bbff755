//! The clients of the story, over real HTTP.
//!
//! Owns requests and what is read from answers. Whether an answer is the right one is for the story to say.

use std::fmt;
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::DemoError;

/// The longest a step of the story may take beyond what the service is told to take.
const LIMIT: Duration = Duration::from_secs(30);

/// How often a client looks whether a row is there.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One of the two routes that take orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Naive,
    Idempotent,
}

impl Route {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Naive => "/naive/shipping/order",
            Self::Idempotent => "/shipping/order",
        }
    }
}

/// An order on its way.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) route: Route,
    pub(super) token: Option<&'static str>,
    pub(super) key: String,
    pub(super) order_id: String,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) replayed: bool,
    pub(super) body: Vec<u8>,
    /// Who answered.
    pub(super) process: u32,
    pub(super) took: Duration,
}

impl Answer {
    /// The `code` of a problem response.
    pub(super) fn code(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        Some(body.get("code")?.as_str()?.to_owned())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// When the row of an order under idempotency is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowComes {
    /// Before the order is packed, by itself.
    First,
    /// Once it is packed, together with the record of the answer.
    WithRecord,
}

/// A client of one process.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    pub(super) process: u32,
    row_comes: RowComes,
    patience: Duration,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} at {}", self.process, self.url)
    }
}

impl Client {
    pub(super) fn new(url: String, process: u32, row_comes: RowComes, delay: Duration) -> Result<Self, DemoError> {
        let patience = delay + LIMIT;
        // A proxy would take loopback addresses for its own.
        let http = reqwest::Client::builder().no_proxy().timeout(patience).build()?;
        Ok(Self {
            http,
            url,
            process,
            row_comes,
            patience,
        })
    }

    pub(super) async fn post(&self, post: &Post) -> Result<Answer, DemoError> {
        let mut request = self
            .http
            .post(format!("{}{}", self.url, post.route.path()))
            .header("Idempotency-Key", &post.key)
            .json(&json!({ "order_id": post.order_id, "vendor": "Tiny Parts", "address": "1 Long Way" }));
        if let Some(token) = post.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let sent = Instant::now();
        let response = request.send().await?;
        let replayed = response.headers().get("Idempotent-Replayed");
        Ok(Answer {
            status: response.status().as_u16(),
            replayed: replayed.is_some_and(|value| value == "true"),
            body: response.bytes().await?.to_vec(),
            process: self.process,
            took: sent.elapsed(),
        })
    }

    /// The moment by which anything that starts now must have ended.
    pub(super) fn limit(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Sends a request, and returns while it is running: its handler has begun, its answer is still to come.
    pub(super) async fn start(&self, post: &Post) -> Result<JoinHandle<Result<Answer, DemoError>>, DemoError> {
        let limit = self.limit();
        // The run before is counted until its outcome is recorded.
        while self.shows(post).await? {
            Self::look_again(limit).await?;
        }
        let (client, sent) = (self.clone(), post.clone());
        let running = tokio::spawn(async move { client.post(&sent).await });
        while !self.shows(post).await? {
            Self::look_again(limit).await?;
        }
        Ok(running)
    }

    /// Whether it shows that the handler runs: by the row, or where that comes last, by what idem counts.
    async fn shows(&self, post: &Post) -> Result<bool, DemoError> {
        if post.route == Route::Naive || self.row_comes == RowComes::First {
            return Ok(self.rows(post).await? > 0);
        }
        let page = self.http.get(format!("{}/metrics", self.url)).send().await?;
        let page = page.error_for_status()?.text().await?;
        Ok(page.lines().any(|line| line == "idem_handlers_in_flight 1"))
    }

    async fn look_again(limit: Instant) -> Result<(), DemoError> {
        if Instant::now() > limit {
            return Err(DemoError::TooLong("an order to begin"));
        }
        sleep(LOOK_AGAIN).await;
        Ok(())
    }

    /// How many rows the tenant has for the order.
    pub(super) async fn rows(&self, post: &Post) -> Result<usize, DemoError> {
        let token = post.token.unwrap_or_default();
        let list = self
            .http
            .get(format!("{}/shipping/orders", self.url))
            .header(AUTHORIZATION, format!("Bearer {token}"));
        let list: Vec<Value> = list.send().await?.error_for_status()?.json().await?;
        Ok(list
            .iter()
            .filter(|row| row["order_id"] == post.order_id.as_str())
            .count())
    }
}
