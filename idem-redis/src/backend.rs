//! The backend itself: commands out, records in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use idem_core::{Acquisition, Backend, BackendError, BackendErrorKind, Claim, Completion, Fenced, Record, RecordKey};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, ScriptInvocation};

use crate::error::backend_error;
use crate::record::{self, Stored, millis};
use crate::scripts;

/// How often a look at a record that keeps changing is repeated before the call is given up as unavailable.
const LOOKS: usize = 8;

/// Records in a Redis or Valkey server, shared by every process that connects to it.
///
/// Clones share one multiplexed connection, which reconnects by itself. Calls fail fast while the server is away; their
/// deadline is the engine's.
#[derive(Clone)]
pub struct RedisBackend {
    connection: ConnectionManager,
    prefix: Arc<str>,
}

impl RedisBackend {
    /// What every key starts with where nothing else is set.
    pub const DEFAULT_PREFIX: &'static str = "idem";

    /// Connects to one server: `redis://[user:password@]host[:port][/db]` or `redis+unix:///path[?db=n]`.
    ///
    /// # Errors
    ///
    /// [`BackendErrorKind::Config`] for a URL that cannot be used, and what the server or the network said when the
    /// connection could not be made within about a second. Nothing is retried after that: whether a service starts
    /// without its backend is the service's decision.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        let client = Client::open(url).map_err(|error| {
            BackendError::new(BackendErrorKind::Config, "the Redis URL cannot be used").with_source(error)
        })?;
        let connection = ConnectionManager::new_with_config(client, tuned())
            .await
            .map_err(|error| backend_error("connecting to Redis", error))?;
        Ok(Self::new(connection))
    }

    /// Uses a connection the application has already.
    ///
    /// Reconnecting and response time-outs are as configured there; with the client's defaults, calls may hang for
    /// seconds in an outage until the engine's deadline ends them.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self {
            connection,
            prefix: Self::DEFAULT_PREFIX.into(),
        }
    }

    /// Sets what every key and channel starts with, up to the first `:`, so that several applications can share a
    /// server. The permissions of the Redis user follow it.
    ///
    /// # Panics
    ///
    /// When `prefix` is empty or has other characters than ASCII letters, digits, `-`, `_`, `.` and `:`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        assert!(
            !prefix.is_empty() && prefix.bytes().all(harmless),
            "a prefix is made of ASCII letters, digits, `-`, `_`, `.` and `:`"
        );
        self.prefix = prefix.into();
        self
    }

    /// The record's key; the braces make its operation, scope and key the hash tag.
    fn key(&self, key: &RecordKey) -> String {
        format!("{}:{{{key}}}", self.prefix)
    }

    /// Where the end of a claim is published, in the same hash slot.
    fn channel(&self, key: &RecordKey) -> String {
        format!("{}:{{{key}}}:c", self.prefix)
    }

    async fn invoke<T: FromRedisValue>(
        &self,
        what: &'static str,
        script: &mut ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let mut connection = self.connection.clone();
        script
            .invoke_async(&mut connection)
            .await
            .map_err(|error| backend_error(what, error))
    }

    async fn query<T: FromRedisValue>(&self, what: &'static str, command: &redis::Cmd) -> Result<T, BackendError> {
        let mut connection = self.connection.clone();
        command
            .query_async(&mut connection)
            .await
            .map_err(|error| backend_error(what, error))
    }

    /// What stands behind the stored `bytes`, or `None` if the record has gone since they were read.
    ///
    /// A lease is live while at least its claim's ttl is left. Less may also mean that the record was completed in
    /// between, so a claim is called lapsed only if it is still there after its time was asked for.
    async fn examine(&self, name: &str, mut bytes: Vec<u8>) -> Result<Option<Record>, BackendError> {
        for _ in 0..LOOKS {
            let claim = match record::decode(bytes.clone())? {
                Stored::Claimed(claim) => claim,
                Stored::Completed {
                    fingerprint,
                    completion,
                } => {
                    return Ok(Some(Record::Completed {
                        fingerprint,
                        completion,
                    }));
                }
            };
            let left: i64 = self
                .query("asking how long a lease has left", redis::cmd("PTTL").arg(name))
                .await?;
            let left = match left {
                -2 => return Ok(None),
                ..0 => {
                    let context = "a claim has lost its expiry; delete it if nobody runs under it";
                    return Err(BackendError::new(BackendErrorKind::Unreadable, context));
                }
                left => left.unsigned_abs(),
            };
            if let Some(remaining) = left.checked_sub(millis(claim.ttl)) {
                // At its last millisecond the lease is still live, and zero would mean lapsed.
                let remaining = Duration::from_millis(remaining.max(1));
                return Ok(Some(Record::Claimed { claim, remaining }));
            }
            let now: Option<Vec<u8>> = self
                .query("reading a record again", redis::cmd("GET").arg(name))
                .await?;
            match now {
                None => return Ok(None),
                Some(same) if same == bytes => {
                    let remaining = Duration::ZERO;
                    return Ok(Some(Record::Claimed { claim, remaining }));
                }
                Some(changed) => bytes = changed,
            }
        }
        Err(busy())
    }
}

