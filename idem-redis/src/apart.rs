//! Large payloads, which lie beside their records.
//!
//! Owns the keys of payloads that are large, and how they are written and read. A record stays small, whatever its answer
//! weighs, so that claims and refusals cost the same; the payload goes over a link of its own, with the time that its
//! size allows. It is named after its claim's token, so none is ever overwritten: what an owner leaves behind that was
//! superseded, or died, expires by itself.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use idem_core::{BackendError, BackendErrorKind, Claim, Fenced, Token};
use redis::{Cmd, RedisError, RedisResult};

use crate::connection::Connection;
use crate::error::backend_error;
use crate::record::{self, Completed, millis};
use crate::scripts::{self, NUMBER_LEN};

/// How long a payload stays, in milliseconds, whose record is not there: before it is written, and after it has expired,
/// for those who have just read it.
const ALONE: u64 = 60_000;

/// The key of the payload of the record under `name`, in its slot.
fn payload_key(name: &str, token: Token) -> String {
    let mut key = format!("{name}:p:");
    // Into a string, which takes all of it.
    let _ = write!(key, "{:032x}", u128::from_be_bytes(token.to_bytes()));
    key
}

/// Writes the payload, and then completes the claim of the record under `name` with it.
pub(crate) async fn complete(
    connection: &Connection,
    name: &str,
    claim: &Claim,
    payload: &Bytes,
) -> Result<Fenced, BackendError> {
    let key = payload_key(name, claim.token);
    write(connection, &key, payload).await?;
    let script = scripts::COMPLETE_APART.on_cluster(connection.is_cluster());
    let completed = Completed::apart(claim, payload.len());
    let bytes = record::CLAIM_LEN + completed.len() + 2 * NUMBER_LEN;
    let mut command = script.on_all([name, &key], 4, bytes);
    command
        .arg(&record::encode_claim(claim)[..])
        .arg(&completed)
        .arg(millis(claim.ttl))
        .arg(ALONE);
    match connection.invoke("completing", name, script, &command).await? {
        scripts::PAYLOAD_IS_GONE => {
            let context = "a large answer had expired before its record was written";
            Err(BackendError::new(BackendErrorKind::Unavailable, context))
        }
        applied => Ok(scripts::fenced(applied)),
    }
}

/// Writes a payload, unless an earlier try has.
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
    match connection.query_large(what, key, None, &command).await {
        // What has happened is recorded on a full server, too.
        Err(error) if is_full(&error) => {
            let mut command = scripts::WRITE.on(key, 2, payload.len() + NUMBER_LEN);
            command.arg(&payload[..]).arg(ALONE);
            connection.query_large(what, key, Some(&scripts::WRITE), &command).await
        }
        written => written,
    }
}

fn is_full(error: &BackendError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<RedisError>());
    cause.is_some_and(|cause| cause.code() == Some("OOM"))
}

/// The payloads that are being read: whoever asks for one meanwhile shares it.
#[derive(Default)]
pub(crate) struct Reads(Mutex<HashMap<String, WeakShared<Read>>>);

type Read = BoxFuture<'static, RedisResult<Option<Bytes>>>;

impl Reads {
    /// Reads the payload of the record under `name`; `None` if it is not there.
    pub(crate) async fn read(
        &self,
        connection: &Connection,
        name: &str,
        token: Token,
    ) -> Result<Option<Bytes>, BackendError> {
        let payload = self.share(connection, payload_key(name, token)).await;
        payload.map_err(|error| backend_error("reading a large answer", error))
    }

    fn share(&self, connection: &Connection, key: String) -> Shared<Read> {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = reads.get(&key).and_then(WeakShared::upgrade) {
            return read;
        }
        reads.retain(|_, read| read.upgrade().is_some());
        let connection = connection.clone();
        let name = key.clone();
        let read = async move {
            let command = redis::cmd("GET").arg(&name).to_owned();
            let payload: Option<Vec<u8>> = connection.fetch_large(&name, &command).await?;
            Ok(payload.map(Bytes::from))
        };
        let read = read.boxed().shared();
        if let Some(weak) = read.downgrade() {
            reads.insert(key, weak);
        }
        read
    }
}
