//! The links to one server, and when to give them up.
//!
//! Owns which [`Link`] is the current one: it opens one when somebody needs it, and another one when that has failed,
//! has gone silent, as one does that a firewall has forgotten, or leads to a server that takes no writes any more. A link
//! that still answers is used until the next one is open, and the next one is opened at its [`Pace`]. Large values go over
//! a link of their own, so that what is small never waits behind them. Does not know what is sent.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use idem_core::Fenced;
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

/// How many calls may be given up unanswered before the link is.
pub(crate) const UNANSWERED: usize = 3;

/// Which link a call goes over.
#[derive(Clone, Copy)]
pub(crate) enum Lane<'a> {
    /// That of all calls whose arguments and answers are small.
    Small,
    /// That of large values, one at a time. A call that is given up on it has had all the time that its size allows, which
    /// starts when it is told here that the transfer begins.
    Large(&'a watch::Sender<bool>),
}

/// For how long a call that was given up counts.
const MEMORY: Duration = Duration::from_secs(10);

/// How long a call has to have waited to count: one whose client hung up at once tells nothing of the link.
const WORTH_COUNTING: Duration = Duration::from_millis(30);

/// One server, or what is reached as one; clones share its links.
#[derive(Clone)]
pub(crate) struct Server(Arc<Inner>);

struct Inner {
    client: RedisClient,
    small: Current,
    large: Current,
    /// Whose turn it is on the link of large values.
    turns: Semaphore,
    /// Started when somebody waits for the first time.
    subscriptions: Mutex<Option<Subscriptions>>,
}

/// The link of a lane, opened when somebody needs it for the first time.
type Current = RwLock<Links>;

#[derive(Default)]
struct Links {
    /// What calls go over.
    serving: Option<Arc<Opened>>,
    /// What takes its place once it is open.
    coming: Option<Arc<Opened>>,
    pace: Pace,
}

/// One link, from the first try to open it to its end.
struct Opened {
    link: Shared<BoxFuture<'static, RedisResult<Link>>>,
    completions: Queue,
    has_ended: AtomicBool,
    /// The server takes no writes, or a cluster's client did not answer: it may do for other calls until there is another.
    is_doubtful: AtomicBool,
    silence: Silence,
    /// Opens the link, sends completions over it, and then lives as long as the runtime that drives it.
    task: JoinHandle<()>,
}

impl Opened {
    /// Opens a link in a task of its own, so that it goes on when the call that needed it first is given up.
    fn open(client: &RedisClient) -> Arc<Self> {
        Self::open_at(client, Instant::now())
    }

    /// The same at some moment.
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

    /// Makes a call about what is in `place`, waits for its answer, and notes what it tells of the link.
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

    /// Whether it is of use, for as long as there is no other one.
    fn can_serve(&self, lane: Lane<'_>) -> bool {
        let unanswered = if matches!(lane, Lane::Large(_)) { 1 } else { UNANSWERED };
        let is_silent = self.silence.count() >= unanswered && !self.serves_other_nodes();
        !(self.has_ended.load(Ordering::Relaxed) || is_silent || self.task.is_finished())
    }

    /// Whether there should be another one.
    fn is_to_be_replaced(&self, lane: Lane<'_>) -> bool {
        let is_doubtful = self.is_doubtful.load(Ordering::Relaxed) || self.silence.count() >= UNANSWERED;
        is_doubtful || !self.can_serve(lane)
    }

    /// Whether one silent server says nothing of what else is reached over it.
    fn serves_other_nodes(&self) -> bool {
        matches!(self.link.peek(), Some(Ok(Link::Cluster(_))))
    }
}

