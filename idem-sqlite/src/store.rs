//! One database file, and what the connections to it share.
//!
//! Owns the thread on which the writer, the watcher of other processes and the sweeper run, so that none of them depends on a
//! runtime of the application's: handlers that block it, or its end. The thread starts with the first call, and ends with the last
//! clone of the backend.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idem_core::{BackendError, BackendErrorKind};
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::change::{Answer, Answered, Change};
use crate::clock::Clock;
use crate::readers::Readers;
use crate::table::{Name, Statements};
use crate::waiters::{self, Waiters};
use crate::writer::Writer;

/// The most rows that one sweep deletes, and the rest after it. Sweeping is one of the changes that are committed together.
const SWEPT_AT_ONCE: u32 = 500;
const REST: Duration = Duration::from_millis(250);

pub(crate) struct Store {
    pub(crate) options: Arc<SqliteConnectOptions>,
    pub(crate) name: Name,
    pub(crate) statements: Arc<Statements>,
    pub(crate) readers: Readers,
    pub(crate) waiters: Arc<Waiters>,
    /// Held by whoever writes in this process, so that they take turns and do not wait for each other in SQLite.
    pub(crate) turns: Arc<tokio::sync::Mutex<()>>,
    pub(crate) sweeping: Option<Duration>,
}

/// Asks for changes of one store.
pub(crate) struct Changes {
    store: Arc<Store>,
    clock: Result<Clock, BackendError>,
    asked: Mutex<Option<mpsc::UnboundedSender<Change>>>,
}

impl Store {
    pub(crate) fn new(options: Arc<SqliteConnectOptions>, name: Name, sweeping: Option<Duration>) -> Self {
        Self {
            readers: Readers::new(options.clone()),
            statements: Statements::on(&name),
            name,
            options,
            waiters: Arc::default(),
            turns: Arc::default(),
            sweeping,
        }
    }
}

impl Changes {
    pub(crate) fn of(store: Store) -> Self {
        Self {
            store: Arc::new(store),
            clock: Clock::read(),
            asked: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn clock(&self) -> Result<&Clock, BackendError> {
        self.clock.as_ref().map_err(Clone::clone)
    }

    /// Asks for a change and waits until it is committed.
    pub(crate) async fn make<T>(&self, change: impl FnOnce(Answer<T>) -> Change) -> Result<T, BackendError> {
        let (answer, answered) = Answer::new();
        self.send(change(answer))?;
        answer_of(answered).await
    }

    /// Makes sure that somebody watches for claims that end in other processes.
    pub(crate) fn watch(&self) -> Result<(), BackendError> {
        self.running().map(drop)
    }

    fn send(&self, change: Change) -> Result<(), BackendError> {
        // If the thread ends at this moment, the change is dropped, and whoever waits for it finds out.
        let _ = self.running()?.send(change);
        Ok(())
    }

    /// The thread, which is started if it does not run. Only a panic ends it before its time.
    fn running(&self) -> Result<mpsc::UnboundedSender<Change>, BackendError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = asked.as_ref().filter(|running| !running.is_closed()) {
            return Ok(running.clone());
        }
        let started = start(self.store.clone(), self.clock()?.clone())?;
        Ok(asked.insert(started).clone())
    }
}

async fn answer_of<T>(answered: Answered<T>) -> Result<T, BackendError> {
    let gone = |_| BackendError::new(BackendErrorKind::Unavailable, "writing a record; the writer has ended");
    answered.await.map_err(gone)?
}

/// Starts the thread.
fn start(store: Arc<Store>, clock: Clock) -> Result<mpsc::UnboundedSender<Change>, BackendError> {
    let (asked, changes) = mpsc::unbounded_channel();
    let failed = |error: std::io::Error| {
        BackendError::new(BackendErrorKind::Unavailable, "starting the thread that writes")
            .with_source(error)
            .not_written()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(failed)?;
    // The sweeper must not keep the thread alive.
    let sweeper = asked.downgrade();
    let run = async move {
        tokio::select! {
            () = Writer::new(store.clone(), clock, changes).run() => {}
            () = waiters::watch(store.clone()) => {}
            () = sweep(store.sweeping, sweeper) => {}
        }
    };
    let thread = std::thread::Builder::new().name("idem-sqlite".to_owned());
    thread.spawn(move || runtime.block_on(run)).map_err(failed)?;
    Ok(asked)
}

/// Deletes what has expired, at each interval; never ends.
async fn sweep(every: Option<Duration>, asked: mpsc::WeakUnboundedSender<Change>) {
    let Some(every) = every else {
        return std::future::pending().await;
    };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while sweep_some(&asked).await == Some(u64::from(SWEPT_AT_ONCE)) {
            sleep(REST).await;
        }
    }
}

async fn sweep_some(asked: &mpsc::WeakUnboundedSender<Change>) -> Option<u64> {
    let (answer, answered) = Answer::new();
    let limit = SWEPT_AT_ONCE;
    asked.upgrade()?.send(Change::Sweep { limit, answer }).ok()?;
    match answer_of(answered).await {
        Ok(swept) => Some(swept),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                "expired records could not be deleted; trying again at the next interval"
            );
            None
        }
    }
}
