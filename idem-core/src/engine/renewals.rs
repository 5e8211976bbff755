//! When leases are renewed.
//!
//! Owns one task per runtime. The task starts the renewals of a claim when a third of its lease has passed and the handler is
//! still running. Most handlers end sooner and cost only an entry in a table.
//!
//! Two things protect a claim from a handler that blocks its thread:
//!
//! - Renewals run in a task of their own, which another thread can poll.
//! - If the blocked thread was the one that fires the runtime's timers, no timer fires. So the engine has a thread outside the
//!   runtime, `idem-leases`, which wakes the runtime while renewals are due ("prods" it, below).
//!
//! Does not own how a lease is renewed: [`Work::renew_from`](super::run::Work).

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

/// The time of a claim's first renewal, and a number that distinguishes claims with the same time.
type Due = (Instant, u64);

/// How often a runtime is prodded in each lease while one of its claims is being renewed.
const PRODS: u32 = 12;

/// The shortest time between two prods of a runtime.
const BREATH: Duration = Duration::from_millis(20);

/// The shortest time between two prods if the runtime has not run the last prod yet.
const LONG_BREATH: Duration = Duration::from_secs(1);

/// How long the prodding thread sleeps if nothing is due. A claim that becomes due wakes it sooner.
const IDLE: Duration = Duration::from_hours(1);

/// The claims of one engine whose handlers are running.
#[derive(Default)]
pub(super) struct Renewer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the prodding thread, because a claim is due sooner than the thread knows.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watches: Vec<Watch>,
    has_thread: bool,
    is_closed: bool,
}

/// The claims of one runtime, and the task that starts their renewals. The task ends with the runtime, as the handlers do.
struct Watch {
    runtime: Id,
    handle: Handle,
    /// The claims whose renewals have not started yet.
    due: BTreeMap<Due, Arc<Work>>,
    /// The claims whose renewals have started.
    renewed: BTreeMap<Due, Renewing>,
    /// The time of the last prod.
    prodded: Instant,
    /// The empty task of the last prod.
    prod: Option<JoinHandle<()>>,
    next: u64,
    /// When the task checks `due` again; `None` if it waits until it is woken.
    looks_at: Option<Instant>,
    wake: Arc<Notify>,
}

impl Renewer {
    /// Renews the claim of `work` until the returned guard is dropped. The first renewal is a third of the lease after `since`.
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
            // Not under the lock: a runtime that is shutting down drops the task at once, and dropping it takes the lock.
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
        // A task whose watch is gone ends when it is woken.
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

    /// Applies `operate` to the watch of a runtime; `None` if the runtime has no watch.
    fn of<R>(&self, runtime: Id, operate: impl FnOnce(&mut Watch) -> R) -> Option<R> {
        let mut state = self.lock();
        state
            .watches
            .iter_mut()
            .find(|watch| watch.runtime == runtime)
            .map(operate)
    }

    /// Wakes the prodding thread, or starts it if it is not running. If the system has no thread to give, renewals work without
    /// it; but a handler that blocks the thread which fires timers can then lose its claim.
    fn wake(self: &Arc<Self>, state: &mut State) {
        if !state.has_thread {
            let shared = self.clone();
            let started = thread::Builder::new().name("idem-leases".to_owned());
            state.has_thread = started.spawn(move || shared.prod()).is_ok();
        }
        self.changed.notify_one();
    }

    /// Prods the runtimes whose claims are due, until the engine is dropped.
    ///
    /// If one thread of a runtime is blocked and the others are idle, the runtime may fire no timers until a call from outside
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

    /// Adds a claim, and returns whether the task was woken.
    ///
    /// The task is woken only if the claim is due before the task's next check. Thousands of claims may come and go between two
    /// checks.
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

    /// Moves the due claims from `due` to `renewed`, returns them, and sets the time of the next check.
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

    /// Keeps the handle of the task that renews a claim. If the claim has ended meanwhile, aborts the task.
    fn started(&mut self, due: Due, task: AbortHandle) {
        match self.renewed.get_mut(&due) {
            Some(renewing) => renewing.task = Some(task),
            None => task.abort(),
        }
    }

    /// The time of the next prod; `None` if none is needed.
    fn prods_at(&self) -> Option<Instant> {
        let shortest = self.renewed.values().map(|renewing| renewing.lease).min();
        let again = shortest.map(|lease| self.prodded + lease / PRODS);
        let at = [self.looks_at, again].into_iter().flatten().min()?;
        // Shorter than any lease: a busy thread may run the last prod late, and a lease must not lapse meanwhile.
        let long = shortest.map_or(LONG_BREATH, |lease| LONG_BREATH.min(lease / PRODS).max(BREATH));
        let breath = if self.is_prodded() { long } else { BREATH };
        Some(at.max(self.prodded + breath))
    }

    /// Whether the runtime has not run the last prod yet. Any thread that polls the runtime's tasks runs it.
    fn is_prodded(&self) -> bool {
        self.prod.as_ref().is_some_and(|prod| !prod.is_finished())
    }

    /// Prods the runtime: wakes the task that starts renewals, and spawns an empty task, which wakes an idle thread.
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
    /// `None` until the task has been spawned.
    task: Option<AbortHandle>,
}

/// Owned by the task of a watch. Dropping it removes the watch.
struct Watcher {
    renewer: Weak<Shared>,
    runtime: Id,
    wake: Arc<Notify>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(renewer) = self.renewer.upgrade() {
            let gone = |watch: &mut Watch| watch.runtime == self.runtime;
            // Dropped after the lock is released: a watch may hold the last reference to an engine.
            let _gone: Vec<_> = renewer.lock().watches.extract_if(.., gone).collect();
        }
    }
}

/// Starts renewals as they become due, until the engine is dropped or the runtime ends.
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

/// The renewals of one claim. Dropping it ends them.
pub(super) struct Renewals {
    renewer: Arc<Renewer>,
    runtime: Id,
    due: Due,
    woken: bool,
}

impl Renewals {
    /// Resolves when the renewing task knows of the claim. Await it before the handler runs, because the handler may block its
    /// thread.
    ///
    /// Tokio runs a woken task next on the thread that woke it, and no other thread steals the task from there. Yielding once
    /// lets the renewing task run before the handler.
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
