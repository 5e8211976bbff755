//! A request as an operator has it: as it was sent, or as a `curl` command.
//!
//! Owns the two forms. A request as it was sent is HTTP/1.1: the request line, header lines, an empty line, and the body up to the end
//! of the file. Does not send anything.

mod curl;

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use self::curl::of_curl;
use crate::exit::Failure;
use crate::file;

/// The most header lines of a request.
const MAX_LINES: usize = 256;

/// Reads a request from a file, or from standard input if there is none.
pub(crate) fn read(path: Option<&Path>) -> Result<Request<Bytes>, Failure> {
    let text = if let Some(path) = path.filter(|path| *path != Path::new("-")) {
        file::read(path)?
    } else {
        let mut text = Vec::new();
        let read = std::io::stdin().read_to_end(&mut text);
        read.map_err(|error| Failure::usage("standard input cannot be read").because(&error))?;
        text
    };
    let after_name = text.trim_ascii_start().strip_prefix(b"curl");
    let is_curl = after_name
        .and_then(|rest| rest.first())
        .is_some_and(u8::is_ascii_whitespace);
    if is_curl { of_curl(&text) } else { of_message(&text) }
}

/// A request as it was sent. Lines may end in a line feed alone, as editors write them.
fn of_message(text: &[u8]) -> Result<Request<Bytes>, Failure> {
    let unfit = |what: &str| Failure::usage(format!("the request cannot be read: {what}"));
    let text = text.trim_ascii_start();
    let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
    let mut parsed = httparse::Request::new(&mut lines);
    // Without an empty line at the end there is no body.
    let whole;
    let (head_len, text) = match parsed.parse(text) {
        Ok(httparse::Status::Complete(len)) => (len, text),
        Ok(httparse::Status::Partial) => {
            whole = [text.trim_ascii_end(), b"\r\n\r\n"].concat();
            lines = [httparse::EMPTY_HEADER; MAX_LINES];
            parsed = httparse::Request::new(&mut lines);
            match parsed.parse(&whole) {
                Ok(httparse::Status::Complete(len)) => (len, &whole[..]),
                Ok(httparse::Status::Partial) => return Err(unfit("it begins with no request line")),
                Err(error) => return Err(unfit(&error.to_string())),
            }
        }
        Err(error) => return Err(unfit(&error.to_string())),
    };
    let method = parsed.method.unwrap_or_default().as_bytes();
    let mut request = Request::new(Bytes::new());
    *request.method_mut() =
        Method::from_bytes(method).map_err(|error| unfit("no request can have its method").because(&error))?;
    *request.uri_mut() = target(parsed.path.unwrap_or_default())?;
    for line in parsed.headers.iter() {
        append(&mut request, line.name, line.value)?;
    }
    if request.headers().contains_key(TRANSFER_ENCODING) {
        return Err(unfit(
            "its body is in chunks; write the body as a whole, and leave `transfer-encoding` out",
        ));
    }
    let mut body = text.get(head_len..).unwrap_or_default();
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .map(|len| len.to_str().ok().and_then(|len| len.parse::<usize>().ok()));
    if let Some(len) = announced {
        let len = len.ok_or_else(|| unfit("its `content-length` is not a number"))?;
        // A line feed at the end is the editor's.
        body = body
            .get(..len)
            .ok_or_else(|| unfit("its body is shorter than `content-length` says"))?;
    }
    *request.body_mut() = Bytes::copy_from_slice(body);
    Ok(request)
}

fn append(request: &mut Request<Bytes>, name: &str, value: &[u8]) -> Result<(), Failure> {
    let unfit =
        |error: &dyn std::error::Error| Failure::usage("a header line of the request cannot be read").because(error);
    let name = HeaderName::try_from(name).map_err(|error| unfit(&error))?;
    let value = HeaderValue::from_bytes(value).map_err(|error| unfit(&error))?;
    request.headers_mut().append(name, value);
    Ok(())
}

/// Whether a URL begins with a scheme. There may be another URL in its query.
fn has_scheme(url: &str) -> bool {
    let is_scheme = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    url.split_once("://")
        .is_some_and(|(scheme, _)| !scheme.is_empty() && is_scheme(scheme))
}

