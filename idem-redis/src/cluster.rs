//! A cluster: each call goes to the node that has its slot.
//!
//! Owns the routing of calls, the reaction to a node that has lost a slot, and the time at which nodes are asked for the slot
//! map (`CLUSTER SLOTS`). Each node has links of its own, and the slot map is read in the background. So a silent node delays
//! only the calls about its own slots. Does not own the slot map itself: [`topology`](crate::topology).

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use idem_core::Changed;
use redis::cluster_routing::Slot;
use redis::{Client, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::error::not_opened;
use crate::link::Link;
use crate::scripts::Script;
use crate::server::{Lane, aborted};
use crate::topology::{Node, Range, Topology, ranges, redirection};

/// The most times that a call is sent, to other nodes or to the same node again. The last answer counts.
const HOPS: u32 = 5;

/// The pause before a call is repeated because its keys are being moved.
const PAUSE: Duration = Duration::from_millis(25);

/// If a node has not returned the slot map after this long, the next node is asked too.
const HEDGE: Duration = Duration::from_millis(100);

/// The limit for reading the slot map of one node, including opening a link to it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The shortest time between two readings of the slot map.
const EVERY: Duration = Duration::from_millis(500);

/// A cluster. Clones share its links and the slot map.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    topology: RwLock<Topology>,
    asking: Mutex<Option<Asking>>,
}

/// The last reading of the slot map.
struct Asking {
    begun: Instant,
    told: Told,
    task: JoinHandle<()>,
}

/// Resolves when a node has returned the slot map, or every node has failed.
type Told = Shared<BoxFuture<'static, RedisResult<()>>>;

impl Cluster {
    /// The cluster of these nodes. Nothing is sent yet.
    pub(crate) fn new(nodes: &[Client]) -> RedisResult<Self> {
        Ok(Self(Arc::new(Inner {
            topology: RwLock::new(Topology::new(nodes)?),
            asking: Mutex::default(),
        })))
    }

    /// Reads the slot map.
    pub(crate) async fn open(&self) -> RedisResult<()> {
        self.ask().await
    }

    /// Sends a command about the record under `key`. If `script` is given, `command` runs that script.
    pub(crate) async fn call(
        &self,
        lane: Lane<'_>,
        key: &str,
        script: Option<&Script>,
        command: &Cmd,
    ) -> RedisResult<Value> {
        let call = |node: Arc<Node>, is_asking| async move {
            let call = async |link: &Link| {
                let mut link = link.clone();
                match script {
                    _ if is_asking => link.invoke_asking(key, script, command).await,
                    Some(script) => link.invoke(key, script, command).await,
                    None => link.query(key, command).await,
                }
            };
            node.server.call(lane, None, call).await
        };
        self.route(Slot::for_key(key), call).await
    }

    /// Sends `commands` in one pipeline to the node that has `slot`, as [`Link::pipeline`] does.
    pub(crate) async fn pipeline(
        &self,
        slot: Slot,
        script: Option<&Script>,
        commands: &[Cmd],
    ) -> RedisResult<Vec<Value>> {
        let call = |node: Arc<Node>, _| async move {
            let call = async |link: &Link| link.clone().pipeline(None, script, commands).await;
            node.server.call(Lane::Small, None, call).await
        };
        self.route(slot, call).await
    }

    /// Subscribes to `channel` at the node of its record.
    pub(crate) async fn changed(&self, channel: String) -> RedisResult<Changed> {
        let call = |node: Arc<Node>, _| {
            let subscriptions = node.server.subscriptions();
            let channel = channel.clone();
            async move { subscriptions.changed(channel).await }
        };
        self.route(Slot::for_key(&channel), call).await
    }

    /// Makes a call at the node that has `slot`. If that node names another one, makes the call there.
    async fn route<T, F>(&self, slot: Slot, call: impl Fn(Arc<Node>, bool) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut node = self.owner(slot).await?;
        let mut is_asking = false;
        for hop in 1.. {
            let calling = Calling {
                cluster: self,
                node: &node,
            };
            let answer = call(node.clone(), is_asking).await;
            let error = match answer {
                Err(error) if hop < HOPS => error,
                answer => {
                    calling.ended(answer.as_ref().err());
                    return answer;
                }
            };
            calling.ended(Some(&error));
            is_asking = false;
            match (error.kind(), redirection(&error, &node.address)) {
                (ErrorKind::Server(ServerErrorKind::Ask), Some((_, address))) => {
                    is_asking = true;
                    node = self.change(|topology| topology.node(address))?;
                }
                (_, Some((slot, address))) => {
                    node = self.change(|topology| {
                        let owner = topology.node(address)?;
                        topology.moved(slot, &owner);
                        RedisResult::Ok(owner)
                    })?;
                }
                (ErrorKind::Server(ServerErrorKind::TryAgain), None) => sleep(PAUSE * hop).await,
                _ => return Err(error),
            }
        }
        Err(aborted())
    }

