//! The requests that wait for the end of a claim.
//!
//! Owns the records that requests wait for, and the wakeup of the waiters. A message says only that a record has changed; the
//! waiters read the record again. So a lost message costs time and never the answer. If the connection fails, all waiters are
//! woken to read their records again. Does not own the connection: [`subscriber`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use idem_core::{BackendError, BackendErrorKind};
use sqlx::PgPool;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::record::Id;
use crate::subscriber;

/// The waiters of one backend.
#[derive(Clone)]
pub(crate) struct Subscriptions(Arc<Shared>);

struct Shared {
    waiting: Arc<Waiting>,
    orders: mpsc::UnboundedSender<Order>,
    /// The subscriber. It ends with the runtime that it was started on.
    task: JoinHandle<()>,
}

/// An order to the subscriber.
pub(crate) enum Order {
    /// A request waits for a record.
    Join(Join),
    /// No request waits for the record any more.
    Leave(Id),
}

/// Asks the subscriber to listen for the end of one record's claim.
pub(crate) struct Join {
    pub(crate) id: Id,
    answer: oneshot::Sender<JoinResult>,
}

/// The subscriber's answer to a [`Join`].
pub(crate) type JoinResult = Result<Joined, Arc<sqlx::Error>>;

/// Whether a message will announce the end of the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    Told,
    /// No message will come: the claim is being ended at this moment, or the process holds too many locks already.
    Untold,
}

impl Join {
    pub(crate) fn answer(self, answer: JoinResult) {
        // The waiter may have gone.
        let _ = self.answer.send(answer);
    }
}

/// The records that requests wait for, by the message about them.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<State>);

#[derive(Default)]
struct State {
    waiters: HashMap<String, Waiters>,
    /// Whether messages arrive. If not, a new waiter has to send a [`Join`].
    is_listening: bool,
}

struct Waiters {
    count: usize,
    changed: Arc<Notify>,
    /// Whether this process holds the advisory lock, which tells the statement that ends the claim to send a message.
    is_held: bool,
}

