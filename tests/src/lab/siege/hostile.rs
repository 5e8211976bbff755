//! Clients that want nothing but harm.
//!
//! Owns the ways to attack. Each client does the same thing over and over, one connection at a time, on a socket of its own:
//! what no library for clients would do is the point. How many there are is fixed, as a limit on connections in front of
//! the service would have it: to hold back who sends more than its share is not what this project is for.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::Uri;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::lab::random::Random;
use crate::lab::service::REQUEST;
use crate::{Client, TENANT};

const MEBIBYTE: usize = 1 << 20;

/// For how long a client that never reads keeps its connection.
const STUBBORN: Duration = Duration::from_secs(5);
/// How long an attacker waits for an answer that it wants.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client does over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attack {
    /// Hangs up somewhere on the way of a request with a large answer.
    HangUp,
    /// Asks for one large answer with many others, and reads it.
    OneKey,
    /// Sends something else under a key whose answer is large.
    Mismatch,
    /// A new key each time, as fast as it is answered.
    ManyKeys,
    /// The largest bodies that are let in, and larger ones.
    LargeBodies,
    /// Asks for a large answer many times on one connection, and reads nothing.
    NeverRead,
}

impl Attack {
    /// Whoever attacks, each once.
    pub(super) fn all() -> Vec<Self> {
        let groups = [
            (Self::HangUp, 16),
            (Self::OneKey, 16),
            (Self::Mismatch, 8),
            (Self::ManyKeys, 8),
            (Self::LargeBodies, 4),
            (Self::NeverRead, 16),
        ];
        let attackers = groups.map(|(attack, count)| vec![attack; count]);
        attackers.concat()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HangUp => "hangs up",
            Self::OneKey => "floods one key",
            Self::Mismatch => "sends something else under a key",
            Self::ManyKeys => "floods many keys",
            Self::LargeBodies => "sends the largest bodies",
            Self::NeverRead => "never reads",
        }
    }
}

/// How attempts ended, each with how many.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<String, u64>);

impl Ends {
    fn count(&mut self, end: impl Into<String>) {
        *self.0.entry(end.into()).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        for (end, count) in other.0 {
            *self.0.entry(end).or_default() += count;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.0.iter()
    }
}

/// Attacks until it is over.
pub(super) async fn attack(client: &Client, attack: Attack, seed: u64, is_over: &AtomicBool) -> Ends {
    let mut random = Random::new(seed);
    let mut ends = Ends::default();
    for number in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let attacker = Attacker {
            client,
            name: format!("{seed} {number}"),
        };
        let end = match attack {
            Attack::HangUp => attacker.hang_up(&mut random).await,
            Attack::OneKey => attacker.ask(&large(&epoch(), "order", 0)).await,
            Attack::Mismatch => attacker.ask(&large(&epoch(), "another order", 0)).await,
            Attack::ManyKeys => attacker.ask(&attacker.small()).await,
            Attack::LargeBodies => attacker.send_much(&mut random).await,
            Attack::NeverRead => attacker.never_read(is_over).await,
        };
        match end {
            Ok(end) => ends.count(end),
            Err(error) => {
                ends.count(format!("connection: {}", error.kind()));
                // So that a service that cannot be reached is not only called.
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    ends
}

/// A request as it is written to a socket.
struct Sent {
    head: String,
    body: String,
}

/// One attempt.
struct Attacker<'a> {
    client: &'a Client,
    name: String,
}

/// The key of the second, so that there is something to run and to store all the time, and no more than a server can keep.
fn epoch() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("second {}", now.as_secs())
}

/// A request with an answer of a mebibyte, and `more` bytes of body.
fn large(key: &str, order: &str, more: usize) -> Sent {
    let body = json!({ "order": order, "takes": 50, "padding": MEBIBYTE, "more": "x".repeat(more) });
    request("/journaled/large", key, &body.to_string())
}

fn request(path: &str, key: &str, body: &str) -> Sent {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: besieged\r\nauthorization: Bearer {TENANT}\r\ncontent-type: application/json\r\n\
         idempotency-key: \"{key}\"\r\n{REQUEST}: {key}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Sent {
        head,
        body: body.to_owned(),
    }
}

