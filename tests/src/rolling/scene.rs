//! The stage of one case: records that are empty, a provider, and processes of both versions.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tempfile::TempDir;

use super::provider::Provider;
use crate::{Answer, Call, Client, PostgresServer, Process, Program, RedisServer};

/// The two binaries of the service.
#[derive(Clone, Debug)]
pub struct Versions {
    /// Knows no steps.
    pub old: PathBuf,
    /// Of this version.
    pub new: PathBuf,
}

/// What has the records.
#[derive(Debug)]
pub(super) enum Server {
    Redis(RedisServer),
    Postgres(PostgresServer),
    /// A folder of files. [`SqliteFile`](crate::SqliteFile) is none of them: this version would have made its tables.
    Sqlite(TempDir),
}

impl Server {
    pub(super) const NAMES: [&str; 3] = ["Redis", "Postgres", "SQLite"];

    /// One of each kind, in the order of their names.
    pub(super) async fn start_all() -> [Self; 3] {
        [
            Self::Redis(RedisServer::start().await),
            Self::Postgres(PostgresServer::start().await),
            Self::Sqlite(tempfile::tempdir().expect("a temporary folder")),
        ]
    }

    /// Where records are kept that are not there yet, nor their tables.
    async fn empty(&self, case: usize) -> String {
        match self {
            Self::Redis(redis) => {
                redis.tell("FLUSHALL").await;
                redis.url()
            }
            Self::Postgres(postgres) => {
                postgres.execute(&format!("CREATE DATABASE case_{case}")).await;
                let url = postgres.url();
                let server = url.rsplit_once('/').map_or(&url[..], |(server, _)| server);
                format!("{server}/case_{case}")
            }
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join(format!("case-{case}.db")).display()),
        }
    }
}

/// One case's.
pub(super) struct Scene<'a> {
    pub(super) server: &'a Server,
    url: String,
    versions: &'a Versions,
    pub(super) provider: Provider,
}

impl<'a> Scene<'a> {
    pub(super) async fn set(server: &'a Server, versions: &'a Versions, case: usize) -> Self {
        Self {
            server,
            url: server.empty(case).await,
            versions,
            provider: Provider::start().await,
        }
    }

    /// A process of the old version; `None` if it does not start.
    pub(super) fn try_start_old(&self) -> Option<Process> {
        start(&self.program(&self.versions.old, "old").quiet())
    }

    pub(super) fn start_old(&self) -> Process {
        start(&self.program(&self.versions.old, "old")).expect("the old version starts")
    }

    pub(super) fn start_new(&self) -> Process {
        start(&self.program(&self.versions.new, "new")).expect("the new version starts")
    }

    /// A process of each version, in the order of a deploy.
    pub(super) fn deploy(&self) -> (Process, Process) {
        (self.start_old(), self.start_new())
    }

    fn program(&self, binary: &Path, name: &str) -> Program {
        Program::new(binary, &self.url).told("PROVIDER_URL", &self.provider.url(name))
    }

    /// Whether the old version could have made these tables. Redis has none.
    pub(super) async fn has_tables_of_steps(&self) -> Option<bool> {
        let sql = match self.server {
            Server::Redis(_) => return None,
            Server::Postgres(_) => "SELECT count(*) FROM pg_tables WHERE tablename = 'idem_records_steps'",
            Server::Sqlite(_) => "SELECT count(*) FROM sqlite_schema WHERE name = 'idem_records_steps'",
        };
        Some(self.number(sql).await > 0)
    }

    /// How many records and steps there are.
    pub(super) async fn count(&self) -> i64 {
        match self.server {
            Server::Redis(redis) => i64::try_from(redis.records().await).expect("a small number"),
            Server::Postgres(_) | Server::Sqlite(_) => {
                let sql = "SELECT (SELECT count(*) FROM idem_records) + (SELECT count(*) FROM idem_records_steps)";
                self.number(sql).await
            }
        }
    }

    /// Waits until a request waits for a record. In SQLite, nobody can see that.
    pub(super) async fn wait_for_a_waiter(&self) {
        match self.server {
            Server::Redis(redis) => crate::until("a request waits", async || redis.channels().await > 0).await,
            Server::Postgres(_) => {
                let locks =
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted";
                crate::until("a request waits", async || self.number(locks).await > 0).await;
            }
            Server::Sqlite(_) => {}
        }
    }