/// What those are told whose link has gone with the task that drives it.
pub(crate) fn aborted() -> RedisError {
    io::Error::other("aborted").into()
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where what a call is about is: in a cluster its slot, for an answer of one node says nothing of another one.
pub(crate) type TargetSlot = Option<Slot>;

/// The calls that were given up lately and after which nothing came from their place.
#[derive(Default)]
struct Silence {
    given_up: Mutex<Vec<(TargetSlot, Instant)>>,
    /// How many there are, to be read without the lock.
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

/// A call whose answer is not there yet. Dropped before that, it was given up.
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

    /// Opens the link of small calls, and says why where that fails.
    pub(crate) async fn open(&self) -> RedisResult<Link> {
        let opened = self.current(Lane::Small);
        let link = opened.link.clone().await;
        if link.is_err() {
            opened.has_ended.store(true, Ordering::Relaxed);
        }
        link
    }

    /// Makes a call about what is in `place` over the link of `lane`.
    pub(crate) async fn call<T>(
        &self,
        lane: Lane<'_>,
        target: TargetSlot,
        call: impl AsyncFnOnce(&Link) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let (opened, _turn) = match lane {
            Lane::Small => (self.current(lane), None),
            // Boxed, so that a small call needs no room for what this needs.
            Lane::Large(_) => {
                let (opened, turn) = self.turn(lane, target).boxed().await?;
                (opened, Some(turn))
            }
        };
        opened.call(lane, target, call).await
    }

    /// Waits until nothing is on the link of large values, and makes sure that the link is alive: it is used seldom, and a
    /// firewall may have forgotten it.
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

    /// Completes a claim: in a cluster by itself, and on one server together with those that come at the same time.
    pub(crate) async fn complete(&self, target: TargetSlot, completing: Completing) -> RedisResult<Fenced> {
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

    /// Those who wait for messages, on a link of their own.
    pub(crate) fn subscriptions(&self) -> Subscriptions {
        let mut started = self.lock_subscriptions();
        match &*started {
            Some(subscriptions) if subscriptions.can_be_joined() => subscriptions.clone(),
            // None yet, or none any more because the runtime that they ran on has ended.
            _ => {
                let subscriptions = Subscriptions::start(self.0.client.clone());
                *started = Some(subscriptions.clone());
                subscriptions
            }
        }
    }

    /// Tells those who wait for messages to look again, and to subscribe anew.
    pub(crate) fn lose_subscriptions(&self) {
        if let Some(subscriptions) = &*self.lock_subscriptions() {
            subscriptions.lose();
        }
    }

    fn lock_subscriptions(&self) -> MutexGuard<'_, Option<Subscriptions>> {
        self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to use now: another one if the last is of no use any more.
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
            // What is wrong with it may be wrong with the one that waiters rely on, and nobody may have noticed.
            self.lose_subscriptions();
        }
        opened
    }
}

impl Links {
    /// The link to use now, and whether it has just taken the place of the last one.
    fn current(&mut self, lane: Lane<'_>, client: &RedisClient) -> (Arc<Opened>, bool) {
        // Whoever held the lock before may have replaced it.
        if let Some(opened) = self.serving.as_ref().filter(|opened| !opened.is_to_be_replaced(lane)) {
            return (opened.clone(), false);
        }
        if self.coming.is_none() && (self.serving.is_none() || self.pace.begin(Instant::now())) {
            self.coming = Some(Opened::open(client));
        }
        let serving = self.serving.clone().filter(|opened| opened.can_serve(lane));
        // Polled, or nobody would learn that it is: calls wait only for the one that serves.
        let is_open = |opened: &Arc<Opened>| opened.link.clone().now_or_never().is_some_and(|link| link.is_ok());
        match (serving, self.coming.take()) {
            (Some(serving), Some(coming)) if !is_open(&coming) => {
                // One that could not be opened is let go, and another one is tried when it is time.
                self.coming = Some(coming).filter(|coming| coming.link.peek().is_none() && !coming.task.is_finished());
                (serving, false)
            }
            (Some(serving), None) => (serving, false),
            (_, Some(coming)) => {
                self.serving = Some(coming.clone());
                (coming, true)
            }
            // Of no use, and it is too early for another one. Where the last one was open, calls wait for the next one; where
            // it could not be opened, they fail at once.
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
