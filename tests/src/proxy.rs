//! A TCP proxy that can fall silent, become slow, and hang up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes connections on to a server, until told otherwise; it stops when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    server: watch::Sender<SocketAddr>,
    orders: watch::Sender<Orders>,
    passed: Arc<Passed>,
    accepting: JoinHandle<()>,
}

/// What has come, passed on or not.
#[derive(Debug, Default)]
struct Passed {
    /// How often bytes have come from clients.
    messages: AtomicU64,
    to_server: AtomicU64,
    to_clients: AtomicU64,
}

/// What connections have been told so far. Each one obeys what was said after it was opened.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    silenced: u32,
    cut: u32,
    /// How long each chunk of bytes is held back.
    latency: Duration,
}

impl Proxy {
    /// Starts a proxy of the server at `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let orders = watch::Sender::new(Orders::default());
        let told = orders.clone();
        let passed = Arc::<Passed>::default();
        let counted = passed.clone();
        let server = watch::Sender::new(server);
        let leads_to = server.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = *leads_to.borrow();
                tokio::spawn(pass_on(client, server, told.subscribe(), counted.clone()));
            }
        });
        Self {
            address,
            server,
            orders,
            passed,
            accepting,
        }
    }

    /// How many bytes have come from clients.
    pub fn bytes_to_server(&self) -> u64 {
        self.passed.to_server.load(Ordering::Relaxed)
    }

    /// How many messages have come from clients: of a client that waits for each answer, round trips.
    pub fn messages_to_server(&self) -> u64 {
        self.passed.messages.load(Ordering::Relaxed)
    }

    /// How many bytes have come from the server.
    pub fn bytes_to_clients(&self) -> u64 {
        self.passed.to_clients.load(Ordering::Relaxed)
    }

    /// Passes nothing on any more over the connections there are, without closing them. New ones work.
    pub fn silence_connections(&self) {
        self.orders.send_modify(|orders| orders.silenced += 1);
    }

    /// Closes the connections there are. New ones work.
    pub fn cut_connections(&self) {
        self.orders.send_modify(|orders| orders.cut += 1);
    }

    /// Leads new connections to another server. Those there are stay where they are.
    pub fn lead_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// Holds back each chunk of bytes for so long, in both directions, on all connections.
    pub fn slow_down(&self, latency: Duration) {
        self.orders.send_modify(|orders| orders.latency = latency);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass_on(mut client: TcpStream, server: SocketAddr, mut orders: watch::Receiver<Orders>, passed: Arc<Passed>) {
    // Where the server is away, the client's connection breaks as well.
    let Ok(mut upstream) = TcpStream::connect(server).await else {
        return;
    };
    let at_first = *orders.borrow_and_update();
    let latency = orders.clone();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = upstream.split();
    let count_to_server = |bytes| {
        passed.messages.fetch_add(1, Ordering::Relaxed);
        passed.to_server.fetch_add(bytes, Ordering::Relaxed);
    };
    let count_to_client = |bytes| {
        passed.to_clients.fetch_add(bytes, Ordering::Relaxed);
    };
    let both = async {
        tokio::join!(
            pass_chunks(from_client, to_server, &latency, count_to_server),
            pass_chunks(from_server, to_client, &latency, count_to_client)
        );
    };
    tokio::select! {
        () = both => return,
        ordered = orders.wait_for(|now| now.cut != at_first.cut || now.silenced != at_first.silenced) => {
            if ordered.is_err() {
                return;
            }
        }
    }
    // A silent one is held open and left alone until it is cut, or the proxy goes.
    let _ = orders.wait_for(|now| now.cut != at_first.cut).await;
}

/// Copies one direction to its end.
async fn pass_chunks(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    orders: &watch::Receiver<Orders>,
    count: impl Fn(u64),
) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        count(length.try_into().unwrap_or_default());
        let latency = orders.borrow().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
