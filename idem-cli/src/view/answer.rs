//! An answer as it is printed: of a handler, or of a task.
//!
//! Owns what of it is secret: header values and the body.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde::Serialize;

use super::hex;

/// What is kept of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerView {
    /// The length of the whole answer as it is stored.
    stored_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) headers: Option<Vec<HeaderView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<BodyView>,
}

#[derive(Debug, Serialize)]
pub(super) struct HeaderView {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
}

/// A body as text, or as hexadecimal digits if it is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BodyView {
    Text(String),
    Hex(String),
}

/// What the payload of a task's record is, by its first two bytes.
fn kind_of_task(payload: &[u8]) -> Option<&'static str> {
    match payload {
        [1, 1, ..] => Some("result of a task"),
        [1, 2, ..] => Some("final error of a task, set aside"),
        [1, 3, ..] => Some("final error of a task, acknowledged"),
        _ => None,
    }
}

/// Whether records of this operation are of tasks.
pub(crate) fn is_task(operation: &str) -> bool {
    operation.starts_with("task ")
}

impl AnswerView {
    pub(super) fn of_head(operation: &str, len: u64, head: &[u8]) -> Self {
        let is_task = is_task(operation);
        let status = match head {
            [1, _, high, low, ..] if !is_task => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        };
        Self {
            stored_bytes: len,
            kind: kind_of_task(head).filter(|_| is_task),
            status,
            body_bytes: None,
            headers: None,
            body: None,
        }
    }

    pub(super) fn of(operation: &str, payload: &Bytes, reveals: bool) -> Self {
        let head = Self::of_head(operation, payload.len() as u64, payload);
        if is_task(operation) {
            let rest = payload.get(2..).unwrap_or_default();
            return Self {
                body_bytes: Some(rest.len() as u64),
                body: reveals.then(|| BodyView::of(rest)),
                ..head
            };
        }
        let Some(answer) = idem_http::stored::decode(payload.clone()) else {
            return Self { status: None, ..head };
        };
        let headers = answer.headers().iter().map(|(name, value)| HeaderView {
            name: name.as_str().to_owned(),
            value: reveals.then(|| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        });
        let (status, headers) = (answer.status().as_u16(), headers.collect());
        let body = body_of(answer);
        Self {
            status: Some(status),
            headers: Some(headers),
            body_bytes: Some(body.len() as u64),
            body: reveals.then(|| BodyView::of(&body)),
            ..head
        }
    }

    /// In a few words.
    pub(super) fn brief(&self) -> String {
        match (self.status, self.kind) {
            (Some(status), _) => format!("{status}, {}B", self.stored_bytes),
            (None, Some(kind)) => format!("{kind}, {}B", self.stored_bytes),
            (None, None) => format!("{}B", self.stored_bytes),
        }
    }
}

/// The body of a stored answer, which is in memory.
fn body_of(answer: http::Response<idem_http::Body>) -> Bytes {
    use futures_util::FutureExt as _;
    let collected = answer.into_body().collect().now_or_never();
    collected
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default()
}

impl BodyView {
    fn of(body: &[u8]) -> Self {
        match std::str::from_utf8(body) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex(body)),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Hex(text) => text,
        }
    }
}