    /// The node that has `slot`. The first call reads the slot map.
    async fn owner(&self, slot: Slot) -> RedisResult<Arc<Node>> {
        if self.read(Topology::is_unknown) {
            self.ask().await.map_err(not_opened)?;
        }
        self.read(|topology| topology.owner(slot)).ok_or_else(|| {
            self.ask_in_background();
            (ServerErrorKind::ClusterDown.into(), "no node is known to have the slot").into()
        })
    }

    /// Sends a command to each node that has slots, and returns the answers that arrived in time.
    pub(crate) async fn ask_all(&self, command: &Cmd, patience: Duration) -> RedisResult<Vec<RedisResult<Value>>> {
        if self.read(Topology::is_unknown) {
            self.ask().await.map_err(not_opened)?;
        }
        let each = self.read(Topology::primaries).into_iter().map(|node| async move {
            let call = async |link: &Link| link.clone().query_all(command).await;
            timeout(patience, node.server.call(Lane::Small, None, call)).await
        });
        let answers = futures_util::future::join_all(each).await;
        Ok(answers.into_iter().flatten().collect())
    }

    fn read<T>(&self, read: impl FnOnce(&Topology) -> T) -> T {
        read(&self.0.topology.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Topology) -> T) -> T {
        change(&mut self.0.topology.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn ask_in_background(&self) {
        // A call may be given up because its runtime ends.
        if tokio::runtime::Handle::try_current().is_ok() {
            drop(self.ask());
        }
    }

    /// Reads the slot map in a task of its own. If a reading is going on, or began less than [`EVERY`] ago, returns its result
    /// instead.
    fn ask(&self) -> Told {
        let mut asking = self.0.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Asking { begun, told, task }) = &*asking
            && (!task.is_finished() || begun.elapsed() < EVERY)
        {
            return told.clone();
        }
        let (sender, told) = tokio::sync::oneshot::channel();
        let cluster = self.clone();
        let task = tokio::spawn(async move {
            let _ = sender.send(cluster.ranges().await.map(drop));
        });
        let told = told.map(|told| told.unwrap_or_else(|_| Err(aborted())));
        let told = told.boxed().shared();
        *asking = Some(Asking {
            begun: Instant::now(),
            told: told.clone(),
            task,
        });
        told
    }

    /// Reads the slot map now, and uses it from now on.
    pub(crate) async fn ranges(&self) -> RedisResult<Vec<Range>> {
        let ranges = ask_around(self.read(Topology::nodes)).await?;
        let gone = self.change(|topology| topology.replace(ranges.clone()))?;
        for node in gone {
            // The requests that wait at this node would miss the messages of the node that has their slots now.
            node.server.lose_subscriptions();
        }
        Ok(ranges)
    }
}

/// A call that waits for a node's answer. If it is dropped before [`ended`](Self::ended), the call was given up.
struct Calling<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
}

impl Calling<'_> {
    /// Marks the node as suspect or sound. If it has failed or lost the slot, reads the slot map again in the background.
    fn ended(self, error: Option<&RedisError>) {
        let is_failed = error.is_some_and(|error| match error.kind() {
            ErrorKind::Server(kind) => matches!(
                kind,
                ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::ReadOnly
            ),
            ErrorKind::Extension => error.code() == Some("NOREPLICAS"),
            _ => true,
        });
        self.node.suspect(is_failed);
        let is_moved = error.is_some_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::Moved));
        if is_failed || is_moved {
            self.cluster.ask_in_background();
        }
        std::mem::forget(self);
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.node.suspect(true);
        self.cluster.ask_in_background();
    }
}

/// The slot map of the first node that returns one. While a node does not answer, the next ones are asked as well.
async fn ask_around(nodes: Vec<Arc<Node>>) -> RedisResult<Vec<Range>> {
    let mut nodes = nodes.into_iter();
    let mut asked = FuturesUnordered::new();
    let mut failed = None;
    loop {
        if let Some(node) = nodes.next() {
            asked.push(ask_one(node));
        } else if asked.is_empty() {
            return Err(failed.unwrap_or_else(aborted));
        }
        match timeout(HEDGE, asked.next()).await {
            Ok(Some(Ok(ranges))) => return Ok(ranges),
            Ok(Some(Err(error))) => failed = Some(error),
            Ok(None) | Err(_) => {}
        }
    }
}

async fn ask_one(node: Arc<Node>) -> RedisResult<Vec<Range>> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let asking = async {
        // Opened first, so that the error is the server's own if no link can be opened.
        node.server.open().await?;
        let call = async |link: &Link| link.clone().query_all(&command).await;
        ranges(node.server.call(Lane::Small, None, call).await?, &node.address)
    };
    let said = timeout(PATIENCE, asking).await;
    let said = said.unwrap_or_else(|elapsed| Err(std::io::Error::from(elapsed).into()));
    node.suspect(said.is_err());
    said
}
