//! When leases are renewed.
//!
//! Owns one task for each runtime, which starts the renewals of every claim whose handler outlives a third of its lease.
//! Most handlers do not, and cost it nothing but an entry. It is a task of its own because a handler that blocks its
//! thread must not lose its claim; and because that thread may be the one that would have fired the timers, a thread of the
//! engine's own prods the runtime while renewals are due. Does not own how a lease is renewed.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, ready};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle, yield_now};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::run::Work;

/// When a claim is to be renewed first, and a number that tells it from others at that time.
type Due = (Instant, u64);

/// A runtime is prodded so often in a lease while one of its claims is renewed.
const PRODS: u32 = 12;

/// And never sooner again than after so long; where the runtime has not run what it was prodded with last, than after so long.
const BREATH: Duration = Duration::from_millis(20);
const LONG_BREATH: Duration = Duration::from_secs(1);

/// How long the prodding thread sleeps where nothing is due; it is woken before if something is.
const IDLE: Duration = Duration::from_hours(1);

/// The claims of one engine.
#[derive(Default)]
pub(super) struct Renewer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is due before the thread would look.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watches: Vec<Watch>,
    has_thread: bool,
    is_closed: bool,
}

/// Those of one runtime: its handlers end with it, and so does the task that watches over their claims.
struct Watch {
    runtime: Id,
    handle: Handle,
    /// Whose renewals have not started yet.
    due: BTreeMap<Due, Arc<Work>>,
    /// The others.
    renewed: BTreeMap<Due, Renewing>,
    prodded: Instant,
    /// The task that it was prodded with last.
    prod: Option<JoinHandle<()>>,
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
            let mut state = self.0.lock();
            let found = state.watches.iter().position(|watch| watch.runtime == id);
            let place = found.unwrap_or_else(|| {
                let wake = Arc::default();
                fresh = Some(Arc::clone(&wake));
                state.watches.push(Watch::new(runtime.clone(), wake));
                state.watches.len() - 1
            });
            let added = state.watches[place].add(at, work.clone());
            if added.1 {
                self.0.wake(&mut state);
            }
            added
        };
        if let Some(wake) = fresh {
            // Not under the lock: a runtime that is shutting down drops the task at once, which takes the lock.
            runtime.spawn(watch(Watcher {
                renewer: Arc::downgrade(&self.0),
                runtime: id,
                wake,
            }));
        }
        Renewals {
            renewer: self.clone(),
            runtime: id,
            due,
            woken,
        }
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        // A task that finds no watch of its own ends.
        for watch in state.watches.drain(..) {
            watch.wake.notify_one();
        }
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to what is known of a runtime.
    fn of<R>(&self, runtime: Id, operate: impl FnOnce(&mut Watch) -> R) -> Option<R> {
        let mut state = self.lock();
        state
            .watches
            .iter_mut()
            .find(|watch| watch.runtime == runtime)
            .map(operate)
    }

    /// Lets the prodding thread look when to prod; the first time, starts it. Without it, as where no thread can be had, a
    /// handler that blocks the thread that fires timers can lose its claim.
    fn wake(self: &Arc<Self>, state: &mut State) {
        if !state.has_thread {
            let shared = self.clone();
            let started = thread::Builder::new().name("idem-leases".to_owned());
            state.has_thread = started.spawn(move || shared.prod()).is_ok();
        }
        self.changed.notify_one();
    }

    /// Prods runtimes whose claims are to be renewed, until the engine has gone.
    ///
    /// A runtime of which one thread is blocked and the others are idle fires no timers until something from outside
    /// wakes another of its threads.
    fn prod(&self) {
        let mut state = self.lock();
        while !state.is_closed {
            let now = Instant::now();
            let mut pause = IDLE;
            for watch in &mut state.watches {
                let Some(at) = watch.prods_at() else { continue };
                if at <= now {
                    watch.prod(now);
                    pause = pause.min(BREATH);
                } else {
                    pause = pause.min(at - now);
                }
            }
            let woken = self.changed.wait_timeout(state, pause);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewer").finish_non_exhaustive()
    }
}

