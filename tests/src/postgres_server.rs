//! A real Postgres of its own for tests, never the system's.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{env, fs};

use idem_axum::PostgresBackend;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::Certificates;
use crate::redis_server::free_port;

/// A cluster in a temporary folder, on a free loopback port. What is committed survives being killed; only a crash of the
/// machine would lose it.
#[derive(Debug)]
pub struct PostgresServer {
    postmaster: Child,
    port: u16,
    folder: TempDir,
}

impl PostgresServer {
    /// Makes a cluster, starts its server and waits until it answers.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        make_cluster(&folder);
        Self::start_in(folder).await
    }

    /// The same, which speaks TLS with those who want it.
    pub async fn start_with_tls(certificates: &Certificates) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        make_cluster(&folder);
        let data = folder.path().join("data");
        certificates.copy_to(&data.join("server.crt"), &data.join("server.key"));
        give_to_postgres(&data);
        let settings = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"));
        let written = settings.and_then(|mut settings| writeln!(settings, "ssl = on"));
        written.expect("the file is there");
        Self::start_in(folder).await
    }

    /// A standby of this server, which follows it, and waits until it answers.
    pub async fn standby(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        give_to_postgres(folder.path());
        let mut copy = program("pg_basebackup", &folder);
        copy.args([
            "-R",
            "-c",
            "fast",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &self.port.to_string(),
        ]);
        let copied = copy.output().expect("pg_basebackup starts");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        Self::start_in(folder).await
    }

    /// Starts the server of the cluster in the folder, and waits until it answers.
    async fn start_in(folder: TempDir) -> Self {
        loop {
            let port = free_port();
            let mut postmaster = spawn(port, &folder);
            // It ends by itself where somebody else was faster to take the port.
            if answers(&mut postmaster, port).await {
                return Self {
                    postmaster,
                    port,
                    folder,
                };
            }
        }
    }

    /// The server that the tests of this process share, each with a schema of its own; it lives as long as one of them
    /// uses it. For tests that do nothing to it that others would notice.
    pub async fn shared() -> Arc<Self> {
        static RUNNING: Mutex<Weak<PostgresServer>> = Mutex::const_new(Weak::new());
        let mut running = RUNNING.lock().await;
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *running = Arc::downgrade(&server);
        server
    }

    /// Starts a server that was killed, on the same port and with what was committed, and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            self.postmaster = spawn(self.port, &self.folder);
            // It refuses for as long as a process of the one before has not quite gone.
            if answers(&mut self.postmaster, self.port).await {
                return;
            }
            assert!(Instant::now() < patience, "postgres does not start again");
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The address behind the URL.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// A connection beside the one under test.
    pub async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("the server answers")
    }

    /// Executes statements beside the connections under test.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connection().await;
        connection
            .execute(AssertSqlSafe(sql.to_owned()))
            .await
            .expect("the statement can be executed");
    }

    /// The first column of the first row of a query, beside the connections under test.
    pub async fn query<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        let mut connection = self.connection().await;
        query.fetch_one(&mut connection).await.expect("the query has a row")
    }

    /// A pool as an application would have it.
    pub async fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(8);
        options.connect(&self.url()).await.expect("the server answers")
    }

    /// A backend on a pool and in a schema of its own, with its table; and the name of the schema.
    pub async fn backend(&self) -> (PostgresBackend, String) {
        static SCHEMAS: AtomicU32 = AtomicU32::new(0);
        let schema = format!("test_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        let backend = PostgresBackend::new(self.pool().await).with_schema(&schema);
        backend.migrate().await.expect("the table can be made");
        (backend, schema)
    }

    /// How many locks of waiters there are on records of this schema: one a record and process.
    pub async fn waited_for(&self, schema: &str) -> i64 {
        let is_lock = Self::is_lock_of(schema);
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND {is_lock}"
        );
        self.query(&sql).await
    }

    /// SQL that says of a row of `pg_locks` whether it is a lock of those who wait for a record of this schema: the first
    /// eight bytes of its id.
    pub fn is_lock_of(schema: &str) -> String {
        format!(
            "EXISTS (SELECT FROM {schema}.idem_records AS record WHERE classid::bigint = \
             ('x' || encode(substr(record.id, 1, 4), 'hex'))::bit(32)::bigint AND objid::bigint = \
             ('x' || encode(substr(record.id, 5, 4), 'hex'))::bit(32)::bigint)"
        )
    }

    /// Stops all its processes where they are, by SIGSTOP; [`thaw`](Self::thaw) lets them go on.
    pub fn freeze(&self) {
        // First the one that would start others.
        signal("-STOP", &[self.postmaster.id()]);
        signal("-STOP", &self.children());
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        signal("-CONT", &self.children());
        signal("-CONT", &[self.postmaster.id()]);
    }

    /// Closes the connections of everybody else.
    pub async fn kill_clients(&self) {
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .await;
    }

    /// Closes the connections with these ids, those that are still there.
    pub async fn terminate(&self, ids: &[i32]) {
        let terminate = sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY($1)");
        let terminated = terminate.bind(ids).execute(&mut self.connection().await).await;
        terminated.expect("the server answers");
    }

    /// Changes a setting for everybody, those who are connected included.
    pub async fn set(&self, setting: &str, value: &str) {
        // Each by itself: the first is refused in a transaction.
        self.execute(&format!("ALTER SYSTEM SET {setting} = '{value}'")).await;
        self.execute("SELECT pg_reload_conf()").await;
    }

    /// A connection that holds what `sql` takes until it is dropped.
    pub async fn hold(&self, sql: &str) -> PgConnection {
        let mut holder = self.connection().await;
        let held = holder.execute(AssertSqlSafe(format!("BEGIN; {sql}"))).await;
        held.expect("nobody keeps it for long");
        holder
    }

    /// Kills one of its processes with SIGKILL, after which it ends all others and recovers, and waits until it answers
    /// again.
    pub async fn crash(&mut self) {
        let mut victim = self.connection().await;
        let id: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut victim)
            .await
            .expect("it answers");
        let mut other = self.connection().await;
        signal("-KILL", &[id.unsigned_abs()]);
        while other.ping().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(answers(&mut self.postmaster, self.port).await, "postgres ends");
    }

    /// Shuts it down in the mode `immediate`: its processes end where they are, and it recovers when it starts again.
    pub fn shut_down_at_once(&mut self) {
        signal("-QUIT", &[self.postmaster.id()]);
        let _ = self.postmaster.wait();
    }

    /// Kills all its processes with SIGKILL.
    pub fn kill(&mut self) {
        if matches!(self.postmaster.try_wait(), Ok(Some(_))) {
            return;
        }
        // Its children are in groups of their own, so each is killed by its id.
        signal("-STOP", &[self.postmaster.id()]);
        let children = self.children();
        // It is gone either way.
        let _ = self.postmaster.kill();
        signal("-KILL", &children);
        let _ = self.postmaster.wait();
    }

    /// The processes that the postmaster has started.
    fn children(&self) -> Vec<u32> {
        let listed = Command::new("ps").args(["-A", "-o", "ppid=", "-o", "pid="]).output();
        let listed = listed.expect("`ps` lists processes").stdout;
        let child = |line: &str| {
            let (parent, child) = line.trim().split_once(char::is_whitespace)?;
            let is_ours = parent.parse() == Ok(self.postmaster.id());
            is_ours.then(|| child.trim().parse().ok())?
        };
        String::from_utf8_lossy(&listed).lines().filter_map(child).collect()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Some of the processes may have ended meanwhile.
fn signal(signal: &str, processes: &[u32]) {
    if !processes.is_empty() {
        let processes = processes.iter().map(u32::to_string);
        let _ = Command::new("kill")
            .arg(signal)
            .args(processes)
            .stderr(Stdio::null())
            .status();
    }
}

/// The folder of Postgres's programs, which Debian keeps off the PATH; or the one that `IDEM_POSTGRES_BIN` names.
fn programs() -> PathBuf {
    let named = env::var_os("IDEM_POSTGRES_BIN").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let on_the_path = env::split_paths(&path);
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    let mut folders = named.into_iter().chain(on_the_path).chain(versions.into_iter().rev());
    let found = folders.find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file());
    let found = found.expect("Postgres is installed; `cargo xtask setup` installs it");
    // A link on the PATH leads to the folder that has all of them.
    let initdb = found.join("initdb").canonicalize().ok();
    initdb
        .and_then(|initdb| Some(initdb.parent()?.to_owned()))
        .unwrap_or(found)
}