/// Fails fast: 20 to 250 ms of back-off, two retries, 300 ms to connect. With the client's defaults, commands were
/// measured to hang for 4.3 s in an outage of 3 s; so tuned, for 0.1 s. Responses have no time-out of their own beside
/// the engine's deadline.
fn tuned() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(250))
        .set_number_of_retries(2)
        .set_connection_timeout(Some(Duration::from_millis(300)))
        .set_response_timeout(None)
}

fn busy() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, "the record changed at every look")
}

/// How long a claim stays in Redis: its lease, and then as long as its outcome would.
fn lifetime(claim: &Claim) -> u64 {
    millis(claim.ttl).saturating_add(millis(claim.lease))
}

fn fenced(applied: i64) -> Fenced {
    if applied == 1 {
        Fenced::Applied
    } else {
        Fenced::Superseded
    }
}

impl Backend for RedisBackend {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let name = self.key(key);
        let value = record::encode_claim(claim);
        for _ in 0..LOOKS {
            let mut command = redis::cmd("SET");
            command
                .arg(&name)
                .arg(&value)
                .arg("NX")
                .arg("GET")
                .arg("PX")
                .arg(lifetime(claim));
            match self.query::<Option<Vec<u8>>>("claiming", &command).await? {
                None => return Ok(Acquisition::Acquired),
                // An earlier try of this call, whose answer was lost.
                Some(held) if held == value => return Ok(Acquisition::Acquired),
                Some(held) => {
                    if let Some(record) = self.examine(&name, held).await? {
                        return Ok(Acquisition::Existing(record));
                    }
                }
            }
        }
        Err(busy())
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        let name = self.key(key);
        for _ in 0..LOOKS {
            let mut script = scripts::TAKE_OVER.key(&name);
            script
                .arg(record::encode_claim(lapsed))
                .arg(record::encode_claim(claim))
                .arg(millis(lapsed.ttl))
                .arg(lifetime(claim));
            match self
                .invoke::<Option<Vec<u8>>>("taking over a lapsed claim", &mut script)
                .await?
            {
                None => return Ok(Acquisition::Acquired),
                Some(held) => {
                    if let Some(record) = self.examine(&name, held).await? {
                        return Ok(Acquisition::Existing(record));
                    }
                }
            }
        }
        Err(busy())
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let mut script = scripts::RENEW.key(self.key(key));
        script.arg(record::encode_claim(claim)).arg(lifetime(claim));
        self.invoke("renewing a lease", &mut script).await.map(fenced)
    }

    async fn complete(&self, key: &RecordKey, claim: &Claim, completion: &Completion) -> Result<Fenced, BackendError> {
        let mut script = scripts::COMPLETE.key(self.key(key));
        script
            .arg(record::encode_claim(claim))
            .arg(record::encode_completion(claim, completion))
            .arg(millis(claim.ttl))
            .arg(self.channel(key));
        self.invoke("completing", &mut script).await.map(fenced)
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let mut script = scripts::RELEASE.key(self.key(key));
        script.arg(record::encode_claim(claim)).arg(self.channel(key));
        self.invoke("releasing a claim", &mut script).await.map(fenced)
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection would show where it leads to, and as whom.
        f.debug_struct("RedisBackend")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
