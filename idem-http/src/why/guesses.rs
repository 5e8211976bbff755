//! In which part a request differs from the one that was stored.
//!
//! Owns the search for a small change that makes the request equal to the stored one. A fingerprint is one digest of all parts, so the
//! part that differs cannot be read from it. What can be done is to try the mistakes that clients make: another method, another media
//! type, a slash at the end of the path, another form of the same JSON. Does not own what a fingerprint covers:
//! [`fingerprint`](crate::fingerprint).

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use idem_core::Fingerprint;
use serde_json::Value;

use super::Guard;

/// A body above this length is tried with one change at a time, because each try hashes it.
const SMALL: usize = 64 * 1024;

/// What has to be changed to make a request equal to the stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guess {
    /// Nothing: the requests count as equal.
    Equal,
    /// The two fingerprints are of different schemes, or one is of no request, so that they are never compared.
    NotCompared,
    /// With these changes the requests would be equal.
    With(Vec<Change>),
    /// No change that was tried makes them equal. Most likely a value in the body differs.
    Unknown,
}

/// A change of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Another method.
    OtherMethod(&'static str),
    /// No query.
    NoQuery,
    /// A slash at the end of the path, or none.
    Slash,
    /// Another media type; empty for none.
    MediaType(&'static str),
    /// No content encoding.
    NoEncoding,
    /// Another form of the body, in words.
    BodyForm(&'static str),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMethod(method) => write!(f, "method {method}"),
            Self::NoQuery => f.write_str("no query"),
            Self::Slash => f.write_str("a slash at the end of the path, or none"),
            Self::MediaType("") => f.write_str("no media type"),
            Self::MediaType(media_type) => write!(f, "media type {media_type}"),
            Self::NoEncoding => f.write_str("no content encoding"),
            Self::BodyForm(form) => write!(f, "body {form}"),
        }
    }
}

/// The parts in which two requests differ, as far as they are compared: `method`, `path`, `query`, `media type`, `content encoding`
/// and `body`. Empty if they count as equal.
#[must_use]
pub fn differences(guard: &Guard, one: &Request<Bytes>, other: &Request<Bytes>) -> Vec<&'static str> {
    if !guard.fingerprint(one).differs_from(&guard.fingerprint(other)) {
        return Vec::new();
    }
    // One part of the other request after the other is put into the first one. A part that changes its fingerprint differs.
    let fingerprint = guard.fingerprint(one);
    let mut parts = Vec::new();
    for (name, put) in PARTS {
        let mut changed = one.clone();
        put(&mut changed, other);
        if guard.fingerprint(&changed) != fingerprint {
            parts.push(name);
        }
    }
    parts
}

type Put = fn(&mut Request<Bytes>, &Request<Bytes>);

const PARTS: [(&str, Put); 6] = [
    ("method", |one, other| *one.method_mut() = other.method().clone()),
    ("path", |one, other| {
        set_target(one, other.uri().path(), one.uri().clone().query());
    }),
    ("query", |one, other| {
        set_target(one, one.uri().clone().path(), other.uri().query());
    }),
    ("media type", |one, other| copy_header(one, other, &CONTENT_TYPE)),
    ("content encoding", |one, other| {
        copy_header(one, other, &CONTENT_ENCODING);
    }),
    ("body", |one, other| *one.body_mut() = other.body().clone()),
];

fn copy_header(one: &mut Request<Bytes>, other: &Request<Bytes>, name: &http::HeaderName) {
    one.headers_mut().remove(name);
    for line in other.headers().get_all(name) {
        one.headers_mut().append(name, line.clone());
    }
}

/// Sets path and query, if they make a URI.
fn set_target(request: &mut Request<Bytes>, path: &str, query: Option<&str>) {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if let Ok(uri) = target.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
}

