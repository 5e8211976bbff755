//! When leases are renewed.
//!
//! Owns one task for each runtime, which starts the renewals of every claim whose handler outlives a third of its lease.
//! Most handlers do not, and cost it nothing but an entry. It is a task of its own because a handler that blocks its
//! thread must not lose its claim. Does not own how a lease is renewed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::run::Work;

/// When a claim is to be renewed first, and a number that tells it from others at that time.
type Due = (Instant, u64);

/// The claims of one engine whose renewals have not started yet.
#[derive(Default)]
pub(super) struct Renewer(Mutex<Vec<Watch>>);

/// Those of one runtime: its handlers end with it, and so does the task that watches over their claims.
struct Watch {
    runtime: Id,
    due: BTreeMap<Due, Arc<Work>>,
    next: u64,
    /// When the task looks again; `None` until it is woken.
    looks_at: Option<Instant>,
    wake: Arc<Notify>,
}

impl Renewer {
    /// Renews the claim of `work`, a third of its lease after `since` for the first time, until the guard is dropped.
    pub(super) fn renew(self: &Arc<Self>, work: &Arc<Work>, runtime: &Handle, since: Instant) -> Renewals {
        let at = since + work.claim.lease / 3;
        let id = runtime.id();
        let mut fresh = None;
        let (due, woken) = {
            let mut watches = self.lock();
            let found = watches.iter().position(|watch| watch.runtime == id);
            let place = found.unwrap_or_else(|| {
                let wake = Arc::default();
                fresh = Some(Arc::clone(&wake));
                watches.push(Watch::new(id, wake));
                watches.len() - 1
            });
            watches[place].add(at, work.clone())
        };
        if let Some(wake) = fresh {
            // Not under the lock: a runtime that is shutting down drops the task at once, which takes the lock.
            runtime.spawn(watch(Watcher {
                renewer: Arc::downgrade(self),
                runtime: id,
                wake,
            }));
        }
        Renewals {
            renewer: self.clone(),
            runtime: id,
            due,
            woken,
            work: work.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to what is known of a runtime.
    fn of<R>(&self, runtime: Id, operate: impl FnOnce(&mut Watch) -> R) -> Option<R> {
        let mut watches = self.lock();
        watches.iter_mut().find(|watch| watch.runtime == runtime).map(operate)
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        for watch in self.lock().iter() {
            watch.wake.notify_one();
        }
    }
}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewer").finish_non_exhaustive()
    }
}

impl Watch {
    fn new(runtime: Id, wake: Arc<Notify>) -> Self {
        Self {
            runtime,
            due: BTreeMap::new(),
            next: 0,
            looks_at: None,
            wake,
        }
    }

    /// Adds a claim, and says whether the task had to be woken for it.
    ///
    /// Claims come and go by the thousand before the first of them is due, so that is only for one that is due before
    /// the task looks anyway.
    fn add(&mut self, at: Instant, work: Arc<Work>) -> (Due, bool) {
        let due = (at, self.next);
        self.next += 1;
        self.due.insert(due, work);
        let woken = self.looks_at.is_none_or(|looks_at| looks_at > at);
        if woken {
            self.looks_at = Some(at);
            self.wake.notify_one();
        }
        (due, woken)
    }

    /// Takes out what is due, and settles when to look again.
    fn take_due(&mut self, now: Instant) -> Vec<(Instant, Arc<Work>)> {
        let later = self.due.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.due, later);
        self.looks_at = self.due.first_key_value().map(|((at, _), _)| *at);
        due.into_iter().map(|((at, _), work)| (at, work)).collect()
    }
}

/// The task's hold on its watch, which goes with it.
struct Watcher {
    renewer: Weak<Renewer>,
    runtime: Id,
    wake: Arc<Notify>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(renewer) = self.renewer.upgrade() {
            renewer.lock().retain(|watch| watch.runtime != self.runtime);
        }
    }
}

/// Starts renewals as they become due, for as long as the engine and the runtime are there.
async fn watch(watcher: Watcher) {
    loop {
        let Some(renewer) = watcher.renewer.upgrade() else {
            return;
        };
        let now = Instant::now();
        let Some((due, looks_at)) = renewer.of(watcher.runtime, |watch| (watch.take_due(now), watch.looks_at)) else {
            return;
        };
        drop(renewer);
        for (at, work) in due {
            let renewing = work.clone().renew_from(at).instrument(work.span.clone());
            work.renewing.start(tokio::spawn(renewing).abort_handle());
        }
        match looks_at {
            Some(at) => {
                let _woken = tokio::time::timeout_at(at, watcher.wake.notified()).await;
            }
            None => watcher.wake.notified().await,
        }
    }
}

/// Renewals that end when this is dropped.
pub(super) struct Renewals {
    renewer: Arc<Renewer>,
    runtime: Id,
    due: Due,
    woken: bool,
    work: Arc<Work>,
}

impl Renewals {
    /// Resolves when the renewing task knows of the claim; await it before the handler can block its thread.
    ///
    /// A task that is woken runs on the thread that woke it, and no other thread takes it over from there.
    pub(super) async fn begun(&self) {
        if self.woken {
            yield_now().await;
        }
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        let waiting = self.renewer.of(self.runtime, |watch| watch.due.remove(&self.due));
        if waiting.flatten().is_none() {
            self.work.renewing.end();
        }
    }
}

/// The task that renews one claim, from when it is started until the claim has ended.
#[derive(Default)]
pub(super) struct Renewing(Mutex<Started>);

#[derive(Default)]
enum Started {
    #[default]
    No,
    Yes(AbortHandle),
    Ended,
}

impl Renewing {
    fn start(&self, task: AbortHandle) {
        let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *started {
            Started::Ended => task.abort(),
            Started::No | Started::Yes(_) => *started = Started::Yes(task),
        }
    }

    fn end(&self) {
        let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Started::Yes(task) = std::mem::replace(&mut *started, Started::Ended) {
            task.abort();
        }
    }
}
