//! From the handler's response to an answer and its outcome.
//!
//! Owns which answers are stored (IDEM-11, IDEM-18), by the handler's [`Verdict`] or else by the status, and how a body becomes
//! bytes without being kept from the client (IDEM-12).
//!
//! | the answer | its record | the client gets |
//! |---|---|---|
//! | it switches protocols | not stored | it as it is |
//! | its verdict is `Release` | released | it as it is |
//! | its verdict is `Unknown` | unknown | it as it is |
//! | it has no verdict, and its status is one that is not kept | released, or unknown under `after_crash = "refuse"` | it as it is |
//! | idem has made it, in a service behind | the same | it as it is |
//! | its head does not fit the stored layout | not stored | it as it is |
//! | its body is announced as too large, or with two lengths | not stored | it as it is |
//! | its body is there at once, with the length that was announced | stored | it |
//! | its body is there at once, with another length | not stored | it as it is |
//! | its body comes later | as the copy ends | each piece when it is there |
//! | its body fails, has trailers or grows too large | not stored | it as it is |

mod relay;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_LENGTH, HeaderName, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use idem_core::{Completion, HandlerResult, RecordOutcome, StreamedOutcome};

use self::relay::BodyEnd;
pub(crate) use self::relay::Relay;
use crate::body::{Body, HandlerBody, Piece, ResponseBody};
use crate::pieces::Pieces;
use crate::policy::StoredAnswers;
use crate::verdict::Verdict;
use crate::{markers, stored};

/// The most frames that are collected: a body that is always ready must not keep the thread for itself.
const MAX_FRAMES: usize = 256;

/// The statuses of answers that have no body, whatever the handler made.
const BODILESS: [StatusCode; 2] = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];

const NOT_STORED: RecordOutcome = RecordOutcome::complete(Completion::NotStored);

/// What of an answer to one request is stored.
#[derive(Clone, Debug)]
pub struct AnswerRules {
    /// Which statuses are stored, of answers without a verdict.
    pub stored: StoredAnswers,
    /// Whether an answer that leaves open whether there was an effect is an unknown outcome.
    pub refuses_reruns: bool,
    /// The most bytes a body may have.
    pub max_response: usize,
    /// Headers that are left out of the record.
    pub unstored_headers: Arc<[HeaderName]>,
    /// Whether it answers HEAD, so that its headers may tell of a body that it does not have.
    pub to_head: bool,
    /// Whether the verdict stays with the answer, for another guard around this one.
    pub passes_verdict: bool,
}

/// Prepares `response` for the client and for the record.
pub fn finish<B: HandlerBody>(response: Response<B>, rules: &AnswerRules) -> HandlerResult<Response<ResponseBody<B>>> {
    let (mut head, body) = response.into_parts();
    let verdict = if rules.passes_verdict {
        head.extensions.get().copied()
    } else {
        Verdict::take_off(&mut head.extensions)
    };
    markers::take_off(&mut head);
    if head.status.is_informational() {
        // A switch of protocols: it has had its effect, and cannot be replayed.
        return whole(head, ResponseBody::own(body), NOT_STORED);
    }
    match keeping(&head, verdict, rules) {
        Keeping::Kept => match verdict.and_then(Verdict::keep_for) {
            None => store(head, body, rules),
            Some(duration) => kept_for(duration, store(head, body, rules)),
        },
        Keeping::Released => whole(head, ResponseBody::own(body), RecordOutcome::Release),
        Keeping::Unknown => whole(
            head,
            ResponseBody::own(body),
            RecordOutcome::complete(Completion::Unknown),
        ),
    }
}

/// An answer that no record is written for, without what is meant for the record.
#[must_use]
pub fn unrecorded<B>(answer: Response<B>) -> Response<B> {
    let mut answer = markers::taken_off(answer);
    Verdict::take_off(answer.extensions_mut());
    answer
}

