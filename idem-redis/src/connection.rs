//! The connection that commands go over, and when to give it up.
//!
//! Owns which [`Link`] is the current one: it opens one when somebody needs it, and another one when that has failed,
//! has gone silent, as one does that a firewall has forgotten, or leads to a server that takes no writes any more.
//! Does not know what is sent over it.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use idem_core::BackendError;
use redis::{Cmd, FromRedisValue, RedisError, RedisResult};

use crate::check;
use crate::client::RedisClient;
use crate::error::backend_error;
use crate::link::Link;
use crate::scripts::Script;
use crate::subscriptions::Subscriptions;

/// How many calls may be given up unanswered, with no answer in between, before the link is.
const UNANSWERED: u32 = 3;

/// A connection that many requests share; clones share it too.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Inner>);

struct Inner {
    client: RedisClient,
    current: RwLock<Arc<Current>>,
    /// Started when somebody waits for the first time.
    subscriptions: OnceLock<Subscriptions>,
}

/// One link, from the first try to open it to its end.
struct Current {
    link: Shared<BoxFuture<'static, RedisResult<Link>>>,
    has_ended: AtomicBool,
    /// Calls that were given up on this link since one was answered.
    unanswered: AtomicU32,
}

impl Current {
    /// Opens a link in a task of its own, so that it goes on when the call that needed it first is given up.
    fn open(client: &RedisClient) -> Arc<Self> {
        let client = client.clone();
        let opening = tokio::spawn(async move { client.open(None).await });
        let link = opening.map(|opened| opened.unwrap_or_else(|_| Err(RedisError::from(io::Error::other("aborted")))));
        Arc::new(Self {
            link: link.boxed().shared(),
            has_ended: AtomicBool::new(false),
            unanswered: AtomicU32::new(0),
        })
    }

    /// Makes a call, waits for its answer, and notes what it tells of the link.
    async fn call<T, F>(&self, call: impl FnOnce(Link) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let given_up = CountOnDrop(&self.unanswered);
        let opened = self.link.clone().await;
        let (answer, has_ended) = match opened {
            Ok(link) => {
                let answer = call(link.clone()).await;
                let has_ended = answer.as_ref().is_err_and(|error| link.is_ended_by(error));
                (answer, has_ended)
            }
            Err(error) => (Err(error), true),
        };
        std::mem::forget(given_up);
        self.unanswered.store(0, Ordering::Relaxed);
        if has_ended {
            self.has_ended.store(true, Ordering::Relaxed);
        }
        answer
    }

    fn is_useless(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed) || self.unanswered.load(Ordering::Relaxed) >= UNANSWERED
    }
}

impl Connection {
    /// Connects once, and fails if that fails.
    pub(crate) async fn open(client: RedisClient) -> Result<Self, BackendError> {
        let current = Current::open(&client);
        let opened = current.call(async |mut link: Link| link.can_be_told().await).await;
        opened.map_err(|error| backend_error("connecting to Redis", error))?;
        let connection = Self(Arc::new(Inner {
            client,
            current: RwLock::new(current),
            subscriptions: OnceLock::new(),
        }));
        check::warn_about(&connection).await;
        Ok(connection)
    }

    /// Sends a command about the record under `key`.
    pub(crate) async fn query<T: FromRedisValue>(
        &self,
        what: &'static str,
        key: &str,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        let call = async |mut link: Link| link.query(key, command).await;
        self.current()
            .call(call)
            .await
            .map_err(|error| backend_error(what, error))
    }

    /// Runs a script on the record under `key`; `command` is [`Script::on`] it, with its arguments.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        what: &'static str,
        key: &str,
        script: &Script,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        let call = async |mut link: Link| link.invoke(key, script, command).await;
        self.current()
            .call(call)
            .await
            .map_err(|error| backend_error(what, error))
    }

    /// Sends a command about no record, to each primary there is.
    pub(crate) async fn query_all<T: FromRedisValue>(
        &self,
        what: &'static str,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        let call = async |mut link: Link| link.query_all(command).await;
        self.current()
            .call(call)
            .await
            .map_err(|error| backend_error(what, error))
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.0.client.is_cluster()
    }

    /// The command that publishes: in a cluster, to the nodes of the record alone.
    pub(crate) fn publish(&self) -> &'static str {
        if self.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Those who wait for messages, on a link of their own.
    pub(crate) fn subscriptions(&self) -> &Subscriptions {
        let start = || Subscriptions::start(self.0.client.clone());
        self.0.subscriptions.get_or_init(start)
    }

    /// The link to use now: another one if the last is of no use any more.
    fn current(&self) -> Arc<Current> {
        let Inner { client, current, .. } = self.0.as_ref();
        let now = current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !now.is_useless() {
            return now;
        }
        let mut current = current.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever held the lock before may have replaced it.
        if current.is_useless() {
            tracing::debug!("the connection to Redis has failed, is silent or takes no writes; opening another one");
            *current = Current::open(client);
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
