//! Large payloads, which have a Redis key of their own beside their record.
//!
//! Owns the keys of large payloads, and how payloads are written and read.
//!
//! - The record stays small, so that claims and refusals cost the same whatever the size of the answer.
//! - The payload is sent over the link of large values, with the time that its size allows.
//! - The payload's key contains the token of its claim, so no payload is ever overwritten. A payload whose owner died or was
//!   superseded expires by itself.
//!
//! Does not own the binary form of the record: [`record`].

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, Shared, WeakShared, select};
use idem_core::{BackendError, BackendErrorKind, Claim, Token, allow_time_for, untimed};
use redis::{Cmd, RedisError, RedisResult};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::connection::Connection;
use crate::error::backend_error;
use crate::record::{self, Completed, millis};
use crate::scripts::{self, NUMBER_LEN, Script};
use crate::server::{UNANSWERED, aborted};

/// How long a payload exists without its record, in milliseconds: before the record is written, and after the record has
/// expired, for requests that have just read the record.
const ALONE: u64 = 60_000;

/// The limit of a small call that belongs to a transfer, and the time that a transfer gets on top of what its size allows.
const SMALL: Duration = Duration::from_secs(1);

/// For how many missing payloads the warning is remembered.
const MOST_GONE: usize = 1024;

/// The key of the payload that belongs to the record under `name`. It is in the same slot.
pub(crate) fn payload_key(name: &str, token: Token) -> String {
    let mut key = format!("{name}:p:");
    // Writing to a string cannot fail.
    let _ = write!(key, "{:032x}", u128::from_be_bytes(token.to_bytes()));
    key
}

/// Writes the payload, and then completes the claim of the record under `name` with it, for `ttl`. Returns the answer of the
/// script.
pub(crate) async fn complete(
    connection: &Connection,
    name: &str,
    claim: &Claim,
    payload: &Bytes,
    ttl: Duration,
) -> Result<i64, BackendError> {
    let key = payload_key(name, claim.token);
    write(connection, &key, payload).await?;
    let script = scripts::COMPLETE_LARGE.on_cluster(connection.is_cluster());
    let completed = Completed::beside(claim, payload.len());
    let bytes = record::MAX_CLAIM_LEN + completed.len() + 2 * NUMBER_LEN;
    let mut command = script.on_all([name, &key], 4, bytes);
    command
        .arg(&record::encode_claim(claim)[..])
        .arg(&completed)
        .arg(millis(ttl))
        .arg(ALONE);
    completed_large(untimed(complete_small(connection, name, script, &command)).await?)
}

/// The same for a claim that may have steps under the key `steps`, by `script`.
pub(crate) async fn complete_with_steps(
    connection: &Connection,
    name: &str,
    (claim, payload, ttl): (&Claim, &Bytes, Duration),
    (script, steps): (&Script, &str),
) -> Result<i64, BackendError> {
    let key = payload_key(name, claim.token);
    write(connection, &key, payload).await?;
    let completed = Completed::beside(claim, payload.len());
    let bytes = record::MAX_CLAIM_LEN + completed.len() + 2 * NUMBER_LEN;
    let mut command = script.on_all([name, steps, &key], 4, bytes);
    command
        .arg(&record::encode_claim_with_steps(claim)[..])
        .arg(&completed)
        .arg(millis(ttl))
        .arg(ALONE);
    completed_large(untimed(complete_small(connection, name, script, &command)).await?)
}

fn completed_large(answer: i64) -> Result<i64, BackendError> {
    match answer {
        scripts::PAYLOAD_IS_GONE => {
            let context = "a large answer had expired before its record was written";
            Err(BackendError::new(BackendErrorKind::Unavailable, context))
        }
        answer => Ok(answer),
    }
}

/// Completes a claim whose payload is written. An unanswered call is repeated until the link of small calls is replaced, so
/// that a silent link does not cost the payload.
async fn complete_small(
    connection: &Connection,
    name: &str,
    script: &Script,
    command: &Cmd,
) -> Result<i64, BackendError> {
    for _ in 0..=UNANSWERED {
        if let Ok(said) = timeout(SMALL, connection.invoke("completing", name, script, command)).await {
            return said;
        }
    }
    let context = "a large answer is written, and completing its record is not answered";
    Err(BackendError::new(BackendErrorKind::Timeout, context))
}

/// Awaits a transfer. The time until `begun` is `true` does not count towards the deadline.
async fn in_turn<T>(transfer: impl Future<Output = T>, mut begun: watch::Receiver<bool>) -> T {
    let begins = async move {
        let _ = begun.wait_for(|begun| *begun).await;
    };
    match untimed(select(pin!(transfer), pin!(begins))).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), transfer)) => transfer.await,
    }
}