/// Stores an answer that is kept, as far as it can be stored.
fn store<B: HandlerBody>(head: Parts, body: B, rules: &AnswerRules) -> HandlerResult<Response<ResponseBody<B>>> {
    let (hinted, declared) = (body.size_hint().exact(), declared_length(&head, rules));
    let announced = hinted.or(declared);
    let Some(mut payload) = stored_head(&head, hinted, rules) else {
        return whole(head, ResponseBody::own(body), NOT_STORED);
    };
    if BODILESS.contains(&head.status) {
        // A server sends no such body over HTTP/1.1, and any over HTTP/2.
        let outcome = RecordOutcome::complete(Completion::Stored(payload.into()));
        return whole(head, Body::empty().into(), outcome);
    }
    let contradicts = declared.is_some() && declared != announced;
    if contradicts || announced.is_some_and(|len| len > rules.max_response as u64) {
        return whole(head, ResponseBody::own(body), NOT_STORED);
    }
    match collect(body, rules.max_response) {
        (bytes, Collected::Whole) if announced.is_none_or(|len| len == bytes.len() as u64) => {
            payload.extend_from_slice(&bytes);
            let outcome = RecordOutcome::complete(Completion::Stored(payload.into()));
            whole(head, Body::from(bytes).into(), outcome)
        }
        (start, Collected::Pending(rest)) => {
            if announced.is_none() {
                stored::mark_length_not_told(&mut payload);
            }
            let (relay, outcome) = relay::copy(rest, payload, &start, announced, rules.max_response);
            HandlerResult::Streaming {
                answer: Response::from_parts(head, ResponseBody::relayed(relay)),
                outcome: outcome.boxed(),
            }
        }
        (start, Collected::Whole) => unfit(head, &start, BodyEnd::Whole, announced),
        (start, Collected::Unfit(end)) => unfit(head, &start, end, announced),
    }
}

/// The payload up to its body; nothing where the head does not fit.
fn stored_head(head: &Parts, hinted: Option<u64>, rules: &AnswerRules) -> Option<Vec<u8>> {
    let room = hinted.and_then(|len| usize::try_from(len).ok());
    let room = room.filter(|len| *len <= rules.max_response).unwrap_or_default();
    stored::encode_head(head, &rules.unstored_headers, room)
}

/// The same result, with a record that is kept for `duration`.
fn kept_for<A>(duration: Duration, result: HandlerResult<A>) -> HandlerResult<A> {
    let kept = move |outcome| match outcome {
        RecordOutcome::Complete { completion, .. } => RecordOutcome::Complete {
            completion,
            keep_for: Some(duration),
        },
        RecordOutcome::Release => RecordOutcome::Release,
    };
    match result {
        HandlerResult::Whole { answer, outcome } => {
            let outcome = kept(outcome);
            HandlerResult::Whole { answer, outcome }
        }
        HandlerResult::Streaming { answer, outcome } => {
            let outcome = outcome.map(move |streamed| StreamedOutcome {
                outcome: kept(streamed.outcome),
                ..streamed
            });
            let outcome = outcome.boxed();
            HandlerResult::Streaming { answer, outcome }
        }
        joint @ HandlerResult::Joint { .. } => joint,
    }
}

/// An answer whose body is not what it said it would be, fails, or has trailers: the client gets it as it is.
fn unfit<B: HandlerBody>(
    head: Parts,
    start: &[u8],
    end: BodyEnd<B>,
    announced: Option<u64>,
) -> HandlerResult<Response<ResponseBody<B>>> {
    let relay = Relay::ending(start, end, announced);
    whole(head, ResponseBody::relayed(relay), NOT_STORED)
}

/// Whether an answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    Kept,
    Released,
    /// Whether there was an effect is not known, and it must not be repeated.
    Unknown,
}