/// A program of Postgres's, on the cluster in the folder.
fn program(name: &str, folder: &TempDir) -> Command {
    let mut command = run_as_postgres(&programs().join(name));
    command.arg("-D").arg(folder.path().join("data"));
    command
        .current_dir(folder.path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A program that refuses to run as root: as the user `postgres` then.
pub(crate) fn run_as_postgres(program: &Path) -> Command {
    if !we_are_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(program);
    command
}

/// Gives a folder and what is in it to the user whom [`run_as_postgres`] runs programs as.
pub(crate) fn give_to_postgres(folder: &Path) {
    if we_are_root() {
        let given = Command::new("chown").args(["-R", "postgres"]).arg(folder).status();
        assert!(
            given.is_ok_and(|status| status.success()),
            "there is no user `postgres`; `cargo xtask setup` installs Postgres"
        );
    }
}

fn we_are_root() -> bool {
    let made_by_us = tempfile::tempfile().expect("a temporary file");
    made_by_us.metadata().is_ok_and(|file| file.uid() == 0)
}

fn make_cluster(folder: &TempDir) {
    give_to_postgres(folder.path());
    let mut initdb = program("initdb", folder);
    initdb.args([
        "--username=postgres",
        "--auth=trust",
        "--no-sync",
        "--encoding=UTF8",
        "--locale=C",
    ]);
    let made = initdb.output().expect("initdb starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn spawn(port: u16, folder: &TempDir) -> Child {
    let log = fs::File::create(folder.path().join("log")).expect("the folder is ours");
    let mut postgres = program("postgres", folder);
    postgres.args(["-p", &port.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        "fsync=off",
    ] {
        postgres.args(["-c", setting]);
    }
    postgres.stderr(log).spawn().expect("postgres starts")
}

/// Waits until the server answers; false if it ends before.
async fn answers(postmaster: &mut Child, port: u16) -> bool {
    let patience = Instant::now() + Duration::from_secs(30);
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    loop {
        let connected = PgConnection::connect(&url).await;
        if postmaster.try_wait().expect("it is our child").is_some() {
            return false;
        }
        if let Ok(connection) = connected {
            return connection.close().await.is_ok();
        }
        assert!(Instant::now() < patience, "postgres does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
