//! A response as the bytes of a record's payload, version 1.
//!
//! Owns the layout; golden bytes below freeze it. Integers are big-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, 1 |
//! | 1..3 | status |
//! | 3..5 | number of header lines |
//! | per line | length of the name as u8, name, length of the value as u32, value |
//! | rest | body |
//!
//! Repeated lines are kept in order, and so are values that are not text.

use axum::body::Body;
use axum::http::header::{CONNECTION, DATE, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{Buf as _, Bytes};

const VERSION: u8 = 1;

/// The payload of a response up to its body, or `None` if it does not fit the layout.
pub(crate) fn encode_head(parts: &Parts) -> Option<Vec<u8>> {
    let lines = || parts.headers.iter().filter(|(name, _)| is_kept(name, &parts.headers));
    let mut payload = vec![VERSION];
    payload.extend_from_slice(&parts.status.as_u16().to_be_bytes());
    payload.extend_from_slice(&u16::try_from(lines().count()).ok()?.to_be_bytes());
    for (name, value) in lines() {
        payload.push(u8::try_from(name.as_str().len()).ok()?);
        payload.extend_from_slice(name.as_str().as_bytes());
        payload.extend_from_slice(&u32::try_from(value.len()).ok()?.to_be_bytes());
        payload.extend_from_slice(value.as_bytes());
    }
    Some(payload)
}

/// Whether a header belongs to the answer, and not to the connection or the moment it was sent in.
fn is_kept(name: &HeaderName, headers: &HeaderMap) -> bool {
    const LEFT_OUT: [HeaderName; 6] = [CONNECTION, DATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let hop_by_hop = || matches!(name.as_str(), "keep-alive" | "proxy-connection");
    !LEFT_OUT.contains(name) && !hop_by_hop() && !names(headers, name)
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
pub(crate) fn decode(mut payload: Bytes) -> Option<Response> {
    if payload.try_get_u8().ok()? != VERSION {
        return None;
    }
    let status = StatusCode::from_u16(payload.try_get_u16().ok()?).ok()?;
    let lines = payload.try_get_u16().ok()?;
    let mut headers = HeaderMap::with_capacity(lines.into());
    for _ in 0..lines {
        let name_len = payload.try_get_u8().ok()?;
        let name = HeaderName::from_bytes(&take(&mut payload, name_len.into())?).ok()?;
        let value_len = payload.try_get_u32().ok()?;
        let value = take(&mut payload, usize::try_from(value_len).ok()?)?;
        headers.append(name, HeaderValue::from_maybe_shared(value).ok()?);
    }
    let mut response = Response::new(Body::from(payload));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}

fn take(payload: &mut Bytes, len: usize) -> Option<Bytes> {
    (payload.len() >= len).then(|| payload.split_to(len))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn payloads_of_version_1_are_frozen() {
        let head = encode_head(&parts(&[("a", b"1"), ("b", b"\xFF"), ("a", b"")])).expect("it fits");
        assert_eq!(
            head,
            b"\x01\x00\xC9\x00\x03\x01a\0\0\0\x011\x01a\0\0\0\0\x01b\0\0\0\x01\xFF"
        );
    }

    #[tokio::test]
    async fn every_line_and_byte_comes_back() {
        let lines: &[(&str, &[u8])] = &[
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b=2"),
            ("x-latin", b"caf\xE9"),
            ("empty", b""),
        ];
        let head = encode_head(&parts(lines)).expect("it fits");
        let body = b"\0\xFF\r\n";
        let response = decode([head.as_slice(), body].concat().into()).expect("a payload");
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers(), &parts(lines).headers);
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .expect("in memory");
        assert_eq!(&bytes[..], body);
    }

    #[test]
    fn what_belongs_to_the_connection_is_left_out() {
        let head = encode_head(&parts(&[
            ("connection", b"close, X-Hop"),
            ("x-hop", b"1"),
            ("keep-alive", b"timeout=5"),
            ("transfer-encoding", b"chunked"),
            ("date", b"Sun, 22 Nov 2026 00:00:00 GMT"),
            ("etag", b"\"1\""),
        ]));
        let response = decode(head.expect("it fits").into()).expect("a payload");
        assert_eq!(response.headers(), &parts(&[("etag", b"\"1\"")]).headers);
    }

    #[test]
    fn a_payload_cut_short_or_of_another_version_is_none() {
        let head = encode_head(&parts(&[("a", b"1")])).expect("it fits");
        for len in 0..head.len() {
            assert!(decode(Bytes::copy_from_slice(&head[..len])).is_none(), "{len}");
        }
        let mut other = head.clone();
        other[0] = 2;
        assert!(decode(other.into()).is_none());
        let mut no_status = head;
        no_status[1] = 0xFF;
        assert!(decode(no_status.into()).is_none());
    }
}