/// Whether an answer is kept, by its verdict and its head, from which the markers were taken.
fn keeping(head: &Parts, verdict: Option<Verdict>, rules: &AnswerRules) -> Keeping {
    match verdict {
        Some(Verdict::Release) => Keeping::Released,
        Some(Verdict::Unknown) => Keeping::Unknown,
        _ if is_kept(head, verdict, rules.stored) => Keeping::Kept,
        _ if rules.refuses_reruns && is_ambiguous(head.status) => Keeping::Unknown,
        _ => Keeping::Released,
    }
}

/// Whether a handler's answer, from which the markers were taken, is one that is kept. A verdict beats its status.
#[must_use]
pub fn is_kept(head: &Parts, verdict: Option<Verdict>, stored: StoredAnswers) -> bool {
    let is_kept = verdict.map_or_else(|| is_kept_by_status(head, stored), Verdict::keeps);
    is_kept && !markers::is_not_final(&head.headers)
}

fn is_kept_by_status(head: &Parts, stored: StoredAnswers) -> bool {
    let says_when_to_come_back = head.status.is_client_error() && head.headers.contains_key(RETRY_AFTER);
    let is_not_yet = says_when_to_come_back && stored != StoredAnswers::All;
    stored.include(head.status) && !is_not_yet
}

/// Whether a status leaves open how far the handler came. A 501 and a 503 say that it did nothing.
fn is_ambiguous(status: StatusCode) -> bool {
    let did_nothing = [StatusCode::NOT_IMPLEMENTED, StatusCode::SERVICE_UNAVAILABLE];
    status.is_server_error() && !did_nothing.contains(&status)
}

/// The length that the handler's own `Content-Length` says the body has, if it is about this body: an answer to HEAD, and
/// a 304, tell of one that is not sent. What is no length is one that no body has.
fn declared_length(parts: &Parts, rules: &AnswerRules) -> Option<u64> {
    if rules.to_head || BODILESS.contains(&parts.status) {
        return None;
    }
    let length = |value: &HeaderValue| value.to_str().ok().and_then(|value| value.parse().ok());
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter().map(length);
    let first = lengths.next()?;
    let same = first.filter(|_| lengths.all(|length| length == first));
    Some(same.unwrap_or(u64::MAX))
}

fn whole<B>(
    mut head: Parts,
    body: ResponseBody<B>,
    outcome: RecordOutcome,
) -> HandlerResult<Response<ResponseBody<B>>> {
    if outcome == NOT_STORED {
        markers::mark_not_stored(&mut head.headers);
    }
    HandlerResult::Whole {
        answer: Response::from_parts(head, body),
        outcome,
    }
}

/// How a body goes on after the bytes that were there at once.
enum Collected<B> {
    /// It has ended.
    Whole,
    /// More comes later.
    Pending(B),
    /// With something that is not stored.
    Unfit(BodyEnd<B>),
}

/// The bytes of a body that are there at once.
fn collect<B: HandlerBody>(mut body: B, max: usize) -> (Bytes, Collected<B>) {
    let mut start = Pieces::default();
    for _ in 0..MAX_FRAMES {
        // The handler has come to its end, so a panic of its body must not make it run again.
        let next = catch_unwind(AssertUnwindSafe(|| body.frame().now_or_never()));
        let frame = match next {
            Ok(None) => break,
            Ok(Some(None)) => return (start.into(), Collected::Whole),
            Ok(Some(Some(frame))) => frame.map_err(Into::into),
            Err(_panic) => return (start.into(), Collected::Unfit(BodyEnd::CutShort)),
        };
        let rest = match data(frame) {
            Ok(data) if start.len() + data.len() <= max => {
                start.push(data);
                continue;
            }
            Ok(data) => Ok(Frame::data(data)),
            Err(unfit) => unfit,
        };
        return (start.into(), Collected::Unfit(BodyEnd::Rest(Some(rest), body)));
    }
    (start.into(), Collected::Pending(body))
}

/// The data in a piece of a body; or the piece, if it is trailers or an error.
fn data(piece: Piece) -> Result<Bytes, Piece> {
    piece.map_err(Err)?.into_data().map_err(Ok)
}

#[cfg(test)]
mod tests;
