//! The backend: each operation of the contract as Redis commands.
//!
//! Owns the names of keys and channels. Does not own the connections, nor how a stored value is read: [`reading`](crate::reading).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use idem_core::inspect::Inspector;
use idem_core::steps::StepStore;
use idem_core::{
    Acquisition, Backend, BackendError, BackendErrorKind, Changed, Claim, Completion, Fenced, LARGE_PAYLOAD, Record,
    RecordKey,
};
use redis::Cmd;

use crate::client::RedisClient;
use crate::completions::Completing;
use crate::connection::Connection;
use crate::large::{self, Reads};
use crate::record::{self, millis};
use crate::scripts::{self, NUMBER_LEN, Script};

/// How often a record that keeps changing is read again before the call fails as unavailable.
pub(crate) const LOOKS: usize = 8;

/// Records in Redis or Valkey, shared by every process that connects to it.
///
/// Clones share their connections. There are three to each server: for small calls, for large answers and for messages. Each
/// is opened when it is needed and replaced when it fails. Calls fail fast while the server is unreachable. The engine sets
/// the deadline of a call.
#[derive(Clone)]
pub struct RedisBackend {
    pub(crate) connection: Connection,
    pub(crate) reads: Arc<Reads>,
    prefix: Arc<str>,
}

impl RedisBackend {
    /// The default prefix of every key.
    pub const DEFAULT_PREFIX: &'static str = "idem";

