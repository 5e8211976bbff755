//! Completions that come at the same time, sent together.
//!
//! Owns the queue from those who complete claims to the link, and one command for all that are in it. Nobody waits for
//! others to come: what has come while the task that sends was on its way to run goes along, so that a busy service
//! shares the price of a script among requests, and an idle one has no delay. Only on one server: in a cluster, a
//! command is about one slot; and a server that turns out to be a node of one is sent them one by one. Each is completed,
//! superseded or failed by itself; a command that fails, fails for all that it was for. What was sent is kept until it is
//! answered or its link is given up, though its callers may have gone.

use futures_util::StreamExt as _;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use idem_core::{Claim, Completion, Fenced};
use redis::{Cmd, ErrorKind, FromRedisValue as _, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot};

use crate::link::Link;
use crate::record::{self, Completed, millis};
use crate::scripts::{self, NUMBER_LEN, Script};

/// The most completions of one command: the server does nothing else meanwhile.
const MOST: usize = 64;

/// The most bytes of one command, but for a completion that has more by itself.
const MOST_BYTES: usize = 256 * 1024;

/// A claim that is to be completed.
pub(crate) struct Completing {
    key: String,
    claim: [u8; record::CLAIM_LEN],
    completed: Completed,
    /// In milliseconds.
    ttl: u64,
}

impl Completing {
    /// The claim in the record under `key`.
    pub(crate) fn new(key: String, claim: &Claim, completion: &Completion) -> Self {
        Self {
            key,
            claim: record::encode_claim(claim),
            completed: Completed::new(claim, completion),
            ttl: millis(claim.ttl),
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    fn len(&self) -> usize {
        self.claim.len() + self.completed.len() + NUMBER_LEN
    }

    /// The script that completes it without others, in a cluster, and the command for it.
    pub(crate) fn command(&self) -> (&'static Script, Cmd) {
        command(true, std::slice::from_ref(self))
    }

    /// Completes it over `link`, without others.
    pub(crate) async fn alone(self, link: &mut Link) -> RedisResult<Fenced> {
        let answers = complete(link, &[self]).await?;
        answers.into_iter().next().unwrap_or_else(|| Err(scripts::too_few()))
    }
}

/// The end of the queue that completions are put into.
pub(crate) struct Queue(mpsc::UnboundedSender<Queued>);

/// The end that they come out of.
pub(crate) struct Sending(mpsc::UnboundedReceiver<Queued>);

type Queued = (Completing, oneshot::Sender<RedisResult<Fenced>>);

pub(crate) fn queue() -> (Queue, Sending) {
    let (queue, sending) = mpsc::unbounded_channel();
    (Queue(queue), Sending(sending))
}

impl Queue {
    /// Lets a claim be completed. Its answer is an error of the channel where nobody sends any more.
    pub(crate) fn put(&self, completing: Completing) -> oneshot::Receiver<RedisResult<Fenced>> {
        let (sender, told) = oneshot::channel();
        // Where nobody receives, the sender goes, and that tells.
        let _ = self.0.send((completing, sender));
        told
    }
}

impl Sending {
    /// Sends what comes, over `link`, until nothing can come any more.
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
                    // What is being sent goes first, or it would not get on while more and more comes.
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

/// Parts what was queued so that no command is too long. Whose caller has given up is left out.
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

/// How a server wants completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Together,
    OneByOne,
}

/// Sends one command, and tells each caller what came of it.
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

/// Whether it is that the command was for several records: at a node of a cluster that was taken for one server, or of a user
/// who may not touch all of them.
fn is_about_several(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot) || error.code() == Some("NOPERM")
}

/// One command for all of `completing`, and what came of each.
async fn complete(link: &mut Link, completing: &[Completing]) -> RedisResult<Vec<RedisResult<Fenced>>> {
    let (script, command) = command(link.is_cluster(), completing);
    // In a cluster it is only one; on one server, any of them leads there.
    let key = completing.first().map(Completing::key).unwrap_or_default();
    let answers: Vec<Value> = Vec::from_redis_value(link.invoke(key, script, &command).await?)?;
    if answers.len() < completing.len() {
        return Err(scripts::too_few());
    }
    Ok(answers.into_iter().map(scripts::fenced_by).collect())
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
