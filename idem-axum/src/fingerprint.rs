//! What makes two HTTP requests the same request (IDEM-3).
//!
//! Owns the schemes, each named by a number in the stored fingerprint; golden digests below freeze them.
//!
//! | scheme | SHA-256 of |
//! |---|---|
//! | 0 | nothing: such a request is not compared |
//! | 1 | method, path with query, media type and body, each preceded by its length so that no two requests hash the same bytes; of a multipart body, what stands between its delimiters |
//! | 2 | the serde form of the attribute's expression, as JSON without white space and with the members of maps sorted |
//!
//! Request headers are outside them, for a retry may come through another proxy. What schemes of a different number
//! made cannot be compared, and so does not differ.

use std::borrow::Cow;

use axum::http::{HeaderValue, Method, Uri};
use idem_core::Fingerprint;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const REQUEST: u8 = 1;
const VALUE: u8 = 2;

/// Scheme 2.
pub(crate) fn of_value(mut value: Value) -> Fingerprint {
    // Maps are sorted already, unless somebody turned on serde_json's `preserve_order`.
    value.sort_all_objects();
    Fingerprint::new(VALUE, Sha256::digest(value.to_string()).into())
}

/// Scheme 1.
pub(crate) fn of_request(method: &Method, uri: &Uri, content_type: Option<&HeaderValue>, body: &[u8]) -> Fingerprint {
    let content_type = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let (media_type, parameters) = split_once(content_type, b';');
    let media_type = lower_case(media_type.trim_ascii());
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let mut hash = Hash(Sha256::new());
    hash.part(method.as_str().as_bytes());
    hash.part(target.as_bytes());
    hash.part(&media_type);
    match boundary(&media_type, parameters) {
        Some(boundary) => hash.multipart(boundary, body),
        None => hash.part(body),
    }
    Fingerprint::new(REQUEST, hash.0.finalize().into())
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
        // Elsewhere than at the beginning of a line it is a part's own content.
        let begins_line = |at: &usize| *at == 0 || body[..*at].ends_with(b"\r\n");
        for at in memchr::memmem::find_iter(body, &delimiter).filter(begins_line) {
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

/// Copied only where it is not in lower case already, as nearly all clients send it.
fn lower_case(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    Cow::Borrowed(text)
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
    use super::*;

    fn of_post(target: &'static str, content_type: &'static str, body: &[u8]) -> Fingerprint {
        let content_type = HeaderValue::from_static(content_type);
        of_request(&Method::POST, &Uri::from_static(target), Some(&content_type), body)
    }

    fn hex(fingerprint: Fingerprint) -> String {
        let bytes = fingerprint.to_bytes();
        bytes
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }

    #[test]
    fn scheme_1_is_frozen() {
        // printf, with each length as eight bytes, of POST, /o?a=1, application/json, {}; through sha256sum
        assert_eq!(
            hex(of_post("/o?a=1", "application/json", b"{}")),
            "01b36d02137cdca2f7850c24315eab36db23a7900a3a3788350933242e44e6ce3f"
        );
        // The same of POST, /o, multipart/form-data, "", "\r\n\r\nx\r\n", "--\r\n"
        let form = b"--b\r\n\r\nx\r\n--b--\r\n";
        assert_eq!(
            hex(of_post("/o", "multipart/form-data; boundary=b", form)),
            "01da8aa2a669951e2be4e10c853238991f218014373ed3543cd85f0dbc78aa35df"
        );
    }

    #[test]
    fn scheme_2_is_frozen() {
        // printf '{"a":[1,2.5,null,"\\u0001"],"b":true}' through sha256sum
        let value = serde_json::json!({ "b": true, "a": [1, 2.5, null, "\u{1}"] });
        assert_eq!(
            hex(of_value(value)),
            "02c373e9e20d747e6ca36b730d8dd7464ad1ed8f9eef2d6331968b2a4db7fc1a69"
        );
    }

    #[test]
    fn every_part_of_the_request_counts() {
        let base = of_post("/o?a=1", "application/json", b"{}");
        let uri = Uri::from_static("/o?a=1");
        let content_type = HeaderValue::from_static("application/json");
        assert!(base.differs_from(&of_request(&Method::PUT, &uri, Some(&content_type), b"{}")));
        assert!(base.differs_from(&of_request(&Method::POST, &uri, None, b"{}")));
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

    #[test]
    fn what_looks_like_a_delimiter_inside_a_part_counts_as_content() {
        let form = |boundary: &str, content: &str| {
            let body = format!("--{boundary}\r\n\r\n{content}\r\n--{boundary}--\r\n");
            let content_type = format!("multipart/form-data; boundary={boundary}");
            let content_type = content_type.parse().expect("a header value");
            of_request(
                &Method::POST,
                &Uri::from_static("/o"),
                Some(&content_type),
                body.as_bytes(),
            )
        };
        assert!(form("X", "a--Xb").differs_from(&form("Y", "a--Yb")));
        assert!(!form("X", "a--Zb").differs_from(&form("Y", "a--Zb")));
    }

    #[test]
    fn the_order_of_members_does_not_count_and_that_of_elements_does() {
        let of = |text: &str| of_value(serde_json::from_str(text).expect("JSON"));
        let base = of(r#"{"a":[1,2],"b":{"c":1,"d":2}}"#);
        assert!(!base.differs_from(&of(r#"{"b":{"d":2,"c":1}, "a":[1,2]}"#)));
        assert!(base.differs_from(&of(r#"{"a":[2,1],"b":{"c":1,"d":2}}"#)));
        assert!(of("1").differs_from(&of("\"1\"")));
    }
}
