//! The links to one server, and when they are replaced.
//!
//! Owns the choice of the current [`Link`]. The first call opens a link. The link is replaced when it
//!
//! - has failed;
//! - does not answer, for example because a firewall has forgotten the connection;
//! - leads to a server that takes no writes any more.
//!
//! A link that still answers is used until the next link is open. [`Pace`] limits how often links are opened. Large values
//! have a link of their own, so that small calls never wait behind them. Does not own the commands that are sent.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::cluster_routing::Slot;
use redis::{RedisError, RedisResult};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot, watch};
use tokio::task::JoinHandle;

use crate::client::RedisClient;
use crate::completions::{self, Completing, Queue};
use crate::error::{not_opened, too_early};
use crate::link::Link;
use crate::pace::Pace;
use crate::subscriptions::Subscriptions;

/// After this many unanswered calls, a link is replaced.
pub(crate) const UNANSWERED: usize = 3;

/// The link that a call uses.
#[derive(Clone, Copy)]
pub(crate) enum Lane<'a> {
    /// The link of all calls whose arguments and answers are small.
    Small,
    /// The link of large values, which carries one call at a time. `true` is sent when the transfer begins, and the call's time
    /// starts then. So a call that is given up on this link has had all the time that its size allows.
    Large(&'a watch::Sender<bool>),
}

/// For how long an unanswered call counts.
const MEMORY: Duration = Duration::from_secs(10);

/// An unanswered call counts only if it has waited this long. A call whose client hung up at once says nothing about the link.
const WORTH_COUNTING: Duration = Duration::from_millis(30);

/// One server, or several behind one client. Clones share the links.
#[derive(Clone)]
pub(crate) struct Server(Arc<Inner>);

struct Inner {
    client: RedisClient,
    small: Current,
    large: Current,
    /// Admits one call at a time to the link of large values.
    turns: Semaphore,
    /// Started when the first request waits.
    subscriptions: Mutex<Option<Subscriptions>>,
}

/// The links of a lane; the first call opens one.
type Current = RwLock<Links>;

#[derive(Default)]
struct Links {
    /// The link that calls use.
    serving: Option<Arc<Opened>>,
    /// The link that replaces `serving` once it is open.
    coming: Option<Arc<Opened>>,
    pace: Pace,
}

/// One link, from the first try to open it until its end.
struct Opened {
    link: Shared<BoxFuture<'static, RedisResult<Link>>>,
    completions: Queue,
    has_ended: AtomicBool,
    /// Whether the server takes no writes, or a cluster's client did not answer. Such a link may still serve other calls until
    /// there is another link.
    is_doubtful: AtomicBool,
    silence: Silence,
    /// Opens the link and sends completions over it. It ends with the runtime that drives the link.
    task: JoinHandle<()>,
}

impl Opened {
    /// Opens a link in a task of its own, so that opening continues if the call that needed the link is given up.
    fn open(client: &RedisClient) -> Arc<Self> {
        Self::open_at(client, Instant::now())
    }