impl Watch {
    fn new(handle: Handle, wake: Arc<Notify>) -> Self {
        Self {
            runtime: handle.id(),
            handle,
            due: BTreeMap::new(),
            renewed: BTreeMap::new(),
            prodded: Instant::now(),
            prod: None,
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
    fn take_due(&mut self, now: Instant) -> BTreeMap<Due, Arc<Work>> {
        let later = self.due.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.due, later);
        self.looks_at = self.due.first_key_value().map(|((at, _), _)| *at);
        let renewing = |work: &Arc<Work>| Renewing {
            lease: work.claim.lease,
            task: None,
        };
        self.renewed
            .extend(due.iter().map(|(due, work)| (*due, renewing(work))));
        due
    }

    /// Keeps the task that renews a claim; or ends it, if the claim has ended meanwhile.
    fn started(&mut self, due: Due, task: AbortHandle) {
        match self.renewed.get_mut(&due) {
            Some(renewing) => renewing.task = Some(task),
            None => task.abort(),
        }
    }

    /// When the runtime is prodded, if at all.
    fn prods_at(&self) -> Option<Instant> {
        let shortest = self.renewed.values().map(|renewing| renewing.lease).min();
        let again = shortest.map(|lease| self.prodded + lease / PRODS);
        let at = [self.looks_at, again].into_iter().flatten().min()?;
        // Never so long that a lease could lapse meanwhile: a thread that is busy runs the prod late, too.
        let long = shortest.map_or(LONG_BREATH, |lease| LONG_BREATH.min(lease / PRODS).max(BREATH));
        let breath = if self.is_prodded() { long } else { BREATH };
        Some(at.max(self.prodded + breath))
    }

    /// Whether the runtime has still to run what it was prodded with. It does so as soon as anybody polls it.
    fn is_prodded(&self) -> bool {
        self.prod.as_ref().is_some_and(|prod| !prod.is_finished())
    }

    /// Prods the runtime.
    fn prod(&mut self, now: Instant) {
        self.prodded = now;
        self.wake.notify_one();
        if !self.is_prodded() {
            self.prod = Some(self.handle.spawn(async {}));
        }
    }
}

/// The renewals of one claim, once they have started.
struct Renewing {
    lease: Duration,
    /// Set as soon as it is there.
    task: Option<AbortHandle>,
}

/// The task's hold on its watch, which goes with it.
struct Watcher {
    renewer: Weak<Shared>,
    runtime: Id,
    wake: Arc<Notify>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(renewer) = self.renewer.upgrade() {
            let gone = |watch: &mut Watch| watch.runtime == self.runtime;
            // Not dropped under the lock: what it holds may be the last of an engine.
            let _gone: Vec<_> = renewer.lock().watches.extract_if(.., gone).collect();
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
        let looked = |watch: &mut Watch| (watch.take_due(now), watch.looks_at);
        let Some((due, looks_at)) = renewer.of(watcher.runtime, looked) else {
            return;
        };
        if !due.is_empty() {
            renewer.changed.notify_one();
        }
        for (due, work) in due {
            let span = work.span.clone();
            let task = tokio::spawn(work.renew_from(due.0).instrument(span)).abort_handle();
            renewer.of(watcher.runtime, |watch| watch.started(due, task));
        }
        drop(renewer);
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
}

impl Renewals {
    /// Resolves when the renewing task knows of the claim; await it before the handler can block its thread.
    ///
    /// A task that is woken runs on the thread that woke it, and no other thread takes it over from there.
    pub(super) fn begun(&self) -> impl Future<Output = ()> + Send + use<> {
        if self.woken {
            yield_now().left_future()
        } else {
            ready(()).right_future()
        }
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        let ended = |watch: &mut Watch| (watch.due.remove(&self.due), watch.renewed.remove(&self.due));
        if let Some((_, Some(renewing))) = self.renewer.0.of(self.runtime, ended)
            && let Some(task) = renewing.task
        {
            task.abort();
        }
    }
}
