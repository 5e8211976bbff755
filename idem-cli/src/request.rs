//! A request as an operator has it: as it was sent, or as a `curl` command.
//!
//! Owns the two forms. A request as it was sent is HTTP/1.1: the request line, header lines, an empty line, and the body up to the end
//! of the file. Does not send anything.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::exit::Failure;

/// The most header lines of a request.
const MAX_LINES: usize = 256;

/// Reads a request from a file, or from standard input if there is none.
pub(crate) fn read(file: Option<&Path>) -> Result<Request<Bytes>, Failure> {
    let text = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => std::fs::read(file)
            .map_err(|error| Failure::usage(format!("{} cannot be read", file.display())).because(&error))?,
        None => {
            let mut text = Vec::new();
            let read = std::io::stdin().read_to_end(&mut text);
            read.map_err(|error| Failure::usage("standard input cannot be read").because(&error))?;
            text
        }
    };
    let is_curl = text.trim_ascii_start().starts_with(b"curl ");
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
    *request.method_mut() = Method::from_bytes(method).map_err(|error| unfit("its method").because(&error))?;
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
        .and_then(|len| len.to_str().ok()?.parse().ok());
    if let Some(len) = announced {
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

/// Path and query. The host is not compared.
fn target(url: &str) -> Result<Uri, Failure> {
    let unfit = || Failure::usage("the request has no path");
    let path = match url.split_once("://") {
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

/// The request that a `curl` command would send, as far as it is compared.
fn of_curl(text: &[u8]) -> Result<Request<Bytes>, Failure> {
    let text = std::str::from_utf8(text).map_err(|error| Failure::usage("the command is no text").because(&error))?;
    let words =
        shell_words::split(text).map_err(|error| Failure::usage("the command's quotation marks").because(&error))?;
    let mut curl = Curl::default();
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        curl.take(&word, &mut words)?;
    }
    curl.request()
}

/// What the words of a command have said so far.
#[derive(Default)]
struct Curl {
    method: Option<String>,
    url: Option<String>,
    lines: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    is_json: bool,
    is_query: bool,
    is_head: bool,
}

/// Options that take a value and do not change what is compared.
const IGNORED_WITH_VALUE: [&str; 20] = [
    "-u",
    "--user",
    "-o",
    "--output",
    "-m",
    "--max-time",
    "--connect-timeout",
    "--retry",
    "--retry-delay",
    "--retry-max-time",
    "--cacert",
    "--cert",
    "--key",
    "-x",
    "--proxy",
    "-w",
    "--write-out",
    "--resolve",
    "-c",
    "--cookie-jar",
];
/// Options without a value that do not change what is compared.
const IGNORED: [&str; 20] = [
    "-s",
    "--silent",
    "-S",
    "--show-error",
    "-sS",
    "-v",
    "--verbose",
    "-i",
    "--include",
    "-k",
    "--insecure",
    "-L",
    "--location",
    "-f",
    "--fail",
    "--fail-with-body",
    "--http1.1",
    "--http2",
    "-g",
    "--globoff",
];

impl Curl {
    fn take(&mut self, word: &str, words: &mut impl Iterator<Item = String>) -> Result<(), Failure> {
        let (option, attached) = split_option(word);
        let mut value = || {
            let value = attached.map(str::to_owned).or_else(|| words.next());
            value.ok_or_else(|| Failure::usage(format!("curl's {option} has no value")))
        };
        match option {
            "-X" | "--request" => self.method = Some(value()?),
            "--url" => self.url = Some(value()?),
            "-H" | "--header" => {
                let line = value()?;
                let (name, value) = line.split_once(':').unwrap_or((line.trim_end_matches(';'), ""));
                self.lines.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "-A" | "--user-agent" => self.line("user-agent", value()?),
            "-e" | "--referer" => self.line("referer", value()?),
            "-b" | "--cookie" => self.line("cookie", value()?),
            "-d" | "--data" | "--data-ascii" => self.add(&value()?, true)?,
            "--data-binary" => self.add(&value()?, false)?,
            "--data-raw" => self.append(value()?.into_bytes()),
            "--json" => {
                self.is_json = true;
                self.add(&value()?, false)?;
            }
            "-G" | "--get" => self.is_query = true,
            "-I" | "--head" => self.is_head = true,
            option if IGNORED_WITH_VALUE.contains(&option) => drop(value()?),
            option if IGNORED.contains(&option) => {}
            option if option.starts_with('-') && option.len() > 1 => {
                let text = format!(
                    "curl's option {option} is not known here; leave it out if it changes neither header lines nor body"
                );
                return Err(Failure::usage(text));
            }
            url if self.url.is_none() => self.url = Some(url.to_owned()),
            url => return Err(Failure::usage(format!("the command has a second URL: {url}"))),
        }
        Ok(())
    }

    fn line(&mut self, name: &str, value: String) {
        self.lines.push((name.to_owned(), value));
    }

    /// Adds to the body what follows `-d`: text, or the content of a file, from which `-d` takes out the line breaks.
    fn add(&mut self, text: &str, strips: bool) -> Result<(), Failure> {
        let Some(path) = text.strip_prefix('@') else {
            self.append(text.as_bytes().to_vec());
            return Ok(());
        };
        let read = std::fs::read(path);
        let mut read = read.map_err(|error| Failure::usage(format!("{path} cannot be read")).because(&error))?;
        if strips {
            read.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
        }
        self.append(read);
        Ok(())
    }

    fn append(&mut self, text: Vec<u8>) {
        match &mut self.body {
            Some(body) if self.is_json => body.extend(text),
            Some(body) => {
                body.push(b'&');
                body.extend(text);
            }
            None => self.body = Some(text),
        }
    }

    fn request(self) -> Result<Request<Bytes>, Failure> {
        let mut url = self.url.ok_or_else(|| Failure::usage("the command has no URL"))?;
        let mut body = self.body;
        if self.is_query
            && let Some(query) = body.take()
        {
            let mark = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{mark}{}", String::from_utf8_lossy(&query));
        }
        let method = match (&self.method, &body) {
            (Some(method), _) => method.as_str(),
            (None, _) if self.is_head => "HEAD",
            (None, Some(_)) => "POST",
            (None, None) => "GET",
        };
        let mut request = Request::new(Bytes::new());
        let named = Method::from_bytes(method.as_bytes());
        *request.method_mut() = named.map_err(|error| Failure::usage("the command's method").because(&error))?;
        *request.uri_mut() = target(&url)?;
        for (name, value) in &self.lines {
            // `-H 'name:'` takes a header line out.
            if !value.is_empty() {
                append(&mut request, name, value.as_bytes())?;
            }
        }
        let is_taken_out = self
            .lines
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if body.is_some() && !is_taken_out {
            let media_type = if self.is_json {
                "application/json"
            } else {
                "application/x-www-form-urlencoded"
            };
            request
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        *request.body_mut() = body.unwrap_or_default().into();
        Ok(request)
    }
}

/// An option, and the value that is written in the same word: `--url=…`, `-XPOST`.
fn split_option(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
    }
    let takes_value = ["-X", "-H", "-d", "-A", "-e", "-b", "-u", "-o", "-m", "-x", "-w", "-c"];
    match takes_value
        .iter()
        .find(|option| word.starts_with(**option) && word.len() > 2)
    {
        Some(_) => word
            .split_at_checked(2)
            .map_or((word, None), |(option, value)| (option, Some(value))),
        None => (word, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let table: [(&str, (&str, &str, &[&str], &str)); 6] = [
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
        ] {
            assert!(of_curl(command.as_bytes()).is_err(), "{command}");
        }
    }
}
