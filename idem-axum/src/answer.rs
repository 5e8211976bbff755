//! From the handler's response to an answer and its outcome.
//!
//! Owns which answers are stored (IDEM-11) and how a body becomes bytes without being kept from the client (IDEM-12).
//! A body whose length is known is collected; any other is passed on chunk by chunk while a copy is kept.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::response::Parts;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use idem_core::{Completion, Ending, Finished, Outcome};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::stored;

/// The largest body that is stored, in bytes.
const MAX_RESPONSE: usize = 1024 * 1024;

/// How long a streamed body may take to end if it is to be stored. An endless one must not hold its claim for ever.
const STREAM_LIMIT: Duration = Duration::from_secs(30);

/// Prepares `response` for the client and for the record.
pub(crate) async fn finish(response: Response) -> Finished<Response> {
    let (parts, body) = response.into_parts();
    if !is_final(parts.status) {
        return whole(parts, body, Outcome::Release);
    }
    let head = stored::encode_head(&parts);
    let (Some(head), false) = (head, parts.status.is_informational()) else {
        // A switch of protocols, or headers beyond any limit of HTTP servers: nothing that could be replayed.
        return whole(parts, body, NOT_STORED);
    };
    match body.size_hint().exact() {
        Some(len) if len > MAX_RESPONSE as u64 => whole(parts, body, NOT_STORED),
        Some(_) => match collect(body).await {
            Ok(bytes) => {
                let payload = [&head, &bytes[..]].concat();
                whole(
                    parts,
                    Body::from(bytes),
                    Outcome::Complete(Completion::Stored(payload.into())),
                )
            }
            Err(unharmed) => whole(parts, unharmed, NOT_STORED),
        },
        None => relay(parts, body, head),
    }
}

const NOT_STORED: Outcome = Outcome::Complete(Completion::NotStored);

/// Whether an answer is the operation's last word. The others say that it could not be carried out this time.
fn is_final(status: StatusCode) -> bool {
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    !status.is_server_error() && !passing.contains(&status)
}

fn whole(parts: Parts, body: Body, outcome: Outcome) -> Finished<Response> {
    Finished::Whole {
        answer: Response::from_parts(parts, body),
        outcome,
    }
}

/// All bytes of a body; or, if it fails half-way, is longer than it said or has trailers, an equal body for the client.
async fn collect(mut body: Body) -> Result<Bytes, Body> {
    let mut frames = Vec::new();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let kept = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
        frames.push(frame);
        len += kept.unwrap_or_default();
        if kept.is_none() || len > MAX_RESPONSE {
            let all = stream::iter(frames).chain(BodyStream::new(body));
            return Err(Body::new(StreamBody::new(all)));
        }
    }
    let mut chunks = frames.into_iter().flatten().filter_map(|frame| frame.into_data().ok());
    Ok(match (chunks.next(), chunks.next()) {
        (None, _) => Bytes::new(),
        (Some(only), None) => only,
        (Some(first), Some(second)) => {
            let mut joined = Vec::with_capacity(len);
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&second);
            chunks.for_each(|chunk| joined.extend_from_slice(&chunk));
            joined.into()
        }
    })
}

/// Passes a body on while a copy is kept, until it has ended or cannot be stored any more.
fn relay(parts: Parts, body: Body, head: Vec<u8>) -> Finished<Response> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let answer = Body::new(Relay { receiver, rest: None });
    Finished::Streaming {
        answer: Response::from_parts(parts, answer),
        ending: copy(body, head, sender).boxed(),
    }
}

/// What the copying side passes on to the client's side. The channel needs no bound: it holds no more than a copy may.
enum Piece {
    Frame(Result<Frame<Bytes>, axum::Error>),
    /// What is left is not copied.
    Rest(Body),
    End,
}

/// Keeps the end of the body from the client until it is dropped.
struct EndOnDrop(mpsc::UnboundedSender<Piece>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        // A failed send means that the client has left.
        let _ = self.0.send(Piece::End);
    }
}

async fn copy(mut body: Body, head: Vec<u8>, client: mpsc::UnboundedSender<Piece>) -> Ending {
    let limit = Instant::now() + STREAM_LIMIT;
    let head_len = head.len();
    let mut payload = head;
    // A failed send means that the client has left; the copy is for its retry.
    while let Ok(frame) = timeout_at(limit, body.frame()).await {
        let Some(frame) = frame else {
            return Ending {
                outcome: Outcome::Complete(Completion::Stored(payload.into())),
                // The client sees the end of the body once a retry would find it.
                until_recorded: Box::new(EndOnDrop(client)),
            };
        };
        let data = frame.as_ref().ok().and_then(Frame::data_ref);
        let kept = data.is_some_and(|data| payload.len() - head_len + data.len() <= MAX_RESPONSE);
        payload.extend_from_slice(data.filter(|_| kept).map_or(b"", |data| data));
        let _ = client.send(Piece::Frame(frame));
        if !kept {
            break;
        }
    }
    let _ = client.send(Piece::Rest(body));
    Ending {
        outcome: NOT_STORED,
        until_recorded: Box::new(()),
    }
}

/// The client's side of a body that is being copied.
struct Relay {
    receiver: mpsc::UnboundedReceiver<Piece>,
    rest: Option<Body>,
}

impl http_body::Body for Relay {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if let Some(rest) = &mut self.rest {
                return Pin::new(rest).poll_frame(context);
            }
            match ready!(self.receiver.poll_recv(context)) {
                Some(Piece::Frame(frame)) => return Poll::Ready(Some(frame)),
                Some(Piece::Rest(rest)) => self.rest = Some(rest),
                Some(Piece::End) => self.rest = Some(Body::empty()),
                // The copying side panicked or was shut down: the client must not take this for the end.
                None => return Poll::Ready(Some(Err(axum::Error::new("the body was cut short")))),
            }
        }
    }
}
