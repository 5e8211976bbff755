//! A TCP proxy that can fall silent.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes connections on to a server, until told otherwise; it stops when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    generation: watch::Sender<u32>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy of the server at `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let generation = watch::Sender::new(0);
        let generations = generation.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, server, generations.subscribe()));
            }
        });
        Self {
            address,
            generation,
            accepting,
        }
    }

    /// Passes nothing on any more over the connections there are, without closing them. New ones work.
    pub fn silence_connections(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass_on(mut client: TcpStream, server: SocketAddr, mut generation: watch::Receiver<u32>) {
    let mut upstream = TcpStream::connect(server).await.expect("the server listens");
    generation.mark_unchanged();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut upstream) => {}
        // Held open and left alone for as long as the proxy lives.
        Ok(()) = generation.changed() => while generation.changed().await.is_ok() {},
    }
}
