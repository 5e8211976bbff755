//! The carrier: a stub that ships what it is told to, and the call to it.
//!
//! Owns the list of calls and shipments, and the protocol: one line of JSON each way. It knows a call by its key, as real carriers do,
//! and answers a repeated one with the shipment of the first. It does not know orders: two calls with different keys are two
//! shipments, also of the same order, and the list shows them.
//!
//! Does not own when it is called.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// The address that no carrier finds.
pub const NOWHERE: &str = "nowhere";

/// The longest line that is read, in bytes.
const LONGEST: u64 = 4096;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// What the carrier is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Call {
    /// What the carrier knows a repeated call by.
    pub key: String,
    /// The order, which is printed on the parcel.
    pub order: String,
    /// Where to.
    pub address: String,
}

/// What the carrier says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is on its way.
    Shipped {
        /// The number of the shipment.
        shipment: u64,
    },
    /// It cannot be shipped there.
    NoSuchAddress,
}

/// Calls the carrier.
///
/// # Errors
///
/// If there is no answer. Whether the call has arrived is not known then.
pub async fn call(carrier: SocketAddr, call: &Call) -> io::Result<Answer> {
    let calling = async {
        let mut stream = BufReader::new(TcpStream::connect(carrier).await?);
        send(&mut stream, call).await?;
        receive(&mut stream).await
    };
    timeout(PATIENCE, calling).await?
}

async fn send(stream: &mut BufReader<TcpStream>, line: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn receive<T: DeserializeOwned>(stream: &mut BufReader<TcpStream>) -> io::Result<T> {
    let mut line = String::new();
    stream.take(LONGEST).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

/// What the carrier has done.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    calls: Vec<Call>,
    /// The order of each shipment. The number of a shipment is its place, from 1 on.
    shipments: Vec<String>,
    by_key: HashMap<String, u64>,
}

impl Ledger {
    fn take(&mut self, call: Call) -> Answer {
        let answer = if call.address == NOWHERE {
            Answer::NoSuchAddress
        } else {
            let shipments = &mut self.shipments;
            let shipment = *self.by_key.entry(call.key.clone()).or_insert_with(|| {
                shipments.push(call.order.clone());
                shipments.len() as u64
            });
            Answer::Shipped { shipment }
        };
        self.calls.push(call);
        answer
    }

    /// How often it was called.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// How many of the calls came again: with the order and the key of an earlier one.
    #[must_use]
    pub fn repeated_calls(&self) -> usize {
        self.calls.len() - counted(&self.calls).len()
    }

    /// How many parcels it has shipped.
    #[must_use]
    pub fn shipments(&self) -> usize {
        self.shipments.len()
    }

    /// How many parcels each order has got.
    #[must_use]
    pub fn by_order(&self) -> HashMap<&String, usize> {
        counted(&self.shipments)
    }

    /// How many orders it has shipped more than once.
    #[must_use]
    pub fn shipped_more_than_once(&self) -> usize {
        self.by_order().values().filter(|times| **times > 1).count()
    }
}

fn counted<T: Eq + std::hash::Hash>(values: &[T]) -> HashMap<&T, usize> {
    let mut counts = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

/// The running stub. Dropping it stops it.
#[derive(Debug)]
pub struct Carrier {
    addr: SocketAddr,
    ledger: Arc<watch::Sender<Ledger>>,
    holding: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Carrier {
    /// Starts a carrier on a free loopback port. It ships at once, and answers this much later: a process that dies in that time has
    /// had its effect, and has not recorded it.
    ///
    /// # Errors
    ///
    /// If it cannot listen.
    pub async fn start(answers_after: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let ledger = Arc::new(watch::Sender::new(Ledger::default()));
        let holding = watch::Sender::new(false);
        let counter = Counter {
            ledger: ledger.clone(),
            holds: holding.subscribe(),
            answers_after,
        };
        let serving = tokio::spawn(counter.serve(listener));
        Ok(Self {
            addr,
            ledger,
            holding,
            serving,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Keeps every answer back, or lets all of them go. What is asked for is shipped either way.
    pub fn hold_answers(&self, hold: bool) {
        self.holding.send_replace(hold);
    }

    /// What it has done so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger.borrow().clone()
    }

    /// Waits until it has been called this often.
    pub async fn called(&self, times: usize) {
        // The sender is here, so there is no error.
        let _ = self.ledger.subscribe().wait_for(|ledger| ledger.calls() >= times).await;
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Takes calls.
#[derive(Clone)]
struct Counter {
    ledger: Arc<watch::Sender<Ledger>>,
    holds: watch::Receiver<bool>,
    answers_after: Duration,
}

impl Counter {
    async fn serve(self, listener: TcpListener) {
        let mut callers = JoinSet::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let counter = self.clone();
                    callers.spawn(async move {
                        // A caller that has been killed gets no answer.
                        let _ = counter.answer(stream).await;
                    });
                    while callers.try_join_next().is_some() {}
                }
                Err(error) => {
                    tracing::warn!(%error, "no call can be taken");
                    // Often for want of files, which others have to give back first.
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    async fn answer(mut self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let call = receive(&mut stream).await?;
        let mut answer = Answer::NoSuchAddress;
        self.ledger.send_modify(|ledger| answer = ledger.take(call));
        sleep(self.answers_after).await;
        if self.holds.wait_for(|holds| !holds).await.is_err() {
            // The carrier is gone, and so is its answer.
            return Ok(());
        }
        send(&mut stream, &answer).await
    }
}
