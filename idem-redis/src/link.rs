//! An open connection: to one server, to one node of a cluster, or to a cluster by a client of the application's own.
//!
//! Owns what differs between them: where a command goes, how a channel is subscribed to, and which failures end the
//! connection. Keeps nothing of its own; a clone is the same connection.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};

use tokio::time::timeout;

use crate::scripts::Script;

/// How long the server may take to confirm a subscription, or to give a sign of life.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a link may take to answer before something large is sent over it.
const AT_ONCE: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(crate) enum Link {
    Server(MultiplexedConnection),
    /// One node of a cluster, which has the keys of its slots and no others.
    Node(MultiplexedConnection),
    /// All nodes, by the routing of the application's client.
    Cluster(ClusterConnection),
}

impl Link {
    /// Whether commands are for one slot each.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Node(_) | Self::Cluster(_))
    }

    /// Sends a command about the record under `key`.
    ///
    /// An error among several answers is one of them.
    pub(crate) async fn query(&mut self, key: &str, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::Server(connection) | Self::Node(connection) => connection.send_packed_command(command).await?,
            // What a replica knows may be old, and the application's client may be set up to read from them. Boxed, so
            // that a command to one server needs no room for what this needs.
            Self::Cluster(connection) => {
                let routed = connection.route_command(command.clone(), to_primary_of(key));
                routed.boxed().await?
            }
        };
        match answer {
            Value::ServerError(error) => Err(error.into()),
            answer => Ok(answer),
        }
    }

    /// Sends a command that is about no record; to every primary, where there are several.
    pub(crate) async fn query_all<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Server(connection) | Self::Node(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Runs a script on the record under `key`, after having loaded it where the server does not know it yet.
    pub(crate) async fn invoke(&mut self, key: &str, script: &Script, command: &Cmd) -> RedisResult<Value> {
        match self.query(key, command).await {
            Err(error) if is_unknown(&error) => self.invoke_unknown(key, script, command).boxed().await,
            answer => answer,
        }
    }

    /// Runs a script that the server did not know a moment ago.
    async fn invoke_unknown(&mut self, key: &str, script: &Script, command: &Cmd) -> RedisResult<Value> {
        let load = async || self.query(key, &script.load()).await.map(drop);
        script.load_once(load).await?;
        match self.query(key, command).await {
            Err(error) if is_unknown(&error) => {
                // It was another server that it was made known to. Or the slot is on its way to another node, and what is
                // not there yet is asked for at that one.
                let () = self.query_all(&script.load()).await?;
                self.query(key, command).await
            }
            answer => answer,
        }
    }

    /// The same at a node that a slot is on its way to.
    pub(crate) async fn invoke_asking(
        &mut self,
        key: &str,
        script: Option<&Script>,
        command: &Cmd,
    ) -> RedisResult<Value> {
        match (self.query_asking(command).await, script) {
            (Err(error), Some(script)) if is_unknown(&error) => {
                self.query(key, &script.load()).await?;
                self.query_asking(command).await
            }
            (answer, _) => answer,
        }
    }

    /// Sends a command right behind the word that lets the node answer it, so that no other comes in between.
    async fn query_asking(&mut self, command: &Cmd) -> RedisResult<Value> {
        let (Self::Server(connection) | Self::Node(connection)) = self else {
            return Err((ErrorKind::Client, "the cluster client asks by itself").into());
        };
        let mut asking = redis::pipe();
        asking.cmd("ASKING").add_command(command.clone());
        let answer = connection.send_packed_commands(&asking, 1, 1).await?.pop();
        answer.unwrap_or(Value::Nil).extract_error()
    }

    /// Subscribes to each of the channels, and says how that went.
    pub(crate) async fn subscribe(&mut self, channels: &[&str]) -> Vec<RedisResult<()>> {
        match self {
            Self::Server(connection) => {
                let said = in_time(connection.subscribe(channels)).await;
                channels.iter().map(|_| said.clone()).collect()
            }
            Self::Node(_) | Self::Cluster(_) => self.each("SSUBSCRIBE", channels).await,
        }
    }

    /// Leaves each of the channels, and says how that went.
    pub(crate) async fn unsubscribe(&mut self, channels: &[&str]) -> Vec<RedisResult<()>> {
        match self {
            Self::Server(connection) => {
                let said = in_time(connection.unsubscribe(channels)).await;
                channels.iter().map(|_| said.clone()).collect()
            }
            Self::Node(_) | Self::Cluster(_) => self.each("SUNSUBSCRIBE", channels).await,
        }
    }

    /// Sends the command for each of the channels by itself: in a cluster, one command names the channels of one slot. It goes
    /// to the node of the record, for the client's own method may choose another node of the shard each time, and so leave
    /// where it never joined.
    async fn each(&self, command: &'static str, channels: &[&str]) -> Vec<RedisResult<()>> {
        let each = channels.iter().map(|channel| {
            let mut link = self.clone();
            let mut subscription = redis::cmd(command);
            subscription.arg(*channel);
            in_time(async move { confirm(channel, link.query(channel, &subscription).await?) })
        });
        join_all(each).await
    }

    /// Whether it can ever be told of a message. A cluster's link has the protocol of the application's client, which
    /// shows only in use.
    pub(crate) async fn can_be_told(&mut self) -> RedisResult<()> {
        match self {
            Self::Server(_) | Self::Node(_) => Ok(()),
            Self::Cluster(connection) => match in_time(connection.sunsubscribe("idem")).await {
                Err(error) if error.kind() == ErrorKind::InvalidClientConfig => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Asks for a sign of life. A refusal is one.
    pub(crate) async fn ping(&mut self) -> RedisResult<()> {
        in_time(self.query_all(&redis::cmd("PING"))).await
    }

    /// Whether what has `place` answers at once. A refusal is an answer.
    pub(crate) async fn is_alive(&mut self, place: Option<Slot>) -> bool {
        let ping = redis::cmd("PING");
        let asking = async {
            match (&mut *self, place) {
                (Self::Cluster(connection), Some(slot)) => {
                    let primary = Route::with_slot(slot, SlotAddr::Master);
                    let primary = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(primary));
                    connection.route_command(ping, primary).await
                }
                (link, _) => link.query_all(&ping).await,
            }
        };
        match timeout(AT_ONCE, asking).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => !self.is_ended_by(&error) && !self.is_made_doubtful_by(&error) && !error.is_io_error(),
            Err(_elapsed) => false,
        }
    }

    /// Whether this connection is of no use any more after `error`.
    pub(crate) fn is_ended_by(&self, error: &RedisError) -> bool {
        match self {
            Self::Server(_) | Self::Node(_) => error.is_unrecoverable_error() || error.is_timeout(),
            // After an answer that belongs to another question, all that follow may.
            Self::Cluster(_) => error.kind() == ErrorKind::UnexpectedReturnType,
        }
    }

    /// Whether `error` says that another connection may do better, where there is one to be had.
    pub(crate) fn is_made_doubtful_by(&self, error: &RedisError) -> bool {
        match self {
            // A primary that has become a replica, or has lost its own, stays so, and the name may lead elsewhere.
            Self::Server(_) | Self::Node(_) => {
                error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
                    || matches!(error.code(), Some("NOAUTH" | "NOREPLICAS"))
            }
            // It replaces connections to its nodes by itself when they break, and never when they are silent.
            Self::Cluster(_) => error.is_timeout(),
        }
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Bounds what no deadline of the engine's bounds.
async fn in_time<T>(call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let answer = timeout(PATIENCE, call).await;
    answer.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into()))
}

/// Checks that a confirmation is about this channel. A server that ends a subscription by itself says so in the same
/// words, which the client takes for the answer to what was asked last.
fn confirm(channel: &str, said: Value) -> RedisResult<()> {
    let about = match said {
        Value::Push { data, .. } => data.into_iter().next(),
        _ => None,
    };
    match about.map(String::from_redis_value) {
        Some(Ok(about)) if about == channel => Ok(()),
        _ => Err((ErrorKind::UnexpectedReturnType, "a confirmation of another channel").into()),
    }
}

fn to_primary_of(key: &str) -> RoutingInfo {
    let route = Route::with_key(key, SlotAddr::Master);
    RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route))
}
