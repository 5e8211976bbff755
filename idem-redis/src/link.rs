//! An open connection: to one server, to one node of a cluster, or to a cluster by the application's cluster client.
//!
//! Owns the differences between these: the target of a command, the way to subscribe, and the errors that end the connection.
//! A clone is the same connection. Does not own when a link is opened or replaced: [`server`](crate::server).

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

/// How long the server may take to confirm a subscription, or to answer a `PING`.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a link may take to answer the `PING` before a large value is sent over it.
const AT_ONCE: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(crate) enum Link {
    Server(MultiplexedConnection),
    /// One node of a cluster, which has the keys of its slots and no others.
    Node(MultiplexedConnection),
    /// All nodes; the application's client routes the commands.
    Cluster(ClusterConnection),
}

impl Link {
    /// Whether a command must be about one slot.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Node(_) | Self::Cluster(_))
    }

    /// Sends a command about the record under `key`.
    ///
    /// If the answer is an array, errors inside the array are part of the answer.
    pub(crate) async fn query(&mut self, key: &str, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::Server(connection) | Self::Node(connection) => connection.send_packed_command(command).await?,
            // To the primary: a replica may be behind, and the application's client may be configured to read from replicas.
            // Boxed, so that the future of a command to one server does not have the size of this one.
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

    /// Sends a command that is about no record, to every primary.
    pub(crate) async fn query_all<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Server(connection) | Self::Node(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Runs a script on the record under `key`. If the server does not know the script, loads it first.
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
                // The script was loaded on a different server than the one that runs it: the servers behind the link differ, or
                // the slot is being moved to another node.
                let () = self.query_all(&script.load()).await?;
                self.query(key, command).await
            }
            answer => answer,
        }
    }

    /// Runs a script, or sends a command, at a node that is importing the slot.
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

    /// Sends `ASKING` and the command in one pipeline, so that no other command comes in between.
    async fn query_asking(&mut self, command: &Cmd) -> RedisResult<Value> {
        let (Self::Server(connection) | Self::Node(connection)) = self else {
            return Err((ErrorKind::Client, "the cluster client asks by itself").into());
        };
        let mut asking = redis::pipe();
        asking.cmd("ASKING").add_command(command.clone());
        let answer = connection.send_packed_commands(&asking, 1, 1).await?.pop();
        answer.unwrap_or(Value::Nil).extract_error()
    }

    /// Sends `commands` in one pipeline to the server, or to the primary that has the slot `place`. Errors of single commands are
    /// among the answers. If the server does not know `script`, loads it and sends again the commands that run it.
    pub(crate) async fn pipeline(
        &mut self,
        place: Option<Slot>,
        script: Option<&Script>,
        commands: &[Cmd],
    ) -> RedisResult<Vec<Value>> {
        let mut answers = self.send_all(place, commands).await?;
        let Some(script) = script else { return Ok(answers) };
        let is_unknown = |answer: &Value| matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript));
        let unknown = answers.iter().enumerate().filter(|(_, answer)| is_unknown(answer));
        let unknown: Vec<usize> = unknown.map(|(at, _)| at).collect();
        if unknown.is_empty() {
            return Ok(answers);
        }
        for answer in self.send_all(place, &[script.load()]).await? {
            answer.extract_error()?;
        }
        let again: Vec<Cmd> = unknown.iter().filter_map(|at| commands.get(*at).cloned()).collect();
        for (at, answer) in unknown.into_iter().zip(self.send_all(place, &again).await?) {
            if let Some(unanswered) = answers.get_mut(at) {
                *unanswered = answer;
            }
        }
        Ok(answers)
    }

    async fn send_all(&mut self, place: Option<Slot>, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        let mut pipeline = redis::pipe();
        for command in commands {
            pipeline.add_command(command.clone());
        }
        match self {
            Self::Server(connection) | Self::Node(connection) => {
                connection.send_packed_commands(&pipeline, 0, commands.len()).await
            }
            Self::Cluster(connection) => {
                let primary = place.map_or(SingleNodeRoutingInfo::Random, primary_of);
                connection.route_pipeline(pipeline, 0, commands.len(), primary).await
            }
        }
    }

    /// Subscribes to each of the channels. Returns one result per channel.
    pub(crate) async fn subscribe(&mut self, channels: &[&str]) -> Vec<RedisResult<()>> {
        match self {
            Self::Server(connection) => {
                let said = in_time(connection.subscribe(channels)).await;
                channels.iter().map(|_| said.clone()).collect()
            }
            Self::Node(_) | Self::Cluster(_) => self.each("SSUBSCRIBE", channels).await,
        }
    }

    /// Unsubscribes from each of the channels. Returns one result per channel.
    pub(crate) async fn unsubscribe(&mut self, channels: &[&str]) -> Vec<RedisResult<()>> {
        match self {
            Self::Server(connection) => {
                let said = in_time(connection.unsubscribe(channels)).await;
                channels.iter().map(|_| said.clone()).collect()
            }
            Self::Node(_) | Self::Cluster(_) => self.each("SUNSUBSCRIBE", channels).await,
        }
    }

    /// Sends one command per channel, because in a cluster a command names the channels of one slot only.
    ///
    /// The command goes to the primary of the record. The client's own method may choose a different node of the shard each
    /// time, and so unsubscribe at a node where it has not subscribed.
    async fn each(&self, command: &'static str, channels: &[&str]) -> Vec<RedisResult<()>> {
        let each = channels.iter().map(|channel| {
            let mut link = self.clone();
            let mut subscription = redis::cmd(command);
            subscription.arg(*channel);
            in_time(async move { confirm(channel, link.query(channel, &subscription).await?) })
        });
        join_all(each).await
    }

    /// Checks that the link can receive messages. A cluster's link has the protocol of the application's client, and only a
    /// call shows which protocol that is.
    pub(crate) async fn can_be_told(&mut self) -> RedisResult<()> {
        match self {
            Self::Server(_) | Self::Node(_) => Ok(()),
            Self::Cluster(connection) => match in_time(connection.sunsubscribe("idem")).await {
                Err(error) if error.kind() == ErrorKind::InvalidClientConfig => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Sends a `PING`. A refusal shows that the server is alive, too.
    pub(crate) async fn ping(&mut self) -> RedisResult<()> {
        in_time(self.query_all(&redis::cmd("PING"))).await
    }

    /// Whether the server, or the primary of the slot `place`, answers at once. A refusal is an answer.
    pub(crate) async fn is_alive(&mut self, place: Option<Slot>) -> bool {
        let ping = redis::cmd("PING");
        let asking = async {
            match (&mut *self, place) {
                (Self::Cluster(connection), Some(slot)) => {
                    let primary = RoutingInfo::SingleNode(primary_of(slot));
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
            // This answer belongs to another command, so all later answers may as well.
            Self::Cluster(_) => error.kind() == ErrorKind::UnexpectedReturnType,
        }
    }

    /// Whether `error` says that another connection may succeed.
    pub(crate) fn is_made_doubtful_by(&self, error: &RedisError) -> bool {
        match self {
            // A primary that has become a replica, or has lost its replicas, may stay so. The host name may lead to another
            // server by now.
            Self::Server(_) | Self::Node(_) => {
                error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
                    || matches!(error.code(), Some("NOAUTH" | "NOREPLICAS"))
            }
            // The cluster client replaces broken connections to its nodes by itself, but not silent ones.
            Self::Cluster(_) => error.is_timeout(),
        }
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Limits a call that has no deadline of the engine.
async fn in_time<T>(call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let answer = timeout(PATIENCE, call).await;
    answer.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into()))
}

/// Checks that a confirmation is about this channel. If the server ends a subscription by itself, its message looks like a
/// confirmation, and the client takes it for the answer to the last command.
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
    RoutingInfo::SingleNode(primary_of(Slot::for_key(key)))
}

fn primary_of(slot: Slot) -> SingleNodeRoutingInfo {
    SingleNodeRoutingInfo::SpecificNode(Route::with_slot(slot, SlotAddr::Master))
}