    /// Connects. If a server's configuration can lose records, a warning is logged.
    ///
    /// | URL | leads to |
    /// |---|---|
    /// | `redis://[user:password@]host[:port][/db]` | one server |
    /// | `redis+unix:///path[?db=n]` | one server, over a socket of this machine |
    /// | `redis+cluster://[user:password@]host[:port],host[:port]…` | the cluster of these nodes |
    /// | `redis+sentinel://[user:password@]host[:port],…/name[/db]` | the server that these sentinels name as the primary of `name` |
    ///
    /// `rediss` in place of `redis` uses TLS (feature `rustls`). `valkey` and `valkeys` mean the same as `redis` and `rediss`.
    /// For sentinels with a password of their own, or for client certificates, use [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    ///
    /// - [`BackendErrorKind::Config`] if the URL cannot be used.
    /// - The error of the server or the network, if the connection cannot be made. For one server, that takes about a second
    ///   at most; for sentinels or a cluster of which some nodes do not answer, about five seconds.
    ///
    /// The call is not retried after that. The service decides whether it starts without its backend.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        let backend = Self::lazy(url)?;
        backend.connection.open().await?;
        Ok(backend)
    }

    /// Connects with the settings of a client that the application already has: a [`redis::Client`], a
    /// [`redis::sentinel::SentinelClient`], clients of some nodes of a cluster ([`RedisClient::cluster`]), or a
    /// [`redis::cluster::ClusterClient`].
    ///
    /// The backend opens its own connections and shares none with the application. The client must be a type of `redis` 1,
    /// the version that this crate exports as `idem_redis::redis`, and `idem-axum` as `idem_axum::redis`. A client of another
    /// version of that crate is a different type.
    ///
    /// ```no_run
    /// use idem_redis::{RedisBackend, redis};
    ///
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = redis::Client::open("redis://127.0.0.1/")?;
    /// let backend = RedisBackend::connect_with(client).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(client: impl Into<RedisClient>) -> Result<Self, BackendError> {
        let backend = Self::lazy_with(client)?;
        backend.connection.open().await?;
        Ok(backend)
    }

    /// Makes a backend that connects at its first call, so that a service can start before its Redis does.
    ///
    /// This function sends nothing and needs no runtime. While Redis is unreachable, requests get the same answer as in any
    /// outage: 503, or an unprotected run if the handler's `on_outage` says so. When Redis is reachable, the next call
    /// connects. [`Backend::check`] tells whether Redis is reachable now. The warnings of [`connect`](Self::connect) are
    /// logged after the first call has been answered.
    ///
    /// Use [`connect`](Self::connect) if a wrong address or password should keep the service from starting. With `lazy`, they
    /// look like an outage; each warning in the log names the cause.
    ///
    /// ```
    /// use idem_redis::RedisBackend;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let backend = RedisBackend::lazy("redis://127.0.0.1/")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BackendErrorKind::Config`] for a URL that cannot be used.
    pub fn lazy(url: &str) -> Result<Self, BackendError> {
        let client = RedisClient::for_url(url).map_err(|error| {
            BackendError::new(BackendErrorKind::Config, "the Redis URL cannot be used").with_source(error)
        })?;
        Self::lazy_with(client)
    }

    /// Does the same as [`lazy`](Self::lazy), with a client that the application already has. See
    /// [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    ///
    /// [`BackendErrorKind::Config`] for a client that cannot be used.
    pub fn lazy_with(client: impl Into<RedisClient>) -> Result<Self, BackendError> {
        Ok(Self {
            connection: Connection::new(client.into())?,
            reads: Arc::default(),
            prefix: Self::DEFAULT_PREFIX.into(),
        })
    }

    /// Sets the prefix of every key and channel, so that several applications can share a server. A `:` follows the prefix.
    ///
    /// The permissions of the Redis user must name the same prefix: for the prefix `orders`, `~orders:* &orders:*`.
    ///
    /// # Panics
    ///
    /// When `prefix` is empty or contains characters other than ASCII letters, digits, `-`, `_`, `.` and `:`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl AsRef<str>) -> Self {
        let prefix = prefix.as_ref();
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        assert!(
            !prefix.is_empty() && prefix.bytes().all(harmless),
            "a prefix is made of ASCII letters, digits, `-`, `_`, `.` and `:`"
        );
        self.prefix = prefix.into();
        self
    }

    /// The Redis key of the record. The braces make operation, scope and key the hash tag.
    pub(crate) fn key(&self, key: &RecordKey) -> String {
        self.named(key.as_str())
    }

    /// The Redis key of the record whose key, or pattern of keys, is `text`.
    pub(crate) fn named(&self, text: &str) -> String {
        [&self.prefix, ":{", text, "}"].concat()
    }

    /// What the Redis key of a record has before and after the record key.
    pub(crate) fn around(&self) -> (String, &'static str) {
        (format!("{}:{{", self.prefix), "}")
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key that the readiness check writes, or another one of that kind. It belongs to no record.
    pub(crate) fn check_key(&self) -> String {
        format!("{}:check", self.prefix)
    }

    /// The channel on which scripts publish the end of a claim. It is in the same hash slot as the record.
    fn channel(&self, key: &RecordKey) -> String {
        self.key(key) + ":c"
    }

    /// Runs a script that reports whether the claim was still in place.
    pub(crate) async fn fenced(
        &self,
        what: &'static str,
        name: &str,
        script: &Script,
        command: &Cmd,
    ) -> Result<Fenced, BackendError> {
        let applied = self.connection.invoke(what, name, script, command).await?;
        Ok(scripts::fenced(applied))
    }
}

impl RedisBackend {
    /// What a takeover by `claim` has found; `None` if the record has gone meanwhile.
    async fn taken(&self, name: &str, taken: Fenced, claim: &Claim) -> Result<Option<Acquisition>, BackendError> {
        if taken == Fenced::Applied {
            return Ok(Some(Acquisition::Acquired));
        }
        // Read by a command of its own: a script would copy the value.
        let Some(held) = self.get(name).await? else {
            return Ok(None);
        };
        // An earlier try of this call has written the claim, which has got steps since.
        if record::is_claim(&held, &record::encode_claim(claim)) {
            return Ok(Some(Acquisition::Acquired));
        }
        let record = self.examine(name, held).boxed().await?;
        Ok(record.map(Acquisition::Existing))
    }
}

pub(crate) fn busy() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, "the record changed at every look")
}

/// How long a claim stays in Redis: its lease, and then its `ttl`.
pub(crate) fn lifetime(claim: &Claim) -> u64 {
    millis(claim.ttl).saturating_add(millis(claim.lease))
}

