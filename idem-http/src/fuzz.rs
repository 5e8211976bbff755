//! The functions that fuzz targets and micro benchmarks call: those that read bytes from outside.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use idem_core::Fingerprint;

use crate::fingerprint::{self, RequestHash};
use crate::{key, stored};

/// The key in a header line.
#[must_use]
pub fn key(line: &[u8], strict: bool) -> Option<String> {
    let line = HeaderValue::from_bytes(line).ok()?;
    let key = key::from_lines([Some(&line), None], strict).ok()?;
    key.map(Cow::into_owned)
}

/// The fingerprint of a request.
#[must_use]
pub fn fingerprint(content_type: &HeaderValue, body: &[u8]) -> Fingerprint {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.clone())]);
    let mut hash = RequestHash::new(&Method::POST, &Uri::from_static("/orders"), &headers);
    hash.update(body);
    fingerprint::of_request(hash.finish())
}

/// A payload as it is written after it was read.
#[must_use]
pub fn read_and_write(payload: &[u8]) -> Option<Vec<u8>> {
    let (parts, body) = stored::decode(Bytes::copy_from_slice(payload))?.into_parts();
    let mut written = stored::encode_head(&parts, &[], 0)?;
    if body.size_hint().exact().is_none() {
        stored::mark_length_not_told(&mut written);
    }
    let body = body.collect().now_or_never()?.ok()?;
    written.extend_from_slice(&body.to_bytes());
    Some(written)
}