impl Subscriptions {
    /// Starts the task that owns the connection. The task connects when the first request waits, and ends when `self` and all
    /// waiters are dropped.
    pub(crate) fn start(application: PgPool, channel: String) -> Self {
        let waiting = Arc::<Waiting>::default();
        let (orders, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(subscriber::run(application, channel, receiver, waiting.clone()));
        Self(Arc::new(Shared { waiting, orders, task }))
    }

    /// Whether the subscriber is running. If it has ended, wakes its waiters to look again.
    pub(crate) fn is_running(&self) -> bool {
        let is_running = !self.0.task.is_finished();
        if !is_running {
            self.0.waiting.lose();
        }
        is_running
    }

    /// Listens for the end of the claim on the record `id`. An end after this call has resolved is not missed. `None` if no
    /// message would announce the end.
    pub(crate) async fn listen(&self, id: Id) -> Result<Option<Subscription>, BackendError> {
        const WHAT: &str = "listening for the end of a claim";
        let (subscription, listening) = self.join(id);
        let Some(listening) = listening else {
            return Ok(Some(subscription));
        };
        let unavailable = || BackendError::new(BackendErrorKind::Unavailable, WHAT);
        // The runtime of the subscriber may have ended.
        let answer = listening.await.map_err(|_| unavailable())?;
        let joined = answer.map_err(|error| unavailable().with_source(error))?;
        Ok((joined == Joined::Told).then_some(subscription))
    }

    /// Adds a waiter for the record. If messages about the record do not arrive yet, also returns the receiver of the
    /// subscriber's answer.
    fn join(&self, id: Id) -> (Subscription, Option<oneshot::Receiver<JoinResult>>) {
        let mut state = self.0.waiting.lock();
        let is_listening = state.is_listening;
        let waiters = state.waiters.entry(id.message()).or_insert_with(|| Waiters {
            count: 0,
            changed: Arc::default(),
            is_held: false,
        });
        waiters.count += 1;
        let changed = waiters.changed.clone();
        let listening = (!(is_listening && waiters.is_held)).then(|| {
            let (answer, listening) = oneshot::channel();
            // Under the lock of the state, so that the order of the orders is the order of the changes that caused them.
            let _ = self.0.orders.send(Order::Join(Join { id, answer }));
            listening
        });
        let subscription = Subscription {
            told: Some(changed.clone().notified_owned()),
            membership: Membership {
                id,
                changed,
                shared: self.0.clone(),
            },
        };
        (subscription, listening)
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic leaves the state half-changed, so a poisoned lock is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiters.is_empty()
    }

    pub(crate) fn is_waited_for(&self, id: &Id) -> bool {
        self.lock().waiters.contains_key(&id.message())
    }

    /// Sets that messages arrive from now on.
    pub(crate) fn begin(&self) {
        self.lock().is_listening = true;
    }

    /// Sets that the lock of this record is held, so that a message will announce the end of its claim.
    pub(crate) fn hold(&self, id: &Id) {
        if let Some(waiters) = self.lock().waiters.get_mut(&id.message()) {
            waiters.is_held = true;
        }
    }

    /// Wakes the waiters of `message`.
    pub(crate) fn tell(&self, message: &str) {
        if let Some(waiters) = self.lock().waiters.get(message) {
            waiters.changed.notify_waiters();
        }
    }

    /// Wakes all waiters to look again and to join again, because messages may have been missed.
    pub(crate) fn lose(&self) {
        let mut state = self.lock();
        state.is_listening = false;
        for (_, waiters) in state.waiters.drain() {
            waiters.changed.notify_waiters();
        }
    }
}

/// One waiter on one record.
pub(crate) struct Subscription {
    told: Option<OwnedNotified>,
    membership: Membership,
}

impl Subscription {
    /// Resolves when there is a message, or may have been one, since the subscription was made.
    pub(crate) async fn told(mut self) {
        if let Some(told) = self.told.take() {
            told.await;
        }
        drop(self.membership);
    }
}

/// Counts one waiter of a record.
struct Membership {
    id: Id,
    changed: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.shared.waiting.lock();
        let message = self.id.message();
        // After `lose`, there may be no waiters of that message, or newer ones.
        let Some(waiters) = state
            .waiters
            .get_mut(&message)
            .filter(|waiters| Arc::ptr_eq(&waiters.changed, &self.changed))
        else {
            return;
        };
        waiters.count -= 1;
        if waiters.count == 0 {
            state.waiters.remove(&message);
            let _ = self.shared.orders.send(Order::Leave(self.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use idem_core::{IdempotencyKey, RecordKey, Scope};

    use super::*;

    fn id(key: &str) -> Id {
        let key = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(key));
        Id::of(&key.expect("a valid key"))
    }

    /// With a subscriber that holds every lock at once.
    fn subscriptions() -> Subscriptions {
        let (orders, mut receiver) = mpsc::unbounded_channel();
        let waiting = Arc::<Waiting>::default();
        waiting.begin();
        let held = waiting.clone();
        let task = tokio::spawn(async move {
            while let Some(order) = receiver.recv().await {
                if let Order::Join(join) = order {
                    held.hold(&join.id);
                    join.answer(Ok(Joined::Told));
                }
            }
        });
        Subscriptions(Arc::new(Shared { waiting, orders, task }))
    }

    async fn listen(subscriptions: &Subscriptions, key: &str) -> Subscription {
        let listening = subscriptions.listen(id(key)).await;
        listening.expect("it listens").expect("it is told")
    }

    #[tokio::test]
    async fn nothing_is_left_of_those_who_have_gone_whether_they_were_told_or_not() {
        let subscriptions = subscriptions();
        let waiting = &subscriptions.0.waiting;
        let mut all = Vec::new();
        for key in ["a", "a", "b", "c"] {
            all.push(listen(&subscriptions, key).await);
        }
        waiting.tell(&id("a").message());
        drop(all.split_off(2));
        assert_eq!(waiting.lock().waiters.len(), 1);
        for told in all {
            told.told().await;
        }
        assert!(waiting.is_empty());
    }

    #[tokio::test]
    async fn who_joined_before_messages_were_lost_leaves_those_alone_who_joined_after() {
        let subscriptions = subscriptions();
        let waiting = &subscriptions.0.waiting;
        let before = listen(&subscriptions, "a").await;
        waiting.lose();
        waiting.begin();
        let after = listen(&subscriptions, "a").await;
        before.told().await;
        assert!(!waiting.is_empty(), "somebody still waits");
        waiting.tell(&id("a").message());
        after.told().await;
        assert!(waiting.is_empty());
    }

    #[tokio::test]
    async fn who_waits_on_a_task_that_has_ended_is_sent_to_look_again() {
        let subscriptions = subscriptions();
        let waiter = listen(&subscriptions, "a").await;
        subscriptions.0.task.abort();
        while subscriptions.is_running() {
            tokio::task::yield_now().await;
        }
        waiter.told().await;
    }
}
