//! The connection to one server, and when to give up on it.
//!
//! Owns connecting, tuning and replacing. The client replaces a connection that breaks; this replaces one that is
//! silent, such as one that a firewall has forgotten, and one to a server that takes no writes any more. Does not know
//! what is sent over it.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use idem_core::{BackendError, BackendErrorKind};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _, RedisError, RedisResult, ScriptInvocation,
    ServerErrorKind,
};

use crate::check;
use crate::error::backend_error;
use crate::subscriptions::Subscriptions;

/// How many calls may be given up unanswered, with no answer in between, before the connection is.
const UNANSWERED: u32 = 3;

/// A connection that many requests share; clones share it too.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    client: Client,
    current: RwLock<Arc<Current>>,
    /// Started when somebody waits for the first time.
    subscriptions: OnceLock<Subscriptions>,
}

struct Current {
    manager: ConnectionManager,
    /// Calls that were given up on this connection since one was answered.
    unanswered: AtomicU32,
}

impl Current {
    fn new(manager: ConnectionManager) -> Arc<Self> {
        let unanswered = AtomicU32::new(0);
        Arc::new(Self { manager, unanswered })
    }

    /// Waits for the answer to a call, and notes whether one came.
    async fn answer_to<T>(&self, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let given_up = CountOnDrop(&self.unanswered);
        let answer = call.await;
        std::mem::forget(given_up);
        // A primary that has become a replica stays one, and the name may lead elsewhere by now.
        let is_useless = answer.as_ref().is_err_and(is_read_only);
        self.unanswered
            .store(if is_useless { UNANSWERED } else { 0 }, Ordering::Relaxed);
        answer
    }

    fn is_useless(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) >= UNANSWERED
    }
}

impl Connection {
    /// Connects once, and fails if that fails.
    pub(crate) async fn open(url: &str) -> Result<Self, BackendError> {
        let client = client(url).map_err(|error| {
            BackendError::new(BackendErrorKind::Config, "the Redis URL cannot be used").with_source(error)
        })?;
        let current = ConnectionManager::new_with_config(client.clone(), tuned())
            .await
            .map_err(|error| backend_error("connecting to Redis", error))?;
        let connection = Self(Arc::new(Shared {
            client,
            current: RwLock::new(Current::new(current)),
            subscriptions: OnceLock::new(),
        }));
        check::warn_about(&connection).await;
        Ok(connection)
    }

    pub(crate) async fn query<T: FromRedisValue>(&self, what: &'static str, command: &Cmd) -> Result<T, BackendError> {
        let current = self.current();
        let answer = current
            .answer_to(command.query_async(&mut current.manager.clone()))
            .await;
        answer.map_err(|error| backend_error(what, error))
    }

    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        what: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let current = self.current();
        let answer = current
            .answer_to(script.invoke_async(&mut current.manager.clone()))
            .await;
        answer.map_err(|error| backend_error(what, error))
    }

    /// Those who wait for messages, on a connection of their own.
    pub(crate) fn subscriptions(&self) -> Result<&Subscriptions, BackendError> {
        let Shared {
            client, subscriptions, ..
        } = self.0.as_ref();
        if let Some(started) = subscriptions.get() {
            return Ok(started);
        }
        let fresh = Subscriptions::start(client).map_err(|error| backend_error("starting to subscribe", error))?;
        // One that was started meanwhile is as good.
        Ok(subscriptions.get_or_init(|| fresh))
    }

    /// The connection to use now: another one if the last has been silent.
    fn current(&self) -> Arc<Current> {
        let Shared { client, current, .. } = self.0.as_ref();
        let now = current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !now.is_useless() {
            return now;
        }
        let mut current = current.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever held the lock before may have replaced it.
        if current.is_useless()
            && let Ok(fresh) = ConnectionManager::new_lazy_with_config(client.clone(), tuned())
        {
            tracing::warn!("Redis does not answer, or takes no writes, on this connection; opening another one");
            *current = Current::new(fresh);
        }
        current.clone()
    }
}

/// Counts a call whose caller did not wait for the answer.
struct CountOnDrop<'a>(&'a AtomicU32);

impl Drop for CountOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Sends each command at once, and lets the system notice that a peer is gone.
fn client(url: &str) -> RedisResult<Client> {
    let tcp = TcpSettings::default().set_nodelay(true);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(Duration::from_secs(2));
    Client::open(url.into_connection_info()?.set_tcp_settings(tcp))
}

/// Fails fast: 20 to 250 ms of back-off, two retries, 300 ms to connect. With the client's defaults, commands were
/// measured to hang for 4.3 s in an outage of 3 s; so tuned, for 0.1 s. Responses have no time-out of their own beside
/// the engine's deadline.
pub(crate) fn tuned() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(250))
        .set_number_of_retries(2)
        .set_connection_timeout(Some(Duration::from_millis(300)))
        .set_response_timeout(None)
}