/// Looks for the fewest changes of `request` that make its fingerprint the `stored` one.
///
/// ```
/// use http::Request;
/// use idem_core::Scope;
/// use idem_http::why::{Change, Guard, Guess, guess};
///
/// let guard = Guard::new("POST /orders", Scope::of("acme"));
/// let first = Request::post("/orders").body("{\"item\":7}".into())?;
/// let retry = Request::post("/orders").body("{ \"item\": 7 }\n".into())?;
/// let guess = guess(&guard, &retry, &guard.fingerprint(&first));
/// assert_eq!(guess, Guess::With(vec![Change::BodyForm("as JSON without white space")]));
/// # Ok::<(), http::Error>(())
/// ```
#[must_use]
pub fn guess(guard: &Guard, request: &Request<Bytes>, stored: &Fingerprint) -> Guess {
    let own = guard.fingerprint(request);
    if own == *stored {
        return Guess::Equal;
    }
    if !own.differs_from(stored) {
        return Guess::NotCompared;
    }
    let is_equal = |changes: &[&(Change, Request<Bytes>)]| {
        let mut changed = request.clone();
        for (change, variant) in changes {
            apply(&mut changed, *change, variant);
        }
        guard.fingerprint(&changed) == *stored
    };
    let variants = variants(request);
    if let Some(single) = variants.iter().find(|variant| is_equal(&[variant])) {
        return Guess::With(vec![single.0]);
    }
    if request.body().len() > SMALL {
        return Guess::Unknown;
    }
    for (at, first) in variants.iter().enumerate() {
        for second in &variants[at + 1..] {
            if is_equal(&[first, second]) {
                return Guess::With(vec![first.0, second.0]);
            }
        }
    }
    Guess::Unknown
}

/// Puts the part of `variant` that the change is about into `request`.
fn apply(request: &mut Request<Bytes>, change: Change, variant: &Request<Bytes>) {
    match change {
        Change::OtherMethod(_) => *request.method_mut() = variant.method().clone(),
        Change::NoQuery => set_target(request, request.uri().clone().path(), None),
        Change::Slash => set_target(request, variant.uri().path(), request.uri().clone().query()),
        Change::MediaType(_) => copy_header(request, variant, &CONTENT_TYPE),
        Change::NoEncoding => drop(request.headers_mut().remove(CONTENT_ENCODING)),
        Change::BodyForm(_) => *request.body_mut() = variant.body().clone(),
    }
}

/// The request with each change alone.
fn variants(request: &Request<Bytes>) -> Vec<(Change, Request<Bytes>)> {
    let mut variants = Vec::new();
    let mut add = |change, put: &dyn Fn(&mut Request<Bytes>)| {
        let mut variant = request.clone();
        put(&mut variant);
        variants.push((change, variant));
    };
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET"] {
        let changed = Method::from_bytes(method.as_bytes());
        if let Ok(changed) = changed.as_ref().map_err(drop)
            && changed != request.method()
        {
            add(Change::OtherMethod(method), &|variant| {
                *variant.method_mut() = changed.clone();
            });
        }
    }
    let uri = request.uri().clone();
    if uri.query().is_some() {
        add(Change::NoQuery, &|variant| set_target(variant, uri.path(), None));
    }
    let slashed = match uri.path().strip_suffix('/') {
        Some(path) => path.to_owned(),
        None => format!("{}/", uri.path()),
    };
    add(Change::Slash, &|variant| set_target(variant, &slashed, uri.query()));
    for media_type in MEDIA_TYPES {
        add(Change::MediaType(media_type), &|variant| {
            variant.headers_mut().remove(CONTENT_TYPE);
            if !media_type.is_empty() {
                variant
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            }
        });
    }
    if request.headers().contains_key(CONTENT_ENCODING) {
        add(Change::NoEncoding, &|variant| {
            drop(variant.headers_mut().remove(CONTENT_ENCODING));
        });
    }
    for (form, body) in bodies(request.body()) {
        add(Change::BodyForm(form), &|variant| *variant.body_mut() = body.clone());
    }
    variants
}

const MEDIA_TYPES: [&str; 6] = [
    "",
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "application/octet-stream",
    "application/xml",
];