    /// Does the same as [`open`](Self::open), from the time `begin` on.
    fn open_at(client: &RedisClient, begin: Instant) -> Arc<Self> {
        let client = client.clone();
        let (sender, opened) = oneshot::channel();
        let (completions, queued) = completions::queue();
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(begin.into()).await;
            let opened = client.open(None).await;
            let link = opened.clone();
            let _ = sender.send(opened);
            if let Ok(link) = link {
                queued.send(link).await;
            }
            std::future::pending::<()>().await;
        });
        let link = opened.map(|opened| opened.unwrap_or_else(|_| Err(aborted())));
        Arc::new(Self {
            link: link.boxed().shared(),
            completions,
            has_ended: AtomicBool::new(false),
            is_doubtful: AtomicBool::new(false),
            silence: Silence::default(),
            task,
        })
    }

    /// Makes a call about `target`, waits for the answer, and records what the answer says about the link.
    async fn call<T>(
        &self,
        lane: Lane<'_>,
        target: TargetSlot,
        call: impl AsyncFnOnce(&Link) -> RedisResult<T>,
    ) -> RedisResult<T> {
        if self.link.peek().is_none() {
            let _opened = self.link.clone().await;
        }
        let link = match self.link.peek() {
            Some(Ok(link)) => link,
            Some(Err(error)) => {
                self.has_ended.store(true, Ordering::Relaxed);
                return Err(not_opened(error.clone()));
            }
            None => return Err(aborted()),
        };
        if self.has_ended.load(Ordering::Relaxed) {
            return Err(too_early());
        }
        if let Lane::Large(begins) = lane {
            begins.send_replace(true);
        }
        let asking = Asking {
            silence: &self.silence,
            target,
            since: Instant::now(),
        };
        let answer = call(link).await;
        asking.answered();
        if let Err(error) = &answer {
            if link.is_ended_by(error) {
                self.has_ended.store(true, Ordering::Relaxed);
            } else if link.is_made_doubtful_by(error) {
                self.is_doubtful.store(true, Ordering::Relaxed);
            }
        }
        answer
    }

    /// Whether calls may use the link while there is no other.
    fn can_serve(&self, lane: Lane<'_>) -> bool {
        let unanswered = if matches!(lane, Lane::Large(_)) { 1 } else { UNANSWERED };
        let is_silent = self.silence.count() >= unanswered && !self.serves_other_nodes();
        !(self.has_ended.load(Ordering::Relaxed) || is_silent || self.task.is_finished())
    }

    /// Whether the link should be replaced.
    fn is_to_be_replaced(&self, lane: Lane<'_>) -> bool {
        let is_doubtful = self.is_doubtful.load(Ordering::Relaxed) || self.silence.count() >= UNANSWERED;
        is_doubtful || !self.can_serve(lane)
    }

    /// Whether the link leads to several servers, so that one silent server does not make the link useless.
    fn serves_other_nodes(&self) -> bool {
        matches!(self.link.peek(), Some(Ok(Link::Cluster(_))))
    }
}

/// The error of a call whose link ended together with the runtime that drove it.
pub(crate) fn aborted() -> RedisError {
    io::Error::other("aborted").into()
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The slot that a call is about, in a cluster. Silence is counted per slot, because an answer of one node says nothing about
/// another node.
pub(crate) type TargetSlot = Option<Slot>;

/// The recent unanswered calls, of targets that have not answered since.
#[derive(Default)]
struct Silence {
    given_up: Mutex<Vec<(TargetSlot, Instant)>>,
    /// The length of `given_up`, to be read without the lock.
    count: AtomicUsize,
}

impl Silence {
    fn change(&self, change: impl FnOnce(&mut Vec<(TargetSlot, Instant)>)) {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut given_up);
        self.count.store(given_up.len(), Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// A call that waits for its answer. If it is dropped before [`answered`](Self::answered), the call was given up.
struct Asking<'a> {
    silence: &'a Silence,
    target: TargetSlot,
    since: Instant,
}

impl Asking<'_> {
    fn answered(self) {
        if self.silence.count() > 0 {
            self.silence
                .change(|given_up| given_up.retain(|(target, _)| *target != self.target));
        }
        std::mem::forget(self);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.since) >= WORTH_COUNTING {
            self.silence.change(|given_up| {
                given_up.retain(|(_, when)| now.duration_since(*when) < MEMORY);
                given_up.push((self.target, now));
            });
        }
    }
}

impl Server {
    /// The server that `client` leads to. Nothing is sent yet.
    pub(crate) fn new(client: RedisClient) -> Self {
        Self(Arc::new(Inner {
            client,
            small: RwLock::default(),
            large: RwLock::default(),
            turns: Semaphore::new(1),
            subscriptions: Mutex::default(),
        }))
    }

    /// Opens the link of small calls.
    pub(crate) async fn open(&self) -> RedisResult<Link> {
        let opened = self.current(Lane::Small);
        let link = opened.link.clone().await;
        if link.is_err() {
            opened.has_ended.store(true, Ordering::Relaxed);
        }
        link
    }

    /// Makes a call about `target` over the link of `lane`.
    pub(crate) async fn call<T>(
        &self,
        lane: Lane<'_>,
        target: TargetSlot,
        call: impl AsyncFnOnce(&Link) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let (opened, _turn) = match lane {
            Lane::Small => (self.current(lane), None),
            // Boxed, so that the future of a small call does not have the size of this one.
            Lane::Large(_) => {
                let (opened, turn) = self.turn(lane, target).boxed().await?;
                (opened, Some(turn))
            }
        };
        opened.call(lane, target, call).await
    }