impl Attacker<'_> {
    async fn connect(&self) -> io::Result<TcpStream> {
        let uri: Uri = self.client.base().parse().expect("a URL");
        let port = uri.port_u16().expect("a port");
        TcpStream::connect(("127.0.0.1", port)).await
    }

    /// A request with a small answer, under a key of its own.
    fn small(&self) -> Sent {
        request("/orders", &self.name, &json!({ "order": "small" }).to_string())
    }

    /// Sends a request and reads its answer.
    async fn ask(&self, sent: &Sent) -> io::Result<String> {
        let mut stream = self.connect().await?;
        stream.write_all(sent.head.as_bytes()).await?;
        stream.write_all(sent.body.as_bytes()).await?;
        answer(&mut stream).await
    }

    /// Hangs up at one of the points of a request: within its head, within its body, once it is sent, a moment later, at the first
    /// byte of its answer, and in the middle of it.
    async fn hang_up(&self, random: &mut Random) -> io::Result<String> {
        // A key of its own now and then, the key of the second mostly: what others ask for too.
        let key = if random.one_in(50) { self.name.clone() } else { epoch() };
        let sent = large(&key, "order", 0);
        // So that an answer which is shorter than the part that is read of it ends.
        let head = sent.head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        let mut stream = self.connect().await?;
        let point = random.below(6);
        let (half, whole) = (head.len() / 2, head.len());
        stream
            .write_all(&head.as_bytes()[..if point == 0 { half } else { whole }])
            .await?;
        if point == 0 {
            return Ok("within the head".to_owned());
        }
        let body = sent.body.as_bytes();
        stream
            .write_all(&body[..if point == 1 { body.len() / 2 } else { body.len() }])
            .await?;
        Ok(match point {
            1 => "within the body",
            2 => "once the request was sent",
            3 => {
                sleep(random.millis(1, 80)).await;
                "a moment later"
            }
            4 => {
                timeout(PATIENCE, stream.read_u8()).await??;
                "at the first byte of the answer"
            }
            _ => {
                let mut some = vec![0; 100_000];
                match timeout(PATIENCE, stream.read_exact(&mut some)).await? {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "after a short answer",
                    read => read.map(|_| "within the answer")?,
                }
            }
        }
        .to_owned())
    }

    /// As much as is let in, under a key that others use for something else, and more than that under a key of its own.
    async fn send_much(&self, random: &mut Random) -> io::Result<String> {
        let sent = match random.below(3) {
            0 => large(&epoch(), "order", 3 * MEBIBYTE),
            1 => large(&self.name, "order", 3 * MEBIBYTE),
            _ => large(&epoch(), "order", 2 * MEBIBYTE - 1_000),
        };
        let mut stream = self.connect().await?;
        stream.write_all(sent.head.as_bytes()).await?;
        // It may be refused while it is sent, and the answer be there before the connection breaks.
        let written = stream.write_all(sent.body.as_bytes()).await;
        match (answer(&mut stream).await, written) {
            (Ok(answer), _) => Ok(answer),
            (Err(error), Ok(())) | (Err(_), Err(error)) => Err(error),
        }
    }

    /// Asks for the large answer of the second ten times, and holds the connection without reading.
    async fn never_read(&self, is_over: &AtomicBool) -> io::Result<String> {
        let mut stream = self.connect().await?;
        let sent = large(&epoch(), "order", 0);
        for _ in 0..10 {
            // What the service does not take any more is not sent: it reads one request after the other.
            let write = async {
                stream.write_all(sent.head.as_bytes()).await?;
                stream.write_all(sent.body.as_bytes()).await
            };
            if timeout(Duration::from_millis(100), write).await.is_err() {
                break;
            }
        }
        let mut held = Duration::ZERO;
        while held < STUBBORN && !is_over.load(Ordering::Relaxed) {
            let step = Duration::from_millis(100);
            sleep(step).await;
            held += step;
        }
        Ok("held".to_owned())
    }
}

/// Reads an answer to its end, and says its status and code.
async fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let reading = async {
        let mut bytes = Vec::new();
        let mut whole = usize::MAX;
        while bytes.len() < whole {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if whole == usize::MAX {
                whole = length(&bytes).unwrap_or(usize::MAX);
            }
        }
        Ok(describe(&bytes))
    };
    timeout(PATIENCE, reading).await?
}

/// The length of an answer, once its head is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    Some(head + body.and_then(|body| body.parse::<usize>().ok()).unwrap_or_default())
}

/// Its status, and its code where it is a problem.
fn describe(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4_096)]);
    let status = text.get(9..12).unwrap_or_default();
    let code = text
        .split_once("\"code\":\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let replayed = if text.contains("idempotent-replayed: true") {
        ", replayed"
    } else {
        ""
    };
    let code = code.map(|(code, _)| format!(" {code}")).unwrap_or_default();
    format!("{status}{code}{replayed}")
}
