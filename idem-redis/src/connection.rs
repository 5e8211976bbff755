//! The backend's connection to Redis: one server, or a cluster.
//!
//! Owns the choice between the two, the conversion of errors, and the check of the servers' configuration after the first
//! answer. Does not own links, nor routing in a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use idem_core::{BackendError, BackendErrorKind, Changed};
use redis::cluster_routing::Slot;
use redis::{Cmd, FromRedisValue, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::check;
use crate::client::{Address, RedisClient};
use crate::cluster::Cluster;
use crate::completions::Completing;
use crate::error::{backend_error, not_opened, start_error};
use crate::link::Link;
use crate::scripts::{self, Script};
use crate::server::{Lane, Server, TargetSlot};
use crate::topology::{self, Range};

/// The part of the backend that all requests share. Clones share it too.
#[derive(Clone)]
pub(crate) struct Connection {
    to: To,
    is_cluster: bool,
    has_sentinels: bool,
    is_checked: Arc<AtomicBool>,
}

#[derive(Clone)]
enum To {
    Server(Server),
    Cluster(Cluster),
}

impl Connection {
    /// A connection that the first call opens.
    pub(crate) fn new(client: RedisClient) -> Result<Self, BackendError> {
        let (is_cluster, has_sentinels) = (client.is_cluster(), client.has_sentinels());
        let to = match client.nodes() {
            Some(nodes) => To::Cluster(Cluster::new(nodes).map_err(start_error)?),
            None => To::Server(Server::new(client)),
        };
        Ok(Self {
            to,
            is_cluster,
            has_sentinels,
            is_checked: Arc::default(),
        })
    }

    /// Connects now.
    pub(crate) async fn open(&self) -> Result<(), BackendError> {
        let opened = match &self.to {
            To::Server(server) => match server.open().await {
                Ok(mut link) => link.can_be_told().await,
                Err(error) => Err(error),
            },
            To::Cluster(cluster) => cluster.open().await,
        };
        opened.map_err(start_error)?;
        if !self.is_checked.swap(true, Ordering::Relaxed) {
            check::warn_about(self).await;
        }
        Ok(())
    }

    /// Sends a command about the record under `key`.
    pub(crate) async fn query<T: FromRedisValue>(
        &self,
        what: &'static str,
        key: &str,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        self.send(what, Lane::Small, key, None, command).await
    }

    /// Does the same for a large command or answer. If `script` is given, `command` runs that script. Sends `true` to `begins`
    /// when the transfer begins.
    pub(crate) async fn query_large<T: FromRedisValue>(
        &self,
        what: &'static str,
        key: &str,
        script: Option<&Script>,
        command: &Cmd,
        begins: &watch::Sender<bool>,
    ) -> Result<T, BackendError> {
        self.send(what, Lane::Large(begins), key, script, command).await
    }

    /// Does the same, with an error that several callers can share.
    pub(crate) async fn fetch_large<T: FromRedisValue>(
        &self,
        key: &str,
        command: &Cmd,
        begins: &watch::Sender<bool>,
    ) -> RedisResult<T> {
        let answer = self.ask(Lane::Large(begins), key, None, command).await?;
        Ok(T::from_redis_value(answer)?)
    }

    /// Runs a script on the record under `key`; `command` is [`Script::on`] it, with its arguments.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        what: &'static str,
        key: &str,
        script: &Script,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        self.send(what, Lane::Small, key, Some(script), command).await
    }

    async fn send<T: FromRedisValue>(
        &self,
        what: &'static str,
        lane: Lane<'_>,
        key: &str,
        script: Option<&Script>,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        let answer = self.ask(lane, key, script, command).await;
        self.said(what, answer.and_then(|answer| Ok(T::from_redis_value(answer)?)))
    }

    async fn ask(&self, lane: Lane<'_>, key: &str, script: Option<&Script>, command: &Cmd) -> RedisResult<Value> {
        match &self.to {
            To::Server(server) => {
                let call = async |link: &Link| match script {
                    Some(script) => link.clone().invoke(key, script, command).await,
                    None => link.clone().query(key, command).await,
                };
                server.call(lane, self.place_of(key), call).await
            }
            // Boxed, so that the future of a command to one server does not have the size of this one.
            To::Cluster(cluster) => cluster.call(lane, key, script, command).boxed().await,
        }
    }

    /// Sends `commands` in one pipeline to the server, or to the primary that has the slot `place`. Errors of single commands are
    /// among the answers, one for each command. If `script` is given, some of the commands run that script.
    pub(crate) async fn pipeline(
        &self,
        what: &'static str,
        place: TargetSlot,
        script: Option<&Script>,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, BackendError> {
        let answers = match &self.to {
            To::Server(server) => {
                let call = async |link: &Link| link.clone().pipeline(place, script, commands).await;
                server.call(Lane::Small, place, call).boxed().await
            }
            To::Cluster(cluster) => {
                let slot = place.unwrap_or_else(|| Slot::for_key(""));
                cluster.pipeline(slot, script, commands).boxed().await
            }
        };
        self.said(what, answers)
    }

    /// Completes a claim. Returns the answer of [`scripts::COMPLETE`].
    pub(crate) async fn complete(&self, completing: Completing) -> Result<i64, BackendError> {
        let answer = match &self.to {
            To::Server(server) => {
                let target = self.place_of(completing.key());
                server.complete(target, completing).await
            }
            To::Cluster(cluster) => {
                let (script, command) = completing.command();
                let answer = cluster.call(Lane::Small, completing.key(), Some(script), &command);
                answer.boxed().await.and_then(scripts::first_of)
            }
        };
        self.said("completing", answer)
    }

    /// Subscribes to `channel`. A message that is sent after this call has resolved is not missed.
    pub(crate) async fn changed(&self, channel: String) -> Result<Changed, BackendError> {
        let changed = match &self.to {
            To::Server(server) => server.subscriptions().changed(channel).await,
            To::Cluster(cluster) => cluster.changed(channel).boxed().await,
        };
        changed.map_err(|error| backend_error("subscribing to a record", error))
    }

    /// Sends a command that is about no record to each primary, and returns the answers that arrived in time.
    pub(crate) async fn query_all(&self, command: &Cmd, patience: Duration) -> Result<Vec<Value>, BackendError> {
        let answers = match &self.to {
            To::Server(server) => {
                let call = async |link: &Link| link.clone().query_all(command).await;
                let answer = timeout(patience, server.call(Lane::Small, None, call)).await;
                answer.map(|answer| vec![answer]).unwrap_or_default()
            }
            To::Cluster(cluster) => {
                let answers = cluster.ask_all(command, patience).await;
                answers.map_err(|error| backend_error("asking the nodes", error))?
            }
        };
        let answers: RedisResult<Vec<_>> = answers.into_iter().collect();
        let answers = answers.map_err(|error| backend_error("asking the servers", error))?;
        if answers.is_empty() {
            return Err(BackendError::new(BackendErrorKind::Timeout, "no server answered"));
        }
        Ok(answers)
    }

    /// Reads which primary of a cluster has which slots. One server has none.
    pub(crate) async fn slots(&self) -> Result<Vec<Range>, BackendError> {
        const WHAT: &str = "reading the slot map";
        match &self.to {
            To::Cluster(cluster) => self.said(WHAT, cluster.ranges().await.map_err(not_opened)),
            To::Server(_) if self.is_cluster => {
                let mut command = redis::cmd("CLUSTER");
                command.arg("SLOTS");
                let answer = self.ask(Lane::Small, "", None, &command).await;
                // The application's client does not say which node has answered.
                let asked = Address {
                    host: String::new(),
                    port: 0,
                };
                self.said(WHAT, answer.and_then(|answer| topology::ranges(answer, &asked)))
            }
            To::Server(_) => Ok(Vec::new()),
        }
    }

    /// Converts the result of a call. After the first answer, starts the check of the servers.
    fn said<T>(&self, what: &'static str, answer: RedisResult<T>) -> Result<T, BackendError> {
        let is_first = answer.is_ok() && !self.is_checked.load(Ordering::Relaxed);
        if is_first && !self.is_checked.swap(true, Ordering::Relaxed) {
            let connection = self.clone();
            tokio::spawn(async move { check::warn_about(&connection).await });
        }
        answer.map_err(|error| backend_error(what, error))
    }

    /// The slot of `key` in a cluster.
    pub(crate) fn place_of(&self, key: &str) -> TargetSlot {
        self.is_cluster.then(|| Slot::for_key(key))
    }

    /// Whether sentinels name the server.
    pub(crate) fn has_sentinels(&self) -> bool {
        self.has_sentinels
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.is_cluster
    }
}
