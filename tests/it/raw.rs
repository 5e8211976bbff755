//! A connection that tests write and read by hand, for requests that no client library sends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One request on a connection of its own.
pub(crate) struct Raw(TcpStream);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Raw {
    /// Begins a request of `path` with these header lines.
    pub(crate) async fn post(address: SocketAddr, path: &str, lines: &[&str]) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the service listens");
        let lines: String = lines.iter().flat_map(|line| [*line, "\r\n"]).collect();
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lines}\r\n");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        Self(stream)
    }

    /// The same, with a chunked body.
    pub(crate) async fn post_chunked(address: SocketAddr, path: &str, lines: &[&str]) -> Self {
        Self::post(address, path, &[lines, &["transfer-encoding: chunked"]].concat()).await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // A service that has answered already reads no more.
        let _written = self.0.write_all(bytes).await;
    }

    pub(crate) async fn chunk(&mut self, data: &[u8]) {
        let chunk = [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
        self.write(&chunk).await;
    }

    /// Reads until the service has closed the connection.
    pub(crate) async fn answer(mut self) -> Answered {
        let mut bytes = Vec::new();
        // A service that answers before it has read everything may reset the connection after that.
        let _end = self.0.read_to_end(&mut bytes).await;
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        Answered {
            status: status.expect("a status"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }
}
