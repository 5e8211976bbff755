//! The headers that say what idem did, and that only idem may send (IDEM-19).
//!
//! Owns their names, and takes them off what a handler, or a service behind it, has answered.

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::problem::{Accepted, IdempotencyProblem};

/// Marks a replay: `true`.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Marks an answer that is not stored, so that a retry does not get it: `false`.
pub const NOT_STORED: HeaderName = HeaderName::from_static("idempotency-stored");

/// Marks every answer that idem itself made, with a stable word for the case.
pub const CODE: HeaderName = HeaderName::from_static("idempotency-code");

/// The code of an answer that idem has made in a service behind this one.
pub const NOT_FINAL: HeaderValue = HeaderValue::from_static("not-final");

/// The code of the 202 to a duplicate.
pub const ACCEPTED: HeaderValue = HeaderValue::from_static("accepted");

/// The code of the 400 to a request whose body broke off.
pub const BODY_FAILED: HeaderValue = HeaderValue::from_static("body-failed");

/// The code of the 503 to a request whose service was not ready in time.
pub const NOT_READY: HeaderValue = HeaderValue::from_static("not-ready");

/// The code of the 500 that stands for a panic.
pub const PANICKED: HeaderValue = HeaderValue::from_static("panicked");

/// Takes the markers off a handler's answer.
///
/// An answer that idem has made, in a service behind the handler, says "not yet" (IDEM-18). Our own code takes the place of
/// the other service's then, so that a service in front of this one learns it too.
pub fn take_off(head: &mut Parts) {
    let coded = remove(&mut head.headers).is_some_and(|code| is_of_idem(head.status, &code));
    let problem = head.extensions.remove::<IdempotencyProblem>().is_some();
    let accepted = head.extensions.remove::<Accepted>().is_some();
    if coded || problem || accepted {
        head.headers.insert(CODE, NOT_FINAL);
    }
}

/// Whether idem answers with this status under this code. Its only success is the 202 that asks a duplicate to come back: the
/// header on another one was copied from somewhere, and the answer has had its effect.
fn is_of_idem(status: StatusCode, code: &HeaderValue) -> bool {
    let asks_to_come_back = || status == StatusCode::ACCEPTED && (code == ACCEPTED || code == NOT_FINAL);
    status.is_client_error() || status.is_server_error() || asks_to_come_back()
}

/// Whether a handler's answer, from which the markers were taken, is one that idem has made in a service behind it.
#[must_use]
pub fn is_not_final(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name == CODE)
}

/// Takes the markers off a handler's answer that no record is written for.
#[must_use]
pub fn taken_off<B>(answer: Response<B>) -> Response<B> {
    let (mut head, body) = answer.into_parts();
    take_off(&mut head);
    Response::from_parts(head, body)
}

/// Removes the markers, and returns the code if there was one.
pub fn remove(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // An answer has few headers, and hardly ever one of these: looking at each is cheaper than looking for three.
    let is_marker = |name: &HeaderName| [&REPLAYED, &NOT_STORED, &CODE].contains(&name);
    if !headers.keys().any(is_marker) {
        return None;
    }
    headers.remove(REPLAYED);
    headers.remove(NOT_STORED);
    headers.remove(CODE)
}

/// Says that an answer is not stored, so that a retry does not get it.
pub fn mark_not_stored(headers: &mut HeaderMap) {
    headers.insert(NOT_STORED, HeaderValue::from_static("false"));
}
