//! A client as plain as can be: nothing is retried, followed or decoded.

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Method, RequestBuilder};
use serde_json::Value;

use crate::Order;

/// The tenant of a [`Call`] where no other is named.
pub const TENANT: &str = "acme";
/// Another one.
pub const OTHER_TENANT: &str = "globex";

/// Calls one service.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// One request to be sent.
#[derive(Debug)]
pub struct Call(RequestBuilder);

/// Everything that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All header lines.
    pub headers: HeaderMap,
    /// The bytes of the body.
    pub body: Bytes,
}

impl Client {
    /// A client of the service at `base`, such as `http://127.0.0.1:1323`.
    pub fn new(base: &str) -> Self {
        Self::of(base, reqwest::Client::builder())
    }

    /// The same over HTTP/2.
    pub fn http2(base: &str) -> Self {
        Self::of(base, reqwest::Client::builder().http2_prior_knowledge())
    }

    fn of(base: &str, http: ClientBuilder) -> Self {
        let http = http.no_proxy().redirect(Policy::none());
        Self {
            http: http.build().expect("a client without TLS"),
            base: base.to_owned(),
        }
    }

    /// Another client of the same service, on a connection of its own that many calls share.
    #[must_use]
    pub fn with_http2(&self) -> Self {
        let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build();
        Self {
            http: http.expect("a client without TLS"),
            base: self.base.clone(),
        }
    }

    /// Where the service is, such as `http://127.0.0.1:1323`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A call of `path` with a bearer token and without a key.
    pub fn call(&self, method: Method, path: &str) -> Call {
        Call(self.http.request(method, format!("{}{path}", self.base))).tenant(TENANT)
    }

    /// An order with a key.
    pub fn order(&self, key: &str, order: &Order) -> Call {
        self.order_at("/orders", key, order)
    }

    /// An order with a key, on another route.
    pub fn order_at(&self, path: &str, key: &str, order: &Order) -> Call {
        self.call(Method::POST, path).json(order).key(key)
    }
}

impl Call {
    /// Replaces the tenant.
    #[must_use]
    pub fn tenant(self, tenant: &str) -> Self {
        let mut value = HeaderMap::new();
        value.insert(
            "authorization",
            format!("Bearer {tenant}").parse().expect("a header value"),
        );
        Self(self.0.headers(value))
    }

    /// Sends no token.
    #[must_use]
    pub fn no_tenant(self) -> Self {
        let mut value = HeaderMap::new();
        value.insert("authorization", "".parse().expect("a header value"));
        Self(self.0.headers(value))
    }

    /// Sends an idempotency key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key.as_bytes())
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(self, name: &str, value: &[u8]) -> Self {
        Self(self.0.header(name, value))
    }

    /// Sends JSON.
    #[must_use]
    pub fn json(self, body: &impl serde::Serialize) -> Self {
        Self(self.0.json(body))
    }

    /// Sends bytes.
    #[must_use]
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// Sends the request and reads the whole answer.
    pub async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    /// The same where there may be no whole answer.
    ///
    /// # Errors
    ///
    /// When the connection or the body fails.
    pub async fn try_send(self) -> Result<Answer, reqwest::Error> {
        let response = self.0.send().await?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await?,
        })
    }

    /// The response with its body still to come.
    pub async fn stream(self) -> reqwest::Response {
        self.0.send().await.expect("an answer")
    }
}

impl Answer {
    /// Whether it says that it is a replay.
    pub fn is_replay(&self) -> bool {
        self.headers
            .get("idempotent-replayed")
            .is_some_and(|value| value == "true")
    }

    /// Whether it says that it could not be stored.
    pub fn says_not_stored(&self) -> bool {
        self.headers
            .get("idempotency-stored")
            .is_some_and(|value| value == "false")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body.escape_ascii()))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body.escape_ascii()))
    }

    /// The `code` of a problem, after checking that it is a whole one.
    pub fn problem(&self) -> String {
        let content_type = self.headers.get("content-type").map(HeaderValue::as_bytes);
        assert_eq!(content_type, Some(b"application/problem+json".as_slice()), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        for member in ["type", "title", "detail", "code"] {
            assert!(
                body[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member} in {body}"
            );
        }
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The answer without what may differ between a first one and its replay.
    #[must_use]
    pub fn without_marker(mut self) -> Self {
        self.headers.remove("idempotent-replayed");
        self.headers.remove("date");
        self
    }

    /// Checks that this is the replay of `first`: equal but for the marker and the date.
    pub fn assert_replays(&self, first: &Self) {
        assert!(!first.is_replay(), "{first:?} is a replay itself");
        assert!(self.is_replay(), "{self:?} is no replay");
        assert_eq!(self.clone().without_marker(), first.clone().without_marker());
    }
}