    /// Waits for the turn on the link of large values, and checks that the link answers. The link is seldom used, so a firewall
    /// may have forgotten the connection.
    async fn turn(&self, lane: Lane<'_>, target: TargetSlot) -> RedisResult<(Arc<Opened>, SemaphorePermit<'_>)> {
        let turn = self.0.turns.acquire().await.map_err(|_closed| aborted())?;
        let opened = self.current(lane);
        let Some(Ok(link)) = opened.link.peek() else {
            return Ok((opened, turn));
        };
        if link.clone().is_alive(target).await {
            return Ok((opened, turn));
        }
        opened.has_ended.store(true, Ordering::Relaxed);
        Ok((self.current(lane), turn))
    }

    /// Completes a claim. In a cluster, the claim has a command of its own; on one server, it shares a command with the claims
    /// that are completed at the same time.
    pub(crate) async fn complete(&self, target: TargetSlot, completing: Completing) -> RedisResult<i64> {
        let opened = self.current(Lane::Small);
        let call = async |link: &Link| {
            if link.is_cluster() {
                return completing.alone(&mut link.clone()).boxed().await;
            }
            let told = opened.completions.put(completing);
            told.await.unwrap_or_else(|_| Err(aborted()))
        };
        opened.call(Lane::Small, target, call).await
    }

    /// The subscriptions, which have a link of their own.
    pub(crate) fn subscriptions(&self) -> Subscriptions {
        let mut started = self.lock_subscriptions();
        match &*started {
            Some(subscriptions) if subscriptions.can_be_joined() => subscriptions.clone(),
            // Not started yet, or ended together with their runtime.
            _ => {
                let subscriptions = Subscriptions::start(self.0.client.clone());
                *started = Some(subscriptions.clone());
                subscriptions
            }
        }
    }

    /// Wakes the requests that wait for messages, so that they look again and subscribe over another link.
    pub(crate) fn lose_subscriptions(&self) {
        if let Some(subscriptions) = &*self.lock_subscriptions() {
            subscriptions.lose();
        }
    }

    fn lock_subscriptions(&self) -> MutexGuard<'_, Option<Subscriptions>> {
        self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to use now. Replaces the last one if it is of no use any more.
    fn current(&self, lane: Lane<'_>) -> Arc<Opened> {
        let links = match lane {
            Lane::Small => &self.0.small,
            Lane::Large(_) => &self.0.large,
        };
        let now = links.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = now.serving.as_ref().filter(|opened| !opened.is_to_be_replaced(lane)) {
            return opened.clone();
        }
        drop(now);
        let mut links = links.write().unwrap_or_else(PoisonError::into_inner);
        let had_one = links.serving.is_some();
        let (opened, is_another) = links.current(lane, &self.0.client);
        drop(links);
        if is_another && had_one && matches!(lane, Lane::Small) {
            tracing::debug!("the connection to Redis has failed, is silent or takes no writes; using another one");
            // The link of the waiters may have the same fault, not noticed yet.
            self.lose_subscriptions();
        }
        opened
    }
}

impl Links {
    /// The link to use now, and whether it has just replaced the last one.
    fn current(&mut self, lane: Lane<'_>, client: &RedisClient) -> (Arc<Opened>, bool) {
        // Another call may have replaced it before this one got the lock.
        if let Some(opened) = self.serving.as_ref().filter(|opened| !opened.is_to_be_replaced(lane)) {
            return (opened.clone(), false);
        }
        if self.coming.is_none() && (self.serving.is_none() || self.pace.begin(Instant::now())) {
            self.coming = Some(Opened::open(client));
        }
        let serving = self.serving.clone().filter(|opened| opened.can_serve(lane));
        // Polled here, because calls poll only the link in `serving`.
        let is_open = |opened: &Arc<Opened>| opened.link.clone().now_or_never().is_some_and(|link| link.is_ok());
        match (serving, self.coming.take()) {
            (Some(serving), Some(coming)) if !is_open(&coming) => {
                // A link that could not be opened is dropped, and the next one is opened when the pace allows.
                self.coming = Some(coming).filter(|coming| coming.link.peek().is_none() && !coming.task.is_finished());
                (serving, false)
            }
            (Some(serving), None) => (serving, false),
            (_, Some(coming)) => {
                self.serving = Some(coming.clone());
                (coming, true)
            }
            // The last link is of no use, and it is too early for another one. If the last link was open, calls wait for the
            // next one. If it could not be opened, calls fail at once.
            (None, None) => match &self.serving {
                Some(last) if !is_open(last) => (last.clone(), false),
                _ => {
                    let coming = Opened::open_at(client, self.pace.begin_when_due(Instant::now()));
                    self.serving = Some(coming.clone());
                    (coming, true)
                }
            },
        }
    }
}
