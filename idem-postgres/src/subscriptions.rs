//! Who waits for the end of which claim.
//!
//! Owns the records that somebody waits for, and who is told when. A message says only that a record has changed; what it
//! is now, waiters look up themselves. So a message that is lost costs them time and never the answer: when the
//! connection that messages come over fails, all are told to look again. That connection is the
//! [subscriber]'s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use idem_core::{BackendError, BackendErrorKind};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::subscriber;

/// The waiters of one backend.
pub(crate) struct Subscriptions(Arc<Shared>);

struct Shared {
    waiting: Arc<Waiting>,
    orders: mpsc::UnboundedSender<Order>,
}

/// Asks the subscriber to listen; it answers once it does, or why it cannot.
pub(crate) type Order = oneshot::Sender<Result<(), Arc<sqlx::Error>>>;

/// The records that somebody waits for, by the message about them.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<State>);

#[derive(Default)]
struct State {
    waiters: HashMap<String, Waiters>,
    /// Whether messages come in. Whoever joins while they do not has to ask for them.
    is_listening: bool,
}

struct Waiters {
    count: usize,
    changed: Arc<Notify>,
}

impl Subscriptions {
    /// Starts the task that owns the connection. It connects when somebody waits for the first time, and ends when this
    /// and all who wait are gone.
    pub(crate) fn start(options: PgConnectOptions, channel: String) -> Self {
        let waiting = Arc::<Waiting>::default();
        let (orders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(subscriber::run(options, channel, receiver, waiting.clone()));
        Self(Arc::new(Shared { waiting, orders }))
    }

    /// Listens for `message`, from a moment on that lies before this returns.
    pub(crate) async fn listen(&self, message: String) -> Result<Subscription, BackendError> {
        const WHAT: &str = "listening for the end of a claim";
        let (subscription, is_listening) = self.join(message);
        if !is_listening {
            let (order, listening) = oneshot::channel();
            let unavailable = || BackendError::new(BackendErrorKind::Unavailable, WHAT);
            // The runtime of the subscriber may have ended.
            self.0.orders.send(order).map_err(|_| unavailable())?;
            let answer = listening.await.map_err(|_| unavailable())?;
            answer.map_err(|error| unavailable().with_source(error))?;
        }
        Ok(subscription)
    }

    /// Becomes one of those who wait for `message`; and whether messages come in.
    fn join(&self, message: String) -> (Subscription, bool) {
        let mut state = self.0.waiting.lock();
        let is_listening = state.is_listening;
        let waiters = state.waiters.entry(message.clone()).or_insert_with(|| Waiters {
            count: 0,
            changed: Arc::default(),
        });
        waiters.count += 1;
        let changed = waiters.changed.clone();
        let subscription = Subscription {
            told: Some(changed.clone().notified_owned()),
            membership: Membership {
                message,
                changed,
                shared: self.0.clone(),
            },
        };
        (subscription, is_listening)
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No change of the state can be seen half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiters.is_empty()
    }

    /// Messages come in from now on.
    pub(crate) fn begin(&self) {
        self.lock().is_listening = true;
    }

    /// Tells those who wait for `message` to look again.
    pub(crate) fn tell(&self, message: &str) {
        if let Some(waiters) = self.lock().waiters.get(message) {
            waiters.changed.notify_waiters();
        }
    }

    /// Messages may have been missed: tells everybody to look again, and to ask anew.
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

/// Counts one among those who wait for a message.
struct Membership {
    message: String,
    changed: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.shared.waiting.lock();
        // After messages were lost there may be none by that name, or others.
        let Some(waiters) = state
            .waiters
            .get_mut(&self.message)
            .filter(|waiters| Arc::ptr_eq(&waiters.changed, &self.changed))
        else {
            return;
        };
        waiters.count -= 1;
        if waiters.count == 0 {
            state.waiters.remove(&self.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriptions() -> (Subscriptions, mpsc::UnboundedReceiver<Order>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::<Waiting>::default();
        waiting.begin();
        (Subscriptions(Arc::new(Shared { waiting, orders })), receiver)
    }

    #[tokio::test]
    async fn nothing_is_left_of_those_who_have_gone_whether_they_were_told_or_not() {
        let (subscriptions, _orders) = subscriptions();
        let waiting = &subscriptions.0.waiting;
        let mut all = Vec::new();
        for message in ["a", "a", "b", "c"] {
            all.push(subscriptions.listen(message.to_owned()).await.expect("it listens"));
        }
        waiting.tell("a");
        drop(all.split_off(2));
        assert_eq!(waiting.lock().waiters.len(), 1);
        for told in all {
            told.told().await;
        }
        assert!(waiting.is_empty());
    }

    #[tokio::test]
    async fn who_joined_before_messages_were_lost_leaves_those_alone_who_joined_after() {
        let (subscriptions, _orders) = subscriptions();
        let waiting = &subscriptions.0.waiting;
        let before = subscriptions.listen("a".to_owned()).await.expect("it listens");
        waiting.lose();
        waiting.begin();
        let after = subscriptions.listen("a".to_owned()).await.expect("it listens");
        before.told().await;
        assert!(!waiting.is_empty(), "somebody still waits");
        waiting.tell("a");
        after.told().await;
        assert!(waiting.is_empty());
    }
}