/// Writes a payload, unless an earlier try has written it.
async fn write(connection: &Connection, key: &str, payload: &Bytes) -> Result<(), BackendError> {
    let what = "writing a large answer";
    let mut command = Cmd::with_capacity(6, key.len() + payload.len() + NUMBER_LEN + "SETNXPX".len());
    command
        .arg("SET")
        .arg(key)
        .arg(&payload[..])
        .arg("NX")
        .arg("PX")
        .arg(ALONE);
    let (begins, begun) = watch::channel(false);
    match in_turn(connection.query_large(what, key, None, &command, &begins), begun).await {
        // A finished run is recorded on a full server, too.
        Err(error) if is_full(&error) => {
            let mut command = scripts::WRITE.on(key, 2, payload.len() + NUMBER_LEN);
            command.arg(&payload[..]).arg(ALONE);
            let (begins, begun) = watch::channel(false);
            let writing = connection.query_large(what, key, Some(&scripts::WRITE), &command, &begins);
            in_turn(writing, begun).await
        }
        written => written,
    }
}

fn is_full(error: &BackendError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<RedisError>());
    cause.is_some_and(|cause| cause.code() == Some("OOM"))
}

/// The payloads that are being read. Requests for the same payload share one read.
#[derive(Default)]
pub(crate) struct Reads {
    going_on: Mutex<HashMap<String, GoingOn>>,
    /// The tokens whose missing payload was logged.
    gone: Mutex<HashSet<[u8; 16]>>,
}

type Read = BoxFuture<'static, RedisResult<Option<Bytes>>>;

/// A read, and whether its transfer has begun.
type GoingOn = (watch::Receiver<bool>, WeakShared<Read>);

impl Reads {
    /// Reads the payload of the record under `name`, which has `len` bytes; `None` if the payload is missing.
    pub(crate) async fn read(
        &self,
        connection: &Connection,
        name: &str,
        token: Token,
        len: usize,
    ) -> Result<Option<Bytes>, BackendError> {
        let (begun, read) = self.share(connection, payload_key(name, token), len);
        allow_time_for(len);
        let payload = in_turn(read, begun).await;
        payload.map_err(|error| backend_error("reading a large answer", error))
    }

    fn share(&self, connection: &Connection, key: String, len: usize) -> (watch::Receiver<bool>, Shared<Read>) {
        let mut reads = self.going_on.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, read)) = reads.get(&key)
            && let Some(read) = read.upgrade()
        {
            return (begun.clone(), read);
        }
        reads.retain(|_, (_, read)| read.upgrade().is_some());
        let (begins, begun) = watch::channel(false);
        let (sender, payload) = oneshot::channel();
        tokio::spawn(read(connection.clone(), key.clone(), len, begins, sender));
        let payload = payload.map(|payload| payload.unwrap_or_else(|_| Err(aborted())));
        let read = payload.boxed().shared();
        if let Some(weak) = read.downgrade() {
            reads.insert(key, (begun.clone(), weak));
        }
        (begun, read)
    }

    /// Logs once that the payload of a completed record is missing.
    pub(crate) fn warn_of_gone(&self, name: &str, token: Token) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() >= MOST_GONE {
            gone.clear();
        }
        if gone.insert(token.to_bytes()) {
            tracing::warn!(
                payload = payload_key(name, token),
                "the large answer of a completed record is gone from Redis: it was deleted or evicted. Duplicates are told \
                 that it is not stored; delete the record if its request may run again"
            );
        }
    }
}

/// Reads the payload under `key`.
///
/// If all requests for it are dropped during the transfer, the transfer still completes, because the link is of use only after
/// that. The transfer is given up only if it takes longer than its size allows.
async fn read(
    connection: Connection,
    key: String,
    len: usize,
    begins: watch::Sender<bool>,
    mut sender: oneshot::Sender<RedisResult<Option<Bytes>>>,
) {
    let command = redis::cmd("GET").arg(&key).to_owned();
    let mut reading = pin!(connection.fetch_large::<Option<Vec<u8>>>(&key, &command, &begins));
    let payload = match select(reading.as_mut(), pin!(sender.closed())).await {
        Either::Left((payload, _)) => Some(payload),
        Either::Right(_) => None,
    };
    if let Some(payload) = payload {
        let _ = sender.send(payload.map(|payload| payload.map(Bytes::from)));
    } else if *begins.borrow() {
        let time = SMALL + Duration::from_micros(len.try_into().unwrap_or(u64::MAX));
        let _ = timeout(time, reading).await;
    }
}
