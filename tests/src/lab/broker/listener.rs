//! The loopback socket that consumers connect to.
//!
//! Owns the connections. Does not own what is delivered: `queue`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::message::{Delivered, Said};
use super::plan::Plan;
use super::queue::{Queue, Report};
use crate::lab::journal::Journal;

/// How often a connection looks for something to deliver.
const ROUND: Duration = Duration::from_millis(5);

/// A queue that listens until this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    queue: Shared,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Queue>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    pub(super) async fn start(plan: &Arc<Plan>, journal: &Journal) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let queue = Shared(Arc::new(Mutex::new(Queue::new(
            plan.clone(),
            journal.clone(),
            Instant::now(),
        ))));
        let accepting = tokio::spawn(accept(listener, queue.clone()));
        Self {
            address,
            queue,
            accepting,
        }
    }

    /// Waits until every message is acknowledged or set aside; `false` if that takes longer than `longest`.
    pub(super) async fn settle(&self, longest: Duration) -> bool {
        let since = Instant::now();
        loop {
            if self.queue.lock().is_settled(Instant::now()) {
                return true;
            }
            if since.elapsed() > longest {
                return false;
            }
            sleep(ROUND).await;
        }
    }

    /// Delivers every message again whose result has not expired.
    pub(super) fn replay(&self) {
        self.queue.lock().replay(Instant::now());
    }

    pub(super) fn report(&self) -> Report {
        self.queue.lock().report()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, queue: Shared) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let queue = queue.clone();
        connections.spawn(async move {
            // The consumer has died.
            let _broken = Connection::of(socket, queue).attend().await;
        });
    }
}

/// The connection to one consumer, which has one batch at a time.
struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writing: OwnedWriteHalf,
    queue: Shared,
    batch: Option<usize>,
}

impl Connection {
    fn of(socket: TcpStream, queue: Shared) -> Self {
        let (reading, writing) = socket.into_split();
        let lines = BufReader::new(reading).lines();
        Self {
            lines,
            writing,
            queue,
            batch: None,
        }
    }

    async fn attend(&mut self) -> io::Result<()> {
        let Said::Hello { consumer } = said(self.lines.next_line().await?)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        loop {
            let delivered = self.next_batch(&consumer).await?;
            self.batch = Some(delivered.batch);
            let mut line = serde_json::to_vec(&delivered)?;
            line.push(b'\n');
            self.writing.write_all(&line).await?;
            while let Some(batch) = self.batch {
                match said(self.lines.next_line().await?)? {
                    Said::Extend { number, .. } => self.queue.lock().extend(batch, number, Instant::now()),
                    Said::Done { answers, .. } => {
                        self.batch = None;
                        self.queue.lock().done(batch, &answers, Instant::now());
                    }
                    Said::Hello { .. } => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
    }

    async fn next_batch(&mut self, consumer: &str) -> io::Result<Delivered> {
        loop {
            let delivered = self.queue.lock().take(consumer, Instant::now());
            if let Some(delivered) = delivered {
                return Ok(delivered);
            }
            tokio::select! {
                // It has nothing to say.
                line = self.lines.next_line() => {
                    let _unasked = said(line?)?;
                }
                () = sleep(ROUND) => {}
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(batch) = self.batch {
            self.queue.lock().lose(batch, Instant::now());
        }
    }
}

fn said(line: Option<String>) -> io::Result<Said> {
    let line = line.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_str(&line)?)
}
