//! Completing several claims by one command.
//!
//! Owns the queue between the callers and the link, and the command for the claims in it.
//!
//! - No completion waits for others: a command contains the completions that were queued before the sending task ran. A busy
//!   service shares the cost of a script among requests, and an idle service has no delay.
//! - Completions are sent together only to a single server. In a cluster, a command is about one slot. If a server turns out
//!   to be a node of a cluster, it gets them one by one.
//! - Each claim is completed, superseded or failed by itself. If the command fails, it fails for all its claims.
//! - A command that was sent is awaited until it is answered or its link is given up, also if its callers have gone.
//!
//! Does not own the script: [`scripts`].

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use idem_core::{Claim, Completion};
use redis::{Cmd, ErrorKind, FromRedisValue as _, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot};

use crate::link::Link;
use crate::record::{self, Completed, Encoded, millis};
use crate::scripts::{self, NUMBER_LEN, Script};

/// The most completions of one command. The server does nothing else while it runs the command.
const MOST: usize = 64;

/// The most bytes of one command. A single completion may be larger.
const MOST_BYTES: usize = 256 * 1024;

/// A claim that is to be completed.
pub(crate) struct Completing {
    key: String,
    claim: Encoded,
    completed: Completed,
    /// In milliseconds.
    ttl: u64,
}

impl Completing {
    /// The completion of `claim` in the record under `key`, which is kept for `ttl`.
    pub(crate) fn new(key: String, claim: &Claim, completion: &Completion, ttl: Duration) -> Self {
        Self {
            key,
            claim: record::encode_claim(claim),
            completed: Completed::new(claim, completion),
            ttl: millis(ttl),
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    fn len(&self) -> usize {
        self.claim.len() + self.completed.len() + NUMBER_LEN
    }

    /// The script and the command that complete this claim alone, in a cluster.
    pub(crate) fn command(&self) -> (&'static Script, Cmd) {
        command(true, std::slice::from_ref(self))
    }

    /// Completes this claim alone over `link`. Returns the answer of [`scripts::COMPLETE`].
    pub(crate) async fn alone(self, link: &mut Link) -> RedisResult<i64> {
        let answers = complete(link, &[self]).await?;
        answers.into_iter().next().unwrap_or_else(|| Err(scripts::too_few()))
    }
}

/// The sending end of the queue.
pub(crate) struct Queue(mpsc::UnboundedSender<Queued>);

/// The receiving end of the queue.
pub(crate) struct Sending(mpsc::UnboundedReceiver<Queued>);

type Queued = (Completing, oneshot::Sender<RedisResult<i64>>);

pub(crate) fn queue() -> (Queue, Sending) {
    let (queue, sending) = mpsc::unbounded_channel();
    (Queue(queue), Sending(sending))
}

impl Queue {
    /// Queues a completion. The receiver returns an error if the sending task has ended.
    pub(crate) fn put(&self, completing: Completing) -> oneshot::Receiver<RedisResult<i64>> {
        let (sender, told) = oneshot::channel();
        // If the task has ended, `sender` is dropped, and `told` returns an error.
        let _ = self.0.send((completing, sender));
        told
    }
}

impl Sending {
    /// Sends the queued completions over `link` until the queue is closed.
    pub(crate) async fn send(mut self, link: Link) {
        let mut most = MOST;
        let mut queued = Vec::with_capacity(MOST);
        let mut sent = FuturesUnordered::new();
        loop {
            let received = {
                let receiving = std::pin::pin!(self.0.recv_many(&mut queued, MOST));
                if sent.is_empty() {
                    receiving.await
                } else {
                    // Commands in flight are polled first. Otherwise they would starve while completions keep arriving.
                    match select(sent.next(), receiving).await {
                        Either::Left((wanted, _)) => {
                            if wanted == Some(Wanted::OneByOne) {
                                most = 1;
                            }
                            continue;
                        }
                        Either::Right((received, _)) => received,
                    }
                }
            };
            if received == 0 {
                return;
            }
            for batch in batches(queued.drain(..), most) {
                sent.push(send(link.clone(), batch));
            }
        }
    }
}

/// Divides the queued completions into commands of limited length. Leaves out those whose caller has given up.
fn batches(queued: impl Iterator<Item = Queued>, most: usize) -> Vec<Vec<Queued>> {
    let mut batches: Vec<Vec<Queued>> = Vec::new();
    let mut room = 0;
    for (completing, sender) in queued {
        if sender.is_closed() {
            continue;
        }
        let len = completing.len();
        match batches.last_mut() {
            Some(batch) if len <= room && batch.len() < most => batch.push((completing, sender)),
            _ => {
                batches.push(vec![(completing, sender)]);
                room = MOST_BYTES;
            }
        }
        room = room.saturating_sub(len);
    }
    batches
}

/// How completions must be sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Together,
    OneByOne,
}

/// Sends one command, and gives each caller its result.
async fn send(link: Link, batch: Vec<Queued>) -> Wanted {
    let (completing, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let mut answers = complete(&mut link.clone(), &completing).await;
    let mut wanted = Wanted::Together;
    if completing.len() > 1 && answers.as_ref().is_err_and(is_about_several) {
        let each = completing.into_iter().map(|one| {
            let mut link = link.clone();
            async move { one.alone(&mut link).await }
        });
        answers = Ok(join_all(each).await);
        wanted = Wanted::OneByOne;
    }
    match answers {
        Ok(answers) => {
            for (sender, answer) in senders.into_iter().zip(answers) {
                let _ = sender.send(answer);
            }
        }
        Err(error) => {
            for sender in senders {
                let _ = sender.send(Err(error.clone()));
            }
        }
    }
    wanted
}

/// Whether the command failed because it is about several records: the server is a node of a cluster, or the user may not
/// access all the records.
fn is_about_several(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot) || error.code() == Some("NOPERM")
}

/// Sends one command for all of `completing`, and returns one result for each.
async fn complete(link: &mut Link, completing: &[Completing]) -> RedisResult<Vec<RedisResult<i64>>> {
    let (script, command) = command(link.is_cluster(), completing);
    // In a cluster there is only one key. On a single server, any key routes the command to it.
    let key = completing.first().map(Completing::key).unwrap_or_default();
    let answers: Vec<Value> = Vec::from_redis_value(link.invoke(key, script, &command).await?)?;
    if answers.len() < completing.len() {
        return Err(scripts::too_few());
    }
    Ok(answers.into_iter().map(scripts::one_of).collect())
}

fn command(is_cluster: bool, completing: &[Completing]) -> (&'static Script, Cmd) {
    let keys = completing.iter().map(Completing::key);
    let bytes = completing.iter().map(Completing::len).sum();
    let script = scripts::COMPLETE.on_cluster(is_cluster);
    let mut command = script.on_all(keys, 3 * completing.len(), bytes);
    for completing in completing {
        command
            .arg(&completing.claim[..])
            .arg(&completing.completed)
            .arg(completing.ttl);
    }
    (script, command)
}