/// Path and query. The host is not compared.
fn target(url: &str) -> Result<Uri, Failure> {
    let unfit = || Failure::usage("the request has no path");
    let path = match url.split_once("://").filter(|_| has_scheme(url)) {
        Some((_scheme, rest)) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None => url,
    };
    // A browser and `curl` leave the fragment out.
    let path = path.split('#').next().unwrap_or_default();
    let path = if path.starts_with('?') {
        format!("/{path}")
    } else {
        path.to_owned()
    };
    path.parse().map_err(|_invalid| unfit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, target, header lines and body.
    type Shown = (&'static str, &'static str, &'static [&'static str], &'static str);

    fn shown(request: &Request<Bytes>) -> (String, String, Vec<String>, String) {
        let mut lines: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        lines.sort();
        let body = String::from_utf8(request.body().to_vec()).expect("text");
        (request.method().to_string(), request.uri().to_string(), lines, body)
    }

    #[test]
    fn a_request_is_read_as_it_was_sent() {
        let text = b"POST /orders?a=1 HTTP/1.1\r\nhost: x\r\nidempotency-key: k-1\r\ncontent-length: 2\r\n\r\n{}\n";
        let request = of_message(text).expect("a request");
        let lines = ["content-length: 2", "host: x", "idempotency-key: k-1"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(
            shown(&request),
            ("POST".to_owned(), "/orders?a=1".to_owned(), lines, "{}".to_owned())
        );
        let nested = of_message(b"GET /a?to=http://other/b HTTP/1.1\r\n\r\n").expect("a request");
        assert_eq!(nested.uri(), "/a?to=http://other/b");
        let edited = of_message(b"\nDELETE /orders/7 HTTP/1.1\nidempotency-key: k\n").expect("a request");
        assert_eq!((edited.method(), edited.uri().path()), (&Method::DELETE, "/orders/7"));
        for text in [
            &b""[..],
            b"hello",
            b"POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\n{}",
            b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"\xFF\xFE",
        ] {
            assert!(of_message(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_curl_command_is_read_as_curl_would_send_it() {
        let table: [(&str, Shown); 9] = [
            ("curl http://h/a", ("GET", "/a", &[], "")),
            (
                "curl -sS -X PUT 'https://h:8080/a?b=1#c' -H 'Idempotency-Key: k 1' \\\n  --data-raw '{\"a\": 1}' -H content-type:application/json",
                (
                    "PUT",
                    "/a?b=1",
                    &["content-type: application/json", "idempotency-key: k 1"],
                    "{\"a\": 1}",
                ),
            ),
            (
                "curl -d a=1 --data b=2 --url=http://h",
                (
                    "POST",
                    "/",
                    &["content-type: application/x-www-form-urlencoded"],
                    "a=1&b=2",
                ),
            ),
            (
                "curl --json '{}' -u me:secret http://h/a",
                ("POST", "/a", &["content-type: application/json"], "{}"),
            ),
            ("curl -G -d a=1 http://h/a?b=2", ("GET", "/a?b=2&a=1", &[], "")),
            ("curl -fsSLG -d a=1 'http://h/a?b=2#c'", ("GET", "/a?b=2&a=1", &[], "")),
            ("curl -vX PUT http://h/a", ("PUT", "/a", &[], "")),
            ("curl -svXPUT http://h/a", ("PUT", "/a", &[], "")),
            (
                "curl -XDELETE -H 'content-type:' -dx http://h/a",
                ("DELETE", "/a", &[], "x"),
            ),
        ];
        for (command, (method, target, lines, body)) in table {
            let request = of_curl(command.as_bytes()).unwrap_or_else(|failure| panic!("{command}: {failure}"));
            let lines = lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
            assert_eq!(
                shown(&request),
                (method.to_owned(), target.to_owned(), lines, body.to_owned()),
                "{command}"
            );
        }
        for command in [
            "curl",
            "curl -X",
            "curl 'http://h",
            "curl --form a=b http://h",
            "curl http://a http://b",
            "curl --url http://a --url http://b",
            "curl -H \"idempotency-key: $KEY\" http://a",
            "curl -H name http://a",
            "curl -H @/no/such/file http://a",
        ] {
            assert!(of_curl(command.as_bytes()).is_err(), "{command}");
        }
    }
}