/// Other forms of the same body.
fn bodies(body: &Bytes) -> Vec<(&'static str, Bytes)> {
    let mut forms: Vec<(&'static str, Bytes)> = Vec::new();
    if let Some(cut) = body.strip_suffix(b"\n") {
        forms.push(("without the line break at its end", body.slice_ref(cut)));
    }
    forms.push(("with a line break at its end", [body, &b"\n"[..]].concat().into()));
    if !body.is_empty() {
        forms.push(("that is empty", Bytes::new()));
    }
    if let Ok(mut json) = serde_json::from_slice::<Value>(body) {
        let written = |json: &Value, is_pretty: bool| {
            let written = if is_pretty {
                serde_json::to_vec_pretty(json)
            } else {
                serde_json::to_vec(json)
            };
            written.map(Bytes::from).unwrap_or_default()
        };
        forms.push(("as JSON without white space", compact(body)));
        json.sort_all_objects();
        forms.push(("as JSON without white space, its members sorted", written(&json, false)));
        forms.push(("as JSON with line breaks, its members sorted", written(&json, true)));
    }
    forms
}

/// JSON without the white space between its tokens.
fn compact(json: &[u8]) -> Bytes {
    let mut compact = Vec::with_capacity(json.len());
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in json {
        if in_string || !byte.is_ascii_whitespace() {
            compact.push(*byte);
        }
        match byte {
            b'"' if !is_escaped => in_string = !in_string,
            _ => {}
        }
        is_escaped = in_string && *byte == b'\\' && !is_escaped;
    }
    compact.into()
}

#[cfg(test)]
mod tests {
    use idem_core::Scope;

    use super::*;

    fn guard() -> Guard {
        Guard::new("POST /orders", Scope::of("acme"))
    }

    fn request(method: &str, target: &str, media_type: &str, body: &'static str) -> Request<Bytes> {
        let request = Request::builder().method(method).uri(target);
        let request = if media_type.is_empty() {
            request
        } else {
            request.header(CONTENT_TYPE, media_type)
        };
        request.body(Bytes::from_static(body.as_bytes())).expect("a request")
    }

    #[test]
    fn a_mistake_that_clients_make_is_found() {
        let json = "application/json";
        let first = request("POST", "/orders?a=1", json, "{\"b\":1,\"a\":\" \\\" \"}");
        let table = [
            (
                request("PUT", "/orders?a=1", json, "{\"b\":1,\"a\":\" \\\" \"}"),
                Change::OtherMethod("POST"),
            ),
            (
                request("POST", "/orders/?a=1", json, "{\"b\":1,\"a\":\" \\\" \"}"),
                Change::Slash,
            ),
            (
                request("POST", "/orders?a=1", "text/plain", "{\"b\":1,\"a\":\" \\\" \"}"),
                Change::MediaType(json),
            ),
            (
                request("POST", "/orders?a=1", json, "{\"b\":1,\"a\":\" \\\" \"}\n"),
                Change::BodyForm("without the line break at its end"),
            ),
            (
                request("POST", "/orders?a=1", json, "{ \"b\" : 1,\n \"a\": \" \\\" \" }"),
                Change::BodyForm("as JSON without white space"),
            ),
        ];
        let stored = guard().fingerprint(&first);
        for (retry, change) in table {
            assert_eq!(guess(&guard(), &retry, &stored), Guess::With(vec![change]));
        }
        let twice = request("PUT", "/orders/?a=1", json, "{\"b\":1,\"a\":\" \\\" \"}");
        assert_eq!(
            guess(&guard(), &twice, &stored),
            Guess::With(vec![Change::OtherMethod("POST"), Change::Slash])
        );
        let other = request("POST", "/orders?a=1", json, "{\"b\":2}");
        assert_eq!(guess(&guard(), &other, &stored), Guess::Unknown);
        assert_eq!(guess(&guard(), &first, &stored), Guess::Equal);
        assert_eq!(guess(&guard(), &first, &Fingerprint::NONE), Guess::NotCompared);
    }

    #[test]
    fn the_parts_in_which_two_requests_differ_are_named() {
        let one = request("POST", "/orders?a=1", "application/json", "{}");
        let table: [(Request<Bytes>, &[&str]); 6] = [
            (request("PUT", "/orders?a=1", "application/json", "{}"), &["method"]),
            (request("POST", "/other?a=1", "application/json", "{}"), &["path"]),
            (request("POST", "/orders?a=2", "application/json", "{}"), &["query"]),
            (request("POST", "/orders?a=1", "", "{}"), &["media type"]),
            (
                request("POST", "/orders", "application/json", "{ }"),
                &["query", "body"],
            ),
            (
                request("POST", "/orders?a=1", "application/json; charset=utf-8", "{}"),
                &[],
            ),
        ];
        for (other, parts) in table {
            assert_eq!(differences(&guard(), &one, &other), parts);
        }
    }

    #[test]
    fn a_mistake_in_a_large_body_is_found_among_single_changes() {
        let large: &'static str = Box::leak(" ".repeat(SMALL + 1).into_boxed_str());
        let first = request("POST", "/orders", "", large);
        let retry = request("PUT", "/orders", "", large);
        let stored = guard().fingerprint(&first);
        assert_eq!(
            guess(&guard(), &retry, &stored),
            Guess::With(vec![Change::OtherMethod("POST")])
        );
        let twice = request("PUT", "/orders/", "", large);
        assert_eq!(guess(&guard(), &twice, &stored), Guess::Unknown);
    }
}
