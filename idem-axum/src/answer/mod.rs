//! From the handler's response to an answer and its outcome.
//!
//! Owns which answers are stored (IDEM-11, IDEM-18) and how a body becomes bytes without being kept from the client (IDEM-12):
//! one that is there at once is collected, any other is relayed while it is copied.

mod relay;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, HeaderName, RETRY_AFTER};
use axum::http::response::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use idem_core::{Completion, HandlerResult, RecordOutcome};

use self::relay::{End, Relay};
use crate::pieces::Pieces;
use crate::policy::StoredAnswers;
use crate::{markers, stored};

/// The most frames that are collected: a body that is always ready must not keep the thread for itself.
const MAX_FRAMES: usize = 256;

/// The statuses of answers that have no body, whatever the handler made.
const BODILESS: [StatusCode; 2] = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];

const NOT_STORED: RecordOutcome = RecordOutcome::Complete(Completion::NotStored);

type Piece = Result<Frame<Bytes>, axum::Error>;

/// What of an answer to one request is stored.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) stored: StoredAnswers,
    /// Whether an answer that leaves open whether there was an effect is an unknown outcome.
    pub(crate) refuses_reruns: bool,
    /// The most bytes a body may have.
    pub(crate) max_response: usize,
    pub(crate) unstored_headers: Arc<[HeaderName]>,
    /// Whether it answers HEAD, so that its headers may tell of a body that it does not have.
    pub(crate) to_head: bool,
}

/// Prepares `response` for the client and for the record.
pub(crate) fn finish(response: Response, rules: &Rules) -> HandlerResult<Response> {
    let (mut parts, body) = response.into_parts();
    markers::take_off(&mut parts);
    match keeping(&parts, rules) {
        Keeping::Kept => {}
        Keeping::Released => return whole(parts, body, RecordOutcome::Release),
        Keeping::Unknown => {
            let answer = Response::from_parts(parts, body);
            return HandlerResult::Unknown { answer };
        }
    }
    let room = body.size_hint().exact().and_then(|len| usize::try_from(len).ok());
    let room = room.filter(|len| *len <= rules.max_response).unwrap_or_default();
    let head = stored::encode_head(&parts, &rules.unstored_headers, room);
    let (Some(mut head), false) = (head, parts.status.is_informational()) else {
        // Headers beyond any limit of HTTP servers, or a switch of protocols: nothing that could be replayed.
        return whole(parts, body, NOT_STORED);
    };
    // Servers send none over HTTP/1.1, and any over HTTP/2.
    let body = if BODILESS.contains(&parts.status) {
        Body::empty()
    } else {
        body
    };
    let (hinted, declared) = (body.size_hint().exact(), declared_length(&parts, rules));
    let announced = hinted.or(declared);
    let contradicts = declared.is_some() && declared != announced;
    if contradicts || announced.is_some_and(|len| len > rules.max_response as u64) {
        return whole(parts, body, NOT_STORED);
    }
    match collect(body, rules.max_response) {
        (bytes, Then::End) if announced.is_none_or(|len| len == bytes.len() as u64) => {
            head.extend_from_slice(&bytes);
            let outcome = RecordOutcome::Complete(Completion::Stored(head.into()));
            whole(parts, Body::from(bytes), outcome)
        }
        (start, Then::Pending(rest)) => {
            if announced.is_none() {
                stored::mark_length_not_told(&mut head);
            }
            let (relay, ending) = relay::copy(rest, head, &start, announced, rules.max_response);
            HandlerResult::Streaming {
                answer: Response::from_parts(parts, relay),
                ending: ending.boxed(),
            }
        }
        // A body that is not what it said it would be, fails, or has trailers: the client gets it as it is.
        (start, Then::End) => whole(parts, Relay::body(&start, End::Whole, announced), NOT_STORED),
        (start, Then::Unfit(end)) => whole(parts, Relay::body(&start, end, announced), NOT_STORED),
    }
}

/// Whether an answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    Kept,
    Released,
    /// Nobody knows whether there was an effect, and it must not be repeated.
    Unknown,
}

/// Whether an answer is kept, by its head, from which the markers were taken.
fn keeping(head: &Parts, rules: &Rules) -> Keeping {
    if is_kept(head, rules.stored) {
        Keeping::Kept
    } else if rules.refuses_reruns && is_ambiguous(head.status) {
        Keeping::Unknown
    } else {
        Keeping::Released
    }
}

/// Whether a handler's answer is one that is kept.
pub(crate) fn is_kept(head: &Parts, stored: StoredAnswers) -> bool {
    let says_when_to_come_back = head.status.is_client_error() && head.headers.contains_key(RETRY_AFTER);
    let is_not_yet = says_when_to_come_back && stored != StoredAnswers::All;
    stored.include(head.status) && !is_not_yet && !markers::is_not_final(&head.headers)
}

/// Whether a status leaves open how far the handler came. A 501 and a 503 say that it did nothing.
fn is_ambiguous(status: StatusCode) -> bool {
    let did_nothing = [StatusCode::NOT_IMPLEMENTED, StatusCode::SERVICE_UNAVAILABLE];
    status.is_server_error() && !did_nothing.contains(&status)
}

/// The length that the handler's own `Content-Length` says the body has, if it is about this body: an answer to HEAD, and
/// a 304, tell of one that is not sent. What is no length is one that no body has.
fn declared_length(parts: &Parts, rules: &Rules) -> Option<u64> {
    if rules.to_head || BODILESS.contains(&parts.status) {
        return None;
    }
    let length = |value: &HeaderValue| value.to_str().ok().and_then(|value| value.parse().ok());
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter().map(length);
    let first = lengths.next()?;
    let same = first.filter(|_| lengths.all(|length| length == first));
    Some(same.unwrap_or(u64::MAX))
}

fn whole(mut parts: Parts, body: Body, outcome: RecordOutcome) -> HandlerResult<Response> {
    if outcome == NOT_STORED {
        markers::mark_not_stored(&mut parts.headers);
    }
    HandlerResult::Whole {
        answer: Response::from_parts(parts, body),
        outcome,
    }
}

/// What comes after the bytes that were there at once.
enum Then {
    End,
    /// More, later.
    Pending(Body),
    /// Something that is not stored.
    Unfit(End),
}

/// The bytes of a body that are there at once.
fn collect(mut body: Body, max: usize) -> (Bytes, Then) {
    let mut start = Pieces::default();
    for _ in 0..MAX_FRAMES {
        // The handler has come to its end, so a panic of its body must not make it run again.
        let next = catch_unwind(AssertUnwindSafe(|| body.frame().now_or_never()));
        let frame = match next {
            Ok(None) => break,
            Ok(Some(None)) => return (start.into(), Then::End),
            Ok(Some(Some(frame))) => frame,
            Err(_panic) => return (start.into(), Then::Unfit(End::CutShort)),
        };
        let rest = match data(frame) {
            Ok(data) if start.len() + data.len() <= max => {
                start.push(data);
                continue;
            }
            Ok(data) => Ok(Frame::data(data)),
            Err(unfit) => unfit,
        };
        return (start.into(), Then::Unfit(End::Rest(Some(rest), body)));
    }
    (start.into(), Then::Pending(body))
}

/// The data in a piece of a body; or the piece, if it is trailers or an error.
fn data(piece: Piece) -> Result<Bytes, Piece> {
    piece.map_err(Err)?.into_data().map_err(Ok)
}

#[cfg(test)]
mod tests;
