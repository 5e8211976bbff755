//! What a handler says about the record of its own answer.
//!
//! Owns the part of a response that says so, and how it is taken off. Does not own what follows from it: [`answer`](crate::answer)
//! does.

use std::time::Duration;

use http::Extensions;
use idem_core::ClaimPolicy;

/// What becomes of the record of one answer. It is a part of the response, and beats the option `store`.
///
/// Put it into the extensions of a response. As a part of a tuple, an axum handler returns it beside its answer (feature
/// `axum-core`, which `idem-axum` turns on): `(StatusCode::OK, Verdict::Release, Json(reply))`.
///
/// | verdict | the record | a retry |
/// |---|---|---|
/// | `Keep` | completed with the answer, whatever its status | gets the answer for the operation's `ttl` |
/// | `KeepFor(duration)` | the same | gets the answer for `duration` |
/// | `Release` | released, whatever the status, also after a 2xx | runs the handler |
/// | `Unknown` | completed, as an outcome that is unknown | gets 409 `outcome-unknown` for the operation's `ttl` |
///
/// ```
/// use http::{Response, StatusCode};
/// use idem_http::Verdict;
///
/// let mut response = Response::new("the card was declined");
/// *response.status_mut() = StatusCode::BAD_GATEWAY;
/// response.extensions_mut().insert(Verdict::Keep); // a retry does not charge the card again
/// ```
///
/// # What beats a verdict
///
/// - An answer that idem made, here or in a service behind the handler, is never kept (IDEM-18).
/// - An answer that switches protocols, is larger than `max_response`, fails, or has trailers cannot be stored. Its record is
///   completed without it, for as long as the verdict says, and duplicates get `response-not-stored`. `Release` and `Unknown`
///   hold for such an answer too, unless it switches protocols.
/// - A panic has no answer, and so no verdict.
///
/// If a response is given two verdicts, the last one counts. An inner middleware writes before an outer one.
///
/// # Requests that were not read to their end
///
/// If the body of a request broke off or was too large, and the handler answers all the same, only a 2xx or 3xx is kept. A
/// verdict beats that as well, because the handler says what it did. The record is then compared by the part of the body that
/// arrived, so a retry with the whole body gets 422 `key-reused`. Give no verdict to a request that did nothing because it could
/// not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The answer is stored whatever its status, as far as it can be stored.
    Keep,
    /// The answer is stored for this long in place of the operation's `ttl`.
    ///
    /// Less than 100 milliseconds counts as 100 milliseconds, more than ten years as ten years, and what is below a millisecond
    /// is cut off.
    KeepFor(Duration),
    /// Nothing is stored and the key is released, whatever the status.
    Release,
    /// Whether the request took effect is not known. Retries are told so, and the handler does not run again.
    Unknown,
}

impl Verdict {
    /// Takes the verdict off a response.
    pub fn take_off(extensions: &mut Extensions) -> Option<Self> {
        extensions.remove()
    }

    /// Whether the answer is to be kept.
    #[must_use]
    pub const fn keeps(self) -> bool {
        matches!(self, Self::Keep | Self::KeepFor(_))
    }

    /// How long the record is kept, if not for the operation's `ttl`; within the bounds of a `ttl`.
    #[must_use]
    pub fn keep_for(self) -> Option<Duration> {
        let Self::KeepFor(duration) = self else { return None };
        let millis = duration.clamp(ClaimPolicy::MIN, ClaimPolicy::MAX_TTL).as_millis();
        u64::try_from(millis).ok().map(Duration::from_millis)
    }
}

#[cfg(feature = "axum-core")]
impl axum_core::response::IntoResponseParts for Verdict {
    type Error = std::convert::Infallible;

    fn into_response_parts(
        self,
        mut parts: axum_core::response::ResponseParts,
    ) -> Result<axum_core::response::ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_verdict_is_within_the_bounds_of_a_ttl_and_in_whole_milliseconds() {
        let table = [
            (Duration::ZERO, Duration::from_millis(100)),
            (Duration::from_millis(99), Duration::from_millis(100)),
            (Duration::from_millis(100), Duration::from_millis(100)),
            (Duration::from_micros(100_999), Duration::from_millis(100)),
            (Duration::from_nanos(1_234_567_890), Duration::from_millis(1_234)),
            (Duration::from_hours(24 * 3650), Duration::from_hours(24 * 3650)),
            (Duration::from_hours(24 * 3651), Duration::from_hours(24 * 3650)),
            (Duration::MAX, Duration::from_hours(24 * 3650)),
        ];
        for (said, kept) in table {
            assert_eq!(Verdict::KeepFor(said).keep_for(), Some(kept), "{said:?}");
        }
        for other in [Verdict::Keep, Verdict::Release, Verdict::Unknown] {
            assert_eq!(other.keep_for(), None, "{other:?}");
        }
    }

    #[test]
    fn it_is_taken_off_once() {
        let mut extensions = Extensions::new();
        extensions.insert(Verdict::Keep);
        extensions.insert(Verdict::Release);
        assert_eq!(
            Verdict::take_off(&mut extensions),
            Some(Verdict::Release),
            "the last one"
        );
        assert_eq!(Verdict::take_off(&mut extensions), None);
    }
}
