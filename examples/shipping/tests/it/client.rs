//! A client of the service, and the answers it gets.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::process::LIMIT;

#[derive(Clone)]
pub(crate) struct Client {
    /// `host:port`
    pub(crate) addr: String,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(addr: String) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(LIMIT).build();
        let http = http.expect("a client");
        Self { addr, http }
    }

    /// Posts an order, with an idempotency key unless it is empty.
    pub(crate) async fn post(&self, path: &str, token: &str, key: &str, order: &Value) -> Answer {
        self.try_post(path, token, key, order).await.expect("an answer")
    }

    /// The same for a service that may not answer.
    pub(crate) async fn try_post(&self, path: &str, token: &str, key: &str, order: &Value) -> reqwest::Result<Answer> {
        let mut request = self
            .http
            .post(format!("http://{}{path}", self.addr))
            .header("Authorization", format!("Bearer {token}"))
            .json(order);
        if !key.is_empty() {
            request = request.header("Idempotency-Key", key);
        }
        Answer::try_of(request).await
    }

    /// Posts any body as an order of `acme`.
    pub(crate) async fn post_raw(&self, key: &str, content_type: &str, body: &str) -> Answer {
        let request = self
            .http
            .post(format!("http://{}/shipping/order", self.addr))
            .header("Authorization", "Bearer acme-demo")
            .header("Idempotency-Key", key)
            .header("Content-Type", content_type)
            .body(body.to_owned());
        Answer::of(request).await
    }

    /// The `order_id` of every row the tenant is shown.
    pub(crate) async fn listed(&self, token: &str) -> Vec<String> {
        let request = self
            .http
            .get(format!("http://{}/shipping/orders", self.addr))
            .header("Authorization", format!("Bearer {token}"));
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, 200);
        let rows: Vec<Value> = serde_json::from_slice(&answer.body).expect("a list");
        rows.iter()
            .map(|row| row["order_id"].as_str().expect("a string").to_owned())
            .collect()
    }

    /// Gets a path without any header.
    pub(crate) async fn get_bare(&self, path: &str) -> Answer {
        Answer::of(self.http.get(format!("http://{}{path}", self.addr))).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        Self::try_of(request).await.expect("an answer")
    }

    async fn try_of(request: reqwest::RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?.to_vec(),
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

pub(crate) fn order(order_id: &str) -> Value {
    json!({ "order_id": order_id, "vendor": "Tiny Parts", "address": "1 Long Way" })
}

/// An order as it is on the wire, for a client that leaves as no client should. `more` are further header lines.
pub(crate) fn raw_order(addr: &str, key: &str, more: &str, order: &Value) -> String {
    let body = order.to_string();
    format!(
        "POST /shipping/order HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer acme-demo\r\nidempotency-key: {key}\r\n\
         {more}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
