//! The load: a process of its own that sends requests on several connections as fast as they are answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How many connections there are mostly, each with one request at a time.
pub(crate) const CONNECTIONS: u64 = 64;

/// Which keys requests carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Each its own.
    Unique,
    /// One of so many, all of which have been used before.
    Replayed(u64),
    /// One that is new and one that was used before, in turn.
    Mixed,
}

impl Keys {
    pub(crate) const ALL: [Self; 4] = [Self::Unique, Self::Replayed(1), Self::Replayed(10_000), Self::Mixed];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Replayed(1) => "replay-1",
            Self::Replayed(_) => "replay-10000",
            Self::Mixed => "mixed",
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) keys: Keys,
    pub(crate) connections: u64,
    /// How many bytes a request's body has, and its answer's.
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
    /// Tells the keys of one measurement from another's.
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Load {
    pub(crate) fn parse(arguments: &[&str]) -> Option<Self> {
        let [address, keys, connections, bytes, milliseconds, seed] = arguments else {
            return None;
        };
        Some(Self {
            address: address.parse().ok()?,
            keys: Keys::ALL.into_iter().find(|named| named.name() == *keys)?,
            connections: connections.parse().ok()?,
            bytes: bytes.parse().ok()?,
            time: Duration::from_millis(milliseconds.parse().ok()?),
            seed: seed.parse().ok()?,
        })
    }

    pub(crate) fn arguments(&self) -> [String; 7] {
        [
            "load".to_owned(),
            self.address.to_string(),
            self.keys.name().to_owned(),
            self.connections.to_string(),
            self.bytes.to_string(),
            self.time.as_millis().to_string(),
            self.seed.to_string(),
        ]
    }

    /// Sends requests for as long as asked for, and prints what came of them.
    pub(crate) async fn run(self) {
        if let Keys::Replayed(count) = self.keys {
            self.use_up(count).await;
        }
        let begun = Instant::now();
        let mut connections = JoinSet::new();
        for number in 0..self.connections {
            connections.spawn(self.send(number, begun + self.time));
        }
        let mut times = connections.join_all().await.concat();
        let elapsed = begun.elapsed();
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        let requests = times.len() as u64;
        let outcome = Outcome {
            requests,
            rate: f64::from(u32::try_from(requests).unwrap_or(u32::MAX)) / elapsed.as_secs_f64(),
            p50: microseconds(at(50)),
            p99: microseconds(at(99)),
        };
        println!("{}", serde_json::to_string(&outcome).expect("plain numbers"));
    }

    /// Lets every key that is going to be replayed have its first request.
    async fn use_up(self, count: u64) {
        let mut connections = JoinSet::new();
        for number in 0..CONNECTIONS {
            connections.spawn(async move {
                let mut connection = Connection::open(self.address, self.bytes).await;
                for key in (number..count).step_by(usize::try_from(CONNECTIONS).unwrap_or(1)) {
                    connection
                        .exchange("/orders", &format!("{}-old-{key}", self.seed))
                        .await;
                }
            });
        }
        connections.join_all().await;
    }

    /// One connection's requests, and how long each took.
    async fn send(self, connection: u64, until: Instant) -> Vec<Duration> {
        let mut times = Vec::new();
        let seed = self.seed;
        let mut http = Connection::open(self.address, self.bytes).await;
        for number in 0_u64.. {
            let key = match self.keys {
                Keys::Unique => format!("{seed}-{connection}-{number}"),
                Keys::Replayed(count) => format!("{seed}-old-{}", (number * self.connections + connection) % count),
                Keys::Mixed => format!("{seed}-{connection}-{}", number / 2),
            };
            let sent = Instant::now();
            http.exchange("/orders", &key).await;
            times.push(sent.elapsed());
            if Instant::now() >= until {
                break;
            }
        }
        times
    }
}

/// A connection that is kept alive, with as little work as can be: the load must not be what is measured.
pub(crate) struct Connection {
    stream: TcpStream,
    body: String,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, bytes: usize) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        // A string in JSON, quotation marks included.
        let body = format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)));
        let buffer = Vec::with_capacity(bytes + 4096);
        Self { stream, body, buffer }
    }

    /// Sends a request and reads its answer, which has to be a 201 of the same length.
    pub(crate) async fn exchange(&mut self, path: &str, key: &str) {
        let length = self.body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nidempotency-key: \
             {key}\r\ncontent-length: {length}\r\n\r\n{}",
            self.body
        );
        self.stream.write_all(request.as_bytes()).await.expect("it is open");
        self.buffer.clear();
        let mut missing = None;
        while missing.is_none_or(|end| self.buffer.len() < end) {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("it is open");
            assert_ne!(read, 0, "the server hung up");
            if missing.is_none() {
                let head = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
                missing = head.map(|head| head + 4 + length);
                // Any other answer has another length, and would be waited for.
                let status = self.buffer.get(9..12).unwrap_or_default();
                assert!(missing.is_none() || status == b"201", "{}", self.buffer.escape_ascii());
            }
        }
    }
}
