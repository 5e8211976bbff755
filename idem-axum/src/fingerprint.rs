//! What makes two HTTP requests the same request (IDEM-3).
//!
//! Owns scheme 1: SHA-256 over method, path with query, media type and body, each preceded by its length so that no
//! two requests hash the same bytes. Request headers are outside it, for a retry may come through another proxy.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Uri};
use idem_core::Fingerprint;
use sha2::{Digest as _, Sha256};

const SCHEME: u8 = 1;

pub(crate) fn of(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Fingerprint {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let (media_type, parameters) = split_once(content_type, b';');
    let media_type = media_type.trim_ascii().to_ascii_lowercase();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let mut hash = Hash(Sha256::new());
    hash.part(method.as_str().as_bytes());
    hash.part(target.as_bytes());
    hash.part(&media_type);
    match boundary(&media_type, parameters) {
        Some(boundary) => hash.multipart(boundary, body),
        None => hash.part(body),
    }
    Fingerprint::new(SCHEME, hash.0.finalize().into())
}

struct Hash(Sha256);

impl Hash {
    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// What stands between the delimiters: the boundary itself is drawn anew each time a client encodes the form, so
    /// with it no honest retry would ever be equal.
    fn multipart(&mut self, boundary: &[u8], body: &[u8]) {
        let delimiter = [b"--", boundary].concat();
        let mut start = 0;
        for at in memchr::memmem::find_iter(body, &delimiter) {
            self.part(&body[start..at]);
            start = at + delimiter.len();
        }
        self.part(&body[start..]);
    }
}

/// The boundary of a multipart body.
fn boundary<'a>(media_type: &[u8], mut parameters: &'a [u8]) -> Option<&'a [u8]> {
    if !media_type.starts_with(b"multipart/") {
        return None;
    }
    while !parameters.is_empty() {
        let (parameter, rest) = split_once(parameters, b';');
        let (name, value) = split_once(parameter, b'=');
        if name.trim_ascii().eq_ignore_ascii_case(b"boundary") {
            let value = value.trim_ascii();
            let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            return Some(unquoted.unwrap_or(value)).filter(|boundary| !boundary.is_empty());
        }
        parameters = rest;
    }
    None
}

/// What comes before the first `separator`, and what comes after it.
fn split_once(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(separator, bytes) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, b""),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of_post(target: &'static str, content_type: &'static str, body: &[u8]) -> Fingerprint {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        of(&Method::POST, &Uri::from_static(target), &headers, body)
    }

    #[test]
    fn scheme_1_is_frozen() {
        // printf, with each length as eight bytes, of POST, /o?a=1, application/json, {}; through sha256sum
        let digest = of_post("/o?a=1", "application/json", b"{}").to_bytes();
        assert_eq!(digest[0], 1);
        let hex = digest[1..]
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(hex, "b36d02137cdca2f7850c24315eab36db23a7900a3a3788350933242e44e6ce3f");
    }

    #[test]
    fn every_part_of_the_request_counts() {
        let base = of_post("/o?a=1", "application/json", b"{}");
        let uri = Uri::from_static("/o?a=1");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        assert!(base.differs_from(&of(&Method::PUT, &uri, &headers, b"{}")));
        assert!(base.differs_from(&of(&Method::POST, &uri, &HeaderMap::new(), b"{}")));
        assert!(base.differs_from(&of_post("/o?a=2", "application/json", b"{}")));
        assert!(base.differs_from(&of_post("/p?a=1", "application/json", b"{}")));
        assert!(base.differs_from(&of_post("/o?a=1", "text/plain", b"{}")));
        assert!(base.differs_from(&of_post("/o?a=1", "application/json", b"{ }")));
    }

    #[test]
    fn how_a_content_type_is_written_does_not_count() {
        let base = of_post("/o", "application/json", b"{}");
        assert!(!base.differs_from(&of_post("/o", "Application/JSON; charset=utf-8", b"{}")));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert!(of_post("/o", "a", b"bc").differs_from(&of_post("/o", "ab", b"c")));
        assert!(of_post("/oa", "", b"").differs_from(&of_post("/o", "a", b"")));
    }

    #[test]
    fn a_form_encoded_again_with_another_boundary_is_the_same_request() {
        let form = |boundary: &str, value: &str| {
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n--{boundary}--\r\n")
        };
        let first = of_post("/o", "multipart/form-data; boundary=XyZ", form("XyZ", "1").as_bytes());
        let again = of_post(
            "/o",
            "Multipart/form-data; charset=x; Boundary=\"q-9\"",
            form("q-9", "1").as_bytes(),
        );
        let other = of_post("/o", "multipart/form-data; boundary=XyZ", form("XyZ", "2").as_bytes());
        assert!(!first.differs_from(&again));
        assert!(first.differs_from(&other));
    }
}
