//! The requests that wait for the end of a claim.
//!
//! Owns who waits for which claim. A claim that ends in this process wakes them at once. For claims that end in another process,
//! [`watch`] reads `PRAGMA data_version` every 25 ms while somebody waits, and looks for ended claims only if the database has
//! changed: one statement for 500 of them, whatever their number of waiters.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use idem_core::{BackendError, Changed, RecordKey, Token};
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::sleep;

use crate::connecting;
use crate::error::backend_error;
use crate::store::Store;
use crate::table::text;

/// How often the database is asked whether it has changed.
const TICK: Duration = Duration::from_millis(25);

/// The pause after an error.
const PAUSE: Duration = Duration::from_secs(1);

/// How many claims one statement looks at.
const LOOK: usize = 500;

const WATCHING: &str = "watching claims of other processes";

#[derive(Default)]
pub(crate) struct Waiters {
    watched: Mutex<HashMap<RecordKey, Watched>>,
    /// Told when the first waiter comes.
    first: Notify,
    /// Whether a claim is watched that no look has covered yet.
    is_stale: AtomicBool,
}

#[derive(Default)]
struct Watched {
    count: usize,
    /// The claim that is waited for, once its waiter has read it.
    claim: Option<Token>,
    ended: Arc<Notify>,
}

/// One request that waits.
pub(crate) struct Waiter {
    place: Place,
    ended: OwnedNotified,
}

/// Counts one waiter. Dropping the last one of a key removes it.
struct Place {
    waiters: Arc<Waiters>,
    key: RecordKey,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut watched = self.waiters.lock();
        if let Some(found) = watched.get_mut(&self.key) {
            found.count -= 1;
            if found.count == 0 {
                watched.remove(&self.key);
            }
        }
    }
}

impl Waiters {
    /// Adds a waiter for the end of the claim on `key`. It is woken by whatever ends from here on in this process.
    pub(crate) fn add(self: &Arc<Self>, key: &RecordKey) -> Waiter {
        let mut watched = self.lock();
        let found = watched.entry(key.clone()).or_default();
        found.count += 1;
        let ended = found.ended.clone().notified_owned();
        if watched.len() == 1 {
            self.first.notify_one();
        }
        drop(watched);
        let place = Place {
            waiters: self.clone(),
            key: key.clone(),
        };
        Waiter { place, ended }
    }

    /// Wakes the requests that wait for the claim on `key`.
    pub(crate) fn wake(&self, key: &RecordKey) {
        if let Some(found) = self.lock().get(key) {
            found.ended.notify_waiters();
        }
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The claims that are waited for.
    fn claims(&self) -> Vec<(RecordKey, Token)> {
        let claim = |(key, found): (&RecordKey, &Watched)| Some((key.clone(), found.claim?));
        self.lock().iter().filter_map(claim).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RecordKey, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Waits for the end of exactly this claim, which the waiter has found after it was added.
    pub(crate) fn wait_for(self, claim: Token) -> Changed {
        let Self { place, ended } = self;
        if let Some(found) = place.waiters.lock().get_mut(&place.key)
            && found.claim.replace(claim).is_some_and(|other| other != claim)
        {
            // Those who wait for the other claim have missed its end.
            found.ended.notify_waiters();
        }
        place.waiters.is_stale.store(true, Ordering::Release);
        Changed::new(async move {
            ended.await;
            drop(place);
        })
    }
}

/// Looks for claims that have ended in other processes, until it is dropped.
pub(crate) async fn watch(store: Arc<Store>) {
    loop {
        if store.waiters.is_empty() {
            store.waiters.first.notified().await;
        }
        if let Err(error) = watch_while_waited(&store).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "claims of other processes cannot be watched; waiters look by themselves"
            );
            sleep(PAUSE).await;
        }
    }
}

async fn watch_while_waited(store: &Store) -> Result<(), BackendError> {
    let mut connection = connecting::reader(&store.options).await?;
    let mut seen = None;
    while !store.waiters.is_empty() {
        let version = version(&mut connection).await?;
        let is_stale = store.waiters.is_stale.swap(false, Ordering::AcqRel);
        if is_stale || seen != Some(version) {
            seen = Some(version);
            for claims in store.waiters.claims().chunks(LOOK) {
                wake_ended(store, &mut connection, claims).await?;
            }
        }
        sleep(TICK).await;
    }
    Ok(())
}

async fn version(connection: &mut SqliteConnection) -> Result<i64, BackendError> {
    let asked = sqlx::query(text("PRAGMA data_version".to_owned()))
        .fetch_one(connection)
        .await;
    asked
        .and_then(|row| row.try_get(0))
        .map_err(|error| backend_error(WATCHING, error))
}

async fn wake_ended(
    store: &Store,
    connection: &mut SqliteConnection,
    claims: &[(RecordKey, Token)],
) -> Result<(), BackendError> {
    let pair = |(key, token): &(RecordKey, Token)| [key.as_str().to_owned(), hex(&token.to_bytes())];
    let asked: serde_json::Value = claims.iter().map(pair).map(Vec::from).collect();
    let ended = sqlx::query(store.statements.ended.clone())
        .bind(asked.to_string())
        .fetch_all(connection)
        .await
        .map_err(|error| backend_error(WATCHING, error))?;
    for row in ended {
        let position: i64 = row.try_get(0).map_err(|error| backend_error(WATCHING, error))?;
        let claim = usize::try_from(position).ok().and_then(|position| claims.get(position));
        if let Some((key, _)) = claim {
            store.waiters.wake(key);
        }
    }
    Ok(())
}

/// As the function `hex` of SQLite writes it.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(hex, "{byte:02X}");
        hex
    })
}
