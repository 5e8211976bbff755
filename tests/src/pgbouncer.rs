//! A real `PgBouncer` in front of a Postgres server of the tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::PostgresServer;
use crate::postgres_server::{give_to_postgres, run_as_postgres};
use crate::redis_server::free_port;

/// A `PgBouncer` in transaction mode, on a free loopback port: it lends a connection to the server for one transaction, and
/// the next transaction of the same client may get another connection. It is killed when this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts one that has three connections to `server`, and waits until it answers.
    pub async fn before(server: &PostgresServer) -> Self {
        Self::before_with(server, &[]).await
    }

    /// The same with lines for the section `[pgbouncer]` of its configuration. They come last and win over the usual ones.
    pub async fn before_with(server: &PostgresServer, settings: &[&str]) -> Self {
        loop {
            let mut bouncer = Self::spawn(server, settings);
            // It ends by itself where somebody else was faster to take the port.
            if bouncer.answers().await {
                return bouncer;
            }
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

    fn spawn(server: &PostgresServer, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 3\nignore_startup_parameters = extra_float_digits\n{}\n",
            server.address().port(),
            settings.join("\n"),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, configuration).expect("the folder is ours");
        let log = fs::File::create(folder.path().join("log")).expect("the folder is ours");
        give_to_postgres(folder.path());
        let mut command = run_as_postgres(&program());
        command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self {
            child: command.spawn().expect("pgbouncer starts"),
            port,
            _folder: folder,
        }
    }

    /// Waits until the server behind it answers; false if it ends before.
    async fn answers(&mut self) -> bool {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let connected = PgConnection::connect(&self.url()).await;
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            if let Ok(connection) = connected {
                return connection.close().await.is_ok();
            }
            assert!(Instant::now() < patience, "pgbouncer does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, which Debian keeps where only an administrator's PATH leads.
fn program() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let program = folders.find_map(|folder| Some(folder.join("pgbouncer")).filter(|file| file.is_file()));
    program.expect("PgBouncer is installed; `cargo xtask setup` installs it")
}