    /// All that is stored of records, leases and steps.
    pub(super) async fn stored(&self) -> String {
        match self.server {
            Server::Redis(redis) => keys(redis).await,
            Server::Postgres(_) => {
                let rows = |table| {
                    format!("(SELECT coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), '') FROM {table} AS r)")
                };
                let tables = ["idem_records", "idem_records_leases", "idem_records_steps"].map(rows);
                self.text(&format!("SELECT concat_ws(E'\\n', {})", tables.join(", ")))
                    .await
            }
            Server::Sqlite(_) => {
                let records = [
                    "key",
                    "state",
                    "token",
                    "attempt",
                    "fingerprint",
                    "lease_ms",
                    "ttl_ms",
                    "began_ms",
                    "owner",
                    "boot",
                    "lapses_ns",
                    "expires_ms",
                    "payload",
                ];
                let rows = |table: &str, columns: &[&str]| {
                    let quoted: Vec<_> = columns.iter().map(|column| format!("quote({column})")).collect();
                    let row = quoted.join(" || ',' || ");
                    format!("(SELECT coalesce(group_concat({row}, char(10) ORDER BY key), '') FROM {table})")
                };
                let records = rows("idem_records", &records);
                let steps = rows("idem_records_steps", &["key", "name", "step"]);
                self.text(&format!("SELECT {records} || char(10) || {steps}")).await
            }
        }
    }

    async fn number(&self, sql: &str) -> i64 {
        let number = self.text(&format!("SELECT CAST(({sql}) AS text)")).await;
        number.parse().expect("a number")
    }

    async fn text(&self, sql: &str) -> String {
        let sql = AssertSqlSafe(sql.to_owned());
        let found = match self.server {
            Server::Sqlite(_) => {
                let path = self.url.trim_start_matches("sqlite:");
                let options = SqliteConnectOptions::new().filename(path);
                let mut file = options.connect().await.expect("the file is there");
                sqlx::query_scalar(sql).fetch_one(&mut file).await
            }
            Server::Redis(_) | Server::Postgres(_) => {
                let mut database = PgConnection::connect(&self.url).await.expect("the server answers");
                sqlx::query_scalar(sql).fetch_one(&mut database).await
            }
        };
        found.expect("a valid query")
    }
}

/// Starts a process and waits for it, while the tasks of this process go on.
fn start(program: &Program) -> Option<Process> {
    tokio::task::block_in_place(|| program.try_start())
}

/// The value of each key, and when it expires.
async fn keys(redis: &RedisServer) -> String {
    let mut connection = redis.connection().await;
    let mut keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .expect("KEYS is allowed");
    keys.sort();
    let mut lines = Vec::new();
    for key in keys {
        let mut asked = redis::pipe();
        asked.cmd("DUMP").arg(&key).cmd("PEXPIRETIME").arg(&key);
        let (value, expires): (Vec<u8>, i64) = asked.query_async(&mut connection).await.expect("both are allowed");
        lines.push(format!("{key} {} {expires}", value.escape_ascii()));
    }
    lines.join("\n")
}

/// A payment, under its reference as the key.
pub(super) fn pay(process: &Process, route: &str, reference: &str) -> Call {
    pay_for(process, route, reference, 0)
}

/// The same with an answer of this length.
pub(super) fn pay_for(process: &Process, route: &str, reference: &str, answer_len: usize) -> Call {
    pay_by(&process.client, route, reference, answer_len)
}

/// The same by a client that may be elsewhere than the process.
pub(super) fn pay_by(client: &Client, route: &str, reference: &str, answer_len: usize) -> Call {
    let payment = serde_json::json!({ "account": "acme", "reference": reference, "answer_len": answer_len });
    let call = client.call(reqwest::Method::POST, route);
    call.json(&payment).key(reference)
}

/// A payment whose answer may never come, because its process is killed.
pub(super) fn begin(call: Call) -> tokio::task::JoinHandle<Option<Answer>> {
    tokio::spawn(async move { call.try_send().await.ok() })
}
