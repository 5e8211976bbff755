//! A response as the bytes of a record's payload.
//!
//! Owns the layout; golden bytes below freeze it. Integers are big-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | 1 if the client was told the body's length before the body, 0 if it was not |
//! | 2..4 | status |
//! | 4..6 | number of header lines |
//! | per line | length of the name as u8, name, length of the value as u32, value |
//! | rest | body |
//!
//! Repeated lines are kept in order, and so are values that are not text. A replay tells the length if the first answer
//! did, so that what looks at it on its way, such as a compression layer, treats both alike.

use bytes::{Buf as _, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::body::Body;
use crate::markers;

const VERSION: u8 = 1;
const NOT_TOLD: u8 = 0;
const TOLD: u8 = 1;

/// The payload of a response up to its body, or `None` if it does not fit the layout. Headers in `unstored` are left out.
/// There is room for a body of `body_len` bytes behind it.
#[must_use]
pub fn encode_head(parts: &Parts, unstored: &[HeaderName], body_len: usize) -> Option<Vec<u8>> {
    let lists = parts.headers.contains_key(CONNECTION);
    let is_listed = |name: &HeaderName| lists && names(&parts.headers, name);
    let is_stored = |name: &HeaderName| is_of_the_answer(name) && !is_listed(name) && !unstored.contains(name);
    let len = |(name, value): (&HeaderName, &HeaderValue)| 1 + name.as_str().len() + 4 + value.len();
    let mut payload = Vec::with_capacity(6 + parts.headers.iter().map(len).sum::<usize>() + body_len);
    payload.extend_from_slice(&[VERSION, TOLD]);
    payload.extend_from_slice(&parts.status.as_u16().to_be_bytes());
    payload.extend_from_slice(&[0; 2]);
    let mut lines: u16 = 0;
    for (name, value) in parts.headers.iter().filter(|(name, _)| is_stored(name)) {
        lines = lines.checked_add(1)?;
        payload.push(u8::try_from(name.as_str().len()).ok()?);
        payload.extend_from_slice(name.as_str().as_bytes());
        payload.extend_from_slice(&u32::try_from(value.len()).ok()?.to_be_bytes());
        payload.extend_from_slice(value.as_bytes());
    }
    payload.get_mut(4..6)?.copy_from_slice(&lines.to_be_bytes());
    Some(payload)
}

/// The payload of a whole response, whose client would be told the length of the body; `None` if it does not fit the layout.
#[must_use]
pub fn encode(response: &Response<Bytes>) -> Option<Bytes> {
    let mut head = Response::new(());
    *head.status_mut() = response.status();
    *head.headers_mut() = response.headers().clone();
    markers::remove(head.headers_mut());
    // The length is that of the body, whatever a header line says that was copied from elsewhere.
    head.headers_mut().remove(CONTENT_LENGTH);
    let mut payload = encode_head(&head.into_parts().0, &[], response.body().len())?;
    payload.extend_from_slice(response.body());
    Some(payload.into())
}

/// Says of a payload that its client was not told the body's length before the body.
pub fn mark_length_not_told(payload: &mut [u8]) {
    if let Some(told) = payload.get_mut(1) {
        *told = NOT_TOLD;
    }
}

/// Whether a header among `headers` belongs to the answer, and not to the connection or the moment it was sent in.
#[must_use]
pub fn is_kept(name: &HeaderName, headers: &HeaderMap) -> bool {
    is_of_the_answer(name) && !names(headers, name)
}

/// The same, but for what a `Connection` header lists.
fn is_of_the_answer(name: &HeaderName) -> bool {
    const LEFT_OUT: [HeaderName; 6] = [CONNECTION, DATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let hop_by_hop = || matches!(name.as_str(), "keep-alive" | "proxy-connection");
    !LEFT_OUT.contains(name) && !hop_by_hop()
}

/// Whether a `Connection` header lists `name` as meant for the next hop only.
fn names(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(name.as_str()))
}

/// Reads a payload back; `None` if it is not one of this version.
#[must_use]
pub fn decode(mut payload: Bytes) -> Option<Response<Body>> {
    let body: fn(Bytes) -> Body = match (payload.try_get_u8().ok()?, payload.try_get_u8().ok()?) {
        (VERSION, TOLD) => Body::from,
        (VERSION, NOT_TOLD) => Body::with_length_not_told,
        _ => return None,
    };
    let status = StatusCode::from_u16(payload.try_get_u16().ok()?).ok()?;
    let lines = payload.try_get_u16().ok()?;
    // Its number of lines is not believed before they are there: a map of as many may be more than there can be.
    let mut headers = HeaderMap::new();
    for _ in 0..lines {
        let name_len = payload.try_get_u8().ok()?.into();
        let name = HeaderName::from_bytes(payload.get(..name_len)?).ok()?;
        payload.advance(name_len);
        let value_len = payload.try_get_u32().ok()?;
        let value = take(&mut payload, usize::try_from(value_len).ok()?)?;
        let value = HeaderValue::from_maybe_shared(value).ok()?;
        headers.try_append(name, value).ok()?;
    }
    // Of a head that was stored when handlers could still set them.
    markers::remove(&mut headers);
    let mut response = Response::new(body(payload));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}

fn take(payload: &mut Bytes, len: usize) -> Option<Bytes> {
    (payload.len() >= len).then(|| payload.split_to(len))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body::Body as _;
    use http_body_util::BodyExt as _;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn parts(lines: &[(&'static str, &[u8])]) -> Parts {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::CREATED;
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            response.headers_mut().append(*name, value);
        }
        response.into_parts().0
    }

    fn head(lines: &[(&'static str, &[u8])]) -> Vec<u8> {
        encode_head(&parts(lines), &[], 0).expect("it fits")
    }

    /// What a body comes to, and whether its length is told before it.
    fn whole(body: Body) -> (Bytes, bool) {
        let told = body.size_hint().exact().is_some();
        let collected = body.collect().now_or_never().expect("in memory");
        (collected.expect("no failure").to_bytes(), told)
    }

    const GOLDEN: &[u8] = b"\x01\x01\x00\xC9\x00\x03\x01a\0\0\0\x011\x01a\0\0\0\0\x01b\0\0\0\x01\xFF\0body";

    #[test]
    fn payloads_of_version_1_are_frozen() {
        let lines: &[(&str, &[u8])] = &[("a", b"1"), ("b", b"\xFF"), ("a", b"")];
        let mut payload = [head(lines), b"\0body".to_vec()].concat();
        assert_eq!(payload, GOLDEN);
        mark_length_not_told(&mut payload);
        assert_eq!(payload[..2], [1, 0]);
        assert_eq!(payload[2..], GOLDEN[2..]);
        for (payload, told) in [(GOLDEN.to_vec(), true), (payload, false)] {
            let response = decode(payload.into()).expect("a payload");
            assert_eq!(response.status(), StatusCode::CREATED);
            assert_eq!(response.headers(), &parts(lines).headers);
            assert_eq!(whole(response.into_body()), (Bytes::from_static(b"\0body"), told));
        }
    }

    #[test]
    fn what_belongs_to_the_connection_is_left_out() {
        let head = head(&[
            ("connection", b"close, X-Hop"),
            ("x-hop", b"1"),
            ("keep-alive", b"timeout=5"),
            ("transfer-encoding", b"chunked"),
            ("date", b"Sun, 22 Nov 2026 00:00:00 GMT"),
            ("etag", b"\"1\""),
        ]);
        let response = decode(head.into()).expect("a payload");
        assert_eq!(response.headers(), &parts(&[("etag", b"\"1\"")]).headers);
    }

    #[test]
    fn every_line_of_an_unstored_header_is_left_out() {
        let lines: &[(&str, &[u8])] = &[("set-cookie", b"a"), ("etag", b"\"1\""), ("set-cookie", b"b")];
        let head = encode_head(&parts(lines), &[HeaderName::from_static("set-cookie")], 0).expect("it fits");
        let response = decode(head.into()).expect("a payload");
        assert_eq!(response.headers(), &parts(&[("etag", b"\"1\"")]).headers);
    }

    #[test]
    fn a_payload_cut_short_or_of_another_version_is_none() {
        let head = head(&[("a", b"1")]);
        for len in 0..head.len() {
            assert!(decode(Bytes::copy_from_slice(&head[..len])).is_none(), "{len}");
        }
        for start in [[0, 1], [2, 1], [255, 0], [1, 2], [1, 255]] {
            let mut other = head.clone();
            other[..2].copy_from_slice(&start);
            assert!(decode(other.into()).is_none(), "{start:?}");
        }
        let mut no_status = head;
        no_status[2] = 0xFF;
        assert!(decode(no_status.into()).is_none());
    }

    #[test]
    fn more_lines_than_a_response_can_have_are_none() {
        let mut payload = vec![VERSION, TOLD, 0, 200, 0xFF, 0xFF];
        assert!(decode(payload.clone().into()).is_none());
        for line in 0..0xFFFF {
            let name = format!("x-{line}");
            payload.push(u8::try_from(name.len()).expect("it is short"));
            payload.extend_from_slice(name.as_bytes());
            payload.extend_from_slice(&[0; 4]);
        }
        assert!(decode(payload.into()).is_none());
    }

    fn any_name() -> impl Strategy<Value = HeaderName> {
        // A hop-by-hop one is not among them: each has another letter, or is no token of these.
        "[a-z0-9_~-]{0,8}x".prop_map(|name| name.parse().expect("a header name"))
    }

    fn any_value() -> impl Strategy<Value = HeaderValue> {
        let byte = prop_oneof![Just(b'\t'), b' '..=b'~', 128_u8..];
        vec(byte, 0..20).prop_map(|bytes| HeaderValue::from_bytes(&bytes).expect("a header value"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn every_status_line_and_byte_comes_back(
            status in 100_u16..=999,
            lines in vec((any_name(), any_value()), 0..6),
            body in vec(any::<u8>(), 0..50),
            told: bool,
        ) {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            for (name, value) in lines {
                response.headers_mut().append(name, value);
            }
            let parts = response.into_parts().0;
            let mut payload = encode_head(&parts, &[], 0).expect("it fits");
            payload.extend_from_slice(&body);
            if !told {
                mark_length_not_told(&mut payload);
            }
            let response = decode(payload.into()).expect("a payload");
            prop_assert_eq!(response.status(), parts.status);
            prop_assert_eq!(response.headers(), &parts.headers);
            prop_assert_eq!(whole(response.into_body()), (Bytes::from(body), told));
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes.into());
        }

        #[test]
        fn no_change_to_a_payload_makes_decoding_panic(
            changes in vec((0..GOLDEN.len(), any::<u8>()), 1..4),
            len in 0..=GOLDEN.len(),
        ) {
            let mut payload = GOLDEN.to_vec();
            for (at, byte) in changes {
                payload[at] = byte;
            }
            payload.truncate(len);
            let _ = decode(payload.into());
        }
    }
}
