//! The connection that commands go over, and when to give it up.
//!
//! Owns which [`Link`] is the current one: it opens one when somebody needs it, and another one when that has failed,
//! has gone silent, as one does that a firewall has forgotten, or leads to a server that takes no writes any more.
//! Does not know what is sent over it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use idem_core::{BackendError, Fenced};
use redis::cluster_routing::Slot;
use redis::{Cmd, FromRedisValue, RedisError, RedisResult};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::check;
use crate::client::RedisClient;
use crate::completions::{self, Completing, Queue};
use crate::error::backend_error;
use crate::link::Link;
use crate::scripts::Script;
use crate::subscriptions::Subscriptions;

/// How many calls may be given up unanswered before the link is.
const UNANSWERED: usize = 3;

/// For how long a call that was given up counts.
const MEMORY: Duration = Duration::from_secs(10);

/// How long a call has to have waited to count: one whose client hung up at once tells nothing of the link.
const WORTH_COUNTING: Duration = Duration::from_millis(30);

/// A connection that many requests share; clones share it too.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Inner>);

struct Inner {
    client: RedisClient,
    current: RwLock<Arc<Current>>,
    /// Started when somebody waits for the first time.
    subscriptions: Mutex<Option<Subscriptions>>,
}

/// One link, from the first try to open it to its end.
struct Current {
    link: Shared<BoxFuture<'static, RedisResult<Link>>>,
    completions: Queue,
    has_ended: AtomicBool,
    silence: Silence,
    /// Opens the link, sends completions over it, and then lives as long as the runtime that drives it.
    task: JoinHandle<()>,
}

impl Current {
    /// Opens a link in a task of its own, so that it goes on when the call that needed it first is given up.
    fn open(client: &RedisClient) -> Arc<Self> {
        let client = client.clone();
        let (sender, opened) = oneshot::channel();
        let (completions, queued) = completions::queue();
        let task = tokio::spawn(async move {
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
            silence: Silence::default(),
            task,
        })
    }

    /// Makes a call about what is in `place`, waits for its answer, and notes what it tells of the link.
    async fn call<T>(&self, place: Place, call: impl AsyncFnOnce(&Link) -> RedisResult<T>) -> RedisResult<T> {
        if self.link.peek().is_none() {
            let _opened = self.link.clone().await;
        }
        let link = match self.link.peek() {
            Some(Ok(link)) => link,
            Some(Err(error)) => {
                self.has_ended.store(true, Ordering::Relaxed);
                return Err(error.clone());
            }
            None => return Err(aborted()),
        };
        let asking = Asking {
            silence: &self.silence,
            place,
            since: Instant::now(),
        };
        let answer = call(link).await;
        asking.answered();
        if answer.as_ref().is_err_and(|error| link.is_ended_by(error)) {
            self.has_ended.store(true, Ordering::Relaxed);
        }
        answer
    }

    fn is_useless(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed) || self.silence.is_long() || self.task.is_finished()
    }
}

/// What those are told whose link has gone with the task that drives it.
fn aborted() -> RedisError {
    io::Error::other("aborted").into()
}

impl Drop for Current {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where what a call is about is: in a cluster its slot, for an answer of one node says nothing of another one.
type Place = Option<Slot>;

/// The calls that were given up lately and after which nothing came from their place.
#[derive(Default)]
struct Silence {
    given_up: Mutex<Vec<(Place, Instant)>>,
    /// How many there are, to be read without the lock.
    count: AtomicUsize,
}

impl Silence {
    fn change(&self, change: impl FnOnce(&mut Vec<(Place, Instant)>)) {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut given_up);
        self.count.store(given_up.len(), Ordering::Relaxed);
    }

    fn is_long(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= UNANSWERED
    }
}

/// A call whose answer is not there yet. Dropped before that, it was given up.
struct Asking<'a> {
    silence: &'a Silence,
    place: Place,
    since: Instant,
}

impl Asking<'_> {
    fn answered(self) {
        if self.silence.count.load(Ordering::Relaxed) > 0 {
            self.silence
                .change(|given_up| given_up.retain(|(place, _)| *place != self.place));
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
                given_up.push((self.place, now));
            });
        }
    }
}

impl Connection {
    /// Connects once, and fails if that fails.
    pub(crate) async fn open(client: RedisClient) -> Result<Self, BackendError> {
        let current = Current::open(&client);
        let can_be_told = async |link: &Link| link.clone().can_be_told().await;
        let opened = current.call(None, can_be_told).await;
        opened.map_err(|error| backend_error("connecting to Redis", error))?;
        let connection = Self(Arc::new(Inner {
            client,
            current: RwLock::new(current),
            subscriptions: Mutex::default(),
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
        let call = async |link: &Link| Ok(T::from_redis_value(link.clone().query(key, command).await?)?);
        let answer = self.current().call(self.place_of(key), call).await;
        answer.map_err(|error| backend_error(what, error))
    }

    /// Runs a script on the record under `key`; `command` is [`Script::on`] it, with its arguments.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        what: &'static str,
        key: &str,
        script: &Script,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        let call = async |link: &Link| Ok(T::from_redis_value(link.clone().invoke(key, script, command).await?)?);
        let answer = self.current().call(self.place_of(key), call).await;
        answer.map_err(|error| backend_error(what, error))
    }

    /// Completes a claim: in a cluster by itself, and on one server together with those that come at the same time.
    pub(crate) async fn complete(&self, completing: Completing) -> Result<Fenced, BackendError> {
        let current = self.current();
        let place = self.place_of(completing.key());
        let call = async |link: &Link| match link {
            Link::Server(_) => {
                let told = current.completions.put(completing);
                told.await.unwrap_or_else(|_| Err(aborted()))
            }
            Link::Cluster(_) => completing.alone(&mut link.clone()).boxed().await,
        };
        let answer = current.call(place, call).await;
        answer.map_err(|error| backend_error("completing", error))
    }

    /// Sends a command about no record, to each primary there is.
    pub(crate) async fn query_all<T: FromRedisValue>(
        &self,
        what: &'static str,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        let call = async |link: &Link| link.clone().query_all(command).await;
        let answer = self.current().call(None, call).await;
        answer.map_err(|error| backend_error(what, error))
    }

    fn place_of(&self, key: &str) -> Place {
        self.is_cluster().then(|| Slot::for_key(key))
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.0.client.is_cluster()
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

    fn lock_subscriptions(&self) -> MutexGuard<'_, Option<Subscriptions>> {
        self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
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
            // What is wrong with it may be wrong with the one that waiters rely on, and nobody may have noticed.
            if let Some(subscriptions) = &*self.lock_subscriptions() {
                subscriptions.lose();
            }
        }
        current.clone()
    }
}