impl Backend for RedisBackend {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let name = self.key(key);
        let value = record::encode_claim(claim);
        for _ in 0..LOOKS {
            let mut command = Cmd::with_capacity(7, name.len() + value.len() + NUMBER_LEN + "SETNXGETPX".len());
            command
                .arg("SET")
                .arg(&name)
                .arg(&value[..])
                .arg("NX")
                .arg("GET")
                .arg("PX")
                .arg(lifetime(claim));
            match self
                .connection
                .query::<Option<Vec<u8>>>("claiming", &name, &command)
                .await?
            {
                None => return Ok(Acquisition::Acquired),
                // An earlier try of this call has written the claim; its answer was lost.
                Some(held) if record::is_claim(&held, &value) => return Ok(Acquisition::Acquired),
                Some(held) => {
                    if let Some(record) = self.examine(&name, held).boxed().await? {
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
            if lapsed.has_steps {
                let taken = self.take_over_with_steps(&name, lapsed, claim).boxed().await?;
                if let Some(acquisition) = self.taken(&name, taken, claim).await? {
                    return Ok(acquisition);
                }
                continue;
            }
            let mut command = scripts::TAKE_OVER.on(&name, 4, 2 * (record::MAX_CLAIM_LEN + NUMBER_LEN));
            command
                .arg(&record::encode_claim(lapsed)[..])
                .arg(&record::encode_claim(claim)[..])
                .arg(millis(lapsed.ttl))
                .arg(lifetime(claim));
            let what = "taking over a lapsed claim";
            let taken: i64 = self
                .connection
                .invoke(what, &name, &scripts::TAKE_OVER, &command)
                .await?;
            if let Some(acquisition) = self.taken(&name, scripts::fenced(taken), claim).await? {
                return Ok(acquisition);
            }
        }
        Err(busy())
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let name = self.key(key);
        if claim.has_steps {
            return self.renew_with_steps(&name, claim).boxed().await;
        }
        let mut command = scripts::RENEW.on(&name, 2, record::MAX_CLAIM_LEN + NUMBER_LEN);
        command.arg(&record::encode_claim(claim)[..]).arg(lifetime(claim));
        let renewing = self
            .connection
            .invoke("renewing a lease", &name, &scripts::RENEW, &command);
        match renewing.await? {
            scripts::HAS_STEPS => self.renew_with_steps(&name, claim).boxed().await,
            renewed => Ok(scripts::fenced(renewed)),
        }
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        let name = self.key(key);
        if claim.has_steps {
            return self.complete_with_steps(&name, claim, completion, ttl).boxed().await;
        }
        let completed = match completion {
            Completion::Stored(payload) if payload.len() > LARGE_PAYLOAD => {
                large::complete(&self.connection, &name, claim, payload, ttl)
                    .boxed()
                    .await?
            }
            _ => {
                self.connection
                    .complete(Completing::new(name, claim, completion, ttl))
                    .await?
            }
        };
        if completed == scripts::HAS_STEPS {
            let name = self.key(key);
            return self.complete_with_steps(&name, claim, completion, ttl).boxed().await;
        }
        Ok(scripts::fenced(completed))
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let name = self.key(key);
        if claim.has_steps {
            return self.release_with_steps(&name, claim).boxed().await;
        }
        let script = scripts::RELEASE.on_cluster(self.connection.is_cluster());
        let mut command = script.on(&name, 1, record::MAX_CLAIM_LEN);
        command.arg(&record::encode_claim(claim)[..]);
        let releasing = self.connection.invoke("releasing a claim", &name, script, &command);
        match releasing.await? {
            scripts::HAS_STEPS => self.release_with_steps(&name, claim).boxed().await,
            released => Ok(scripts::fenced(released)),
        }
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        let name = self.key(key);
        match self.get(&name).await? {
            Some(held) => self.examine(&name, held).boxed().await,
            None => Ok(None),
        }
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.connection.changed(self.channel(key)).await
    }

    /// Writes a key that belongs to no record, so that a server which takes no writes fails the check. In a cluster, it asks
    /// one primary.
    async fn check(&self) -> Result<(), BackendError> {
        let name = self.check_key();
        let mut command = redis::cmd("SET");
        command.arg(&name).arg("").arg("PX").arg(1000);
        self.connection.query("checking", &name, &command).await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        Some(StepStore::of(self))
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        Some(Inspector::of(self))
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection would show the address and the user.
        f.debug_struct("RedisBackend")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
