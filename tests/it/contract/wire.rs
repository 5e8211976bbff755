//! Requests on the wire, over both versions of HTTP.
//!
//! Owns the bytes: HTTP/1.1 is written and read by hand, because a client library lets nothing malformed through. HTTP/2
//! is spoken by the tests' own client.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use idem_tests::{Answer, Client};
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::case::{Line, Request};

#[derive(Clone)]
pub(super) enum Wire {
    Http1(SocketAddr),
    Http2(Client),
}

impl Wire {
    /// Sends what `case` asks for and reads the whole answer; none if it is cut short.
    pub(super) async fn send(&self, case: &str, request: &Request) -> Option<Answer> {
        match self {
            Self::Http1(address) => {
                let mut stream = TcpStream::connect(address).await.expect("the service listens");
                stream.write_all(&written(case, request)).await.expect("it reads");
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).await.expect("an answer");
                read(&bytes, request.method == "HEAD")
            }
            Self::Http2(client) => {
                let method = Method::from_bytes(request.method.as_bytes()).expect("a method");
                let call = client.call(method, request.path);
                let mut call = match request.tenant {
                    Some(tenant) => call.tenant(&token(case, tenant)),
                    None => call.no_tenant(),
                };
                for line in &request.lines {
                    let Line::Field(name, value) = line else {
                        panic!("HTTP/2 has no lines")
                    };
                    call = call.header(name, value);
                }
                let pieces = request.body.chunks(PIECE).map(<[u8]>::to_vec).map(Ok::<_, Infallible>);
                let call = match request.chunked {
                    Some(_) => call.body(reqwest::Body::wrap_stream(stream::iter(pieces.collect::<Vec<_>>()))),
                    None => call.body(request.body.clone()),
                };
                call.try_send().await.ok()
            }
        }
    }
}

/// How much of a body goes into one piece.
const PIECE: usize = 1000;

fn token(case: &str, tenant: &str) -> String {
    format!("{case}|{tenant}")
}

fn written(case: &str, request: &Request) -> Vec<u8> {
    let mut bytes = format!(
        "{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n",
        request.method, request.path
    );
    if let Some(tenant) = request.tenant {
        bytes = bytes + "authorization: Bearer " + &token(case, tenant) + "\r\n";
    }
    let mut bytes = bytes.into_bytes();
    for line in &request.lines {
        match line {
            Line::Field(name, value) => bytes.extend([name.as_bytes(), b": ", value].concat()),
            Line::Raw(line) => bytes.extend_from_slice(line),
        }
        bytes.extend_from_slice(b"\r\n");
    }
    if let Some(trailers) = request.chunked {
        bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        for piece in request.body.chunks(PIECE) {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    } else {
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", request.body.len()).as_bytes());
        bytes.extend_from_slice(&request.body);
    }
    bytes
}

/// What a server sent on a connection that it has closed, if that is one whole answer.
fn read(bytes: &[u8], to_head: bool) -> Option<Answer> {
    let (head, body) = split_once(bytes, b"\r\n\r\n")?;
    let (status, mut lines) = split_once(head, b"\r\n").unwrap_or((head, b""));
    let status = status.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let mut headers = HeaderMap::new();
    while !lines.is_empty() {
        let (line, rest) = split_once(lines, b"\r\n").unwrap_or((lines, b""));
        let (name, value) = split_once(line, b":")?;
        let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
        headers.append(HeaderName::from_bytes(name).ok()?, value);
        lines = rest;
    }
    let status = StatusCode::from_bytes(status).ok()?;
    let length = headers
        .get("content-length")
        .map(|value| value.to_str().map(str::parse::<usize>));
    let body = if to_head || [204, 304].contains(&status.as_u16()) {
        body.is_empty().then(Vec::new)?
    } else if headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding == "chunked")
    {
        unchunked(body)?
    } else if let Some(length) = length {
        (length.ok()?.ok()? == body.len()).then(|| body.to_vec())?
    } else {
        body.to_vec()
    };
    let body = Bytes::from(body);
    Some(Answer { status, headers, body })
}

/// The data of a chunked body that has ended.
fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let (size, rest) = split_once(bytes, b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            return rest.ends_with(b"\r\n").then_some(data);
        }
        data.extend_from_slice(rest.get(..size)?);
        bytes = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}
