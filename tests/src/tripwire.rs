//! Kills a process at the n-th message that it sends or gets.
//!
//! Between two messages a process awaits nothing that others could see, so these are its await points.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Counts the messages on all connections that go through it, once it is armed.
#[derive(Clone, Debug, Default)]
pub struct Tripwire(Arc<Mutex<Option<(usize, u32)>>>);

impl Tripwire {
    /// An address that leads to `server`.
    pub async fn before(&self, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let tripwire = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    return;
                };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(tripwire.clone().pass_on(from_client, to_server));
                tokio::spawn(tripwire.clone().pass_on(from_server, to_client));
            }
        });
        address
    }

    /// Kills `process` after so many messages from now on. Every other one still arrives.
    pub fn arm(&self, messages: usize, process: u32) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((messages, process));
    }

    /// Kills nobody any more.
    pub fn disarm(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts a message, and kills if it was the one.
    fn count(&self) {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((left, process)) = armed.as_mut() else {
            return;
        };
        if *left > 0 {
            *left -= 1;
            return;
        }
        let kill = Command::new("kill").args(["-KILL", &process.to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()), "it could not be killed");
        *armed = None;
    }

    async fn pass_on(self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut message = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = from.read(&mut message).await {
            // It has been sent, so it arrives, whether or not its sender still lives.
            self.count();
            if to.write_all(&message[..len]).await.is_err() {
                return;
            }
        }
    }
}
