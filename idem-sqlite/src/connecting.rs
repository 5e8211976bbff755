//! Opening the database file.
//!
//! Owns what must be true of a connection of idem's own: a file (not memory), on a file system of this machine, with a write-ahead
//! log, and commits that have reached the disk. Does not own what is done over a connection.

use std::path::Path;
use std::time::Duration;

use idem_core::{BackendError, BackendErrorKind};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};

use crate::error::backend_error;
use crate::table::text;

const OPENING: &str = "opening the database";

/// How long a connection waits in the thread of its own for a lock that a stranger holds, such as that of the log's recovery. The
/// deadline of the call that waits for it is the engine's.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens a connection that only reads.
pub(crate) async fn reader(options: &SqliteConnectOptions) -> Result<SqliteConnection, BackendError> {
    let mut connection = connect(options, PATIENCE).await?;
    execute(&mut connection, "PRAGMA query_only = ON").await?;
    Ok(connection)
}

/// Opens a connection that writes, and that does not wait for locks: whoever uses it tries again.
pub(crate) async fn writer(options: &SqliteConnectOptions) -> Result<SqliteConnection, BackendError> {
    let mut connection = connect(options, PATIENCE).await?;
    execute(&mut connection, "PRAGMA busy_timeout = 0").await?;
    Ok(connection)
}

/// Opens a connection that waits for `patience` where the database is locked.
pub(crate) async fn connect(
    options: &SqliteConnectOptions,
    patience: Duration,
) -> Result<SqliteConnection, BackendError> {
    refuse_network(options.get_filename())?;
    let options = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(patience)
        .thread_name(|id| format!("idem-sqlite-{id}"))
        .disable_statement_logging();
    let failed = |error| backend_error(OPENING, error).not_written();
    let mut connection = options.connect().await.map_err(failed)?;
    let mode = sqlx::query("PRAGMA journal_mode").fetch_one(&mut connection).await;
    let mode: String = mode.and_then(|row| row.try_get(0)).map_err(failed)?;
    if mode == "wal" {
        return Ok(connection);
    }
    let context = match mode.as_str() {
        "memory" => "the database is in memory; records need a file, which survives the process",
        _ => "the database has no write-ahead log, and cannot be given one",
    };
    Err(BackendError::new(BackendErrorKind::Config, context).not_written())
}

pub(crate) async fn execute(connection: &mut SqliteConnection, sql: &str) -> Result<(), BackendError> {
    let executed = sqlx::raw_sql(text(sql.to_owned())).execute(connection).await;
    executed
        .map(drop)
        .map_err(|error| backend_error(OPENING, error).not_written())
}

/// Creates the file, so that only its owner can read it. SQLite gives the log beside it the same permissions.
pub(crate) fn create(path: &Path) -> Result<(), BackendError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_created) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(backend_error("creating the database file", sqlx::Error::Io(error)).not_written()),
    }
}

/// Which file has this name now. Whoever has opened a file keeps it, also if it is deleted or replaced.
#[cfg(unix)]
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;

    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// An open file can be neither deleted nor replaced.
#[cfg(not(unix))]
pub(crate) fn identity(_path: &Path) -> Option<(u64, u64)> {
    None
}

/// Fails if the file is on a network file system, whose locks and shared memory do not reach other machines.
#[cfg(target_os = "linux")]
fn refuse_network(file: &Path) -> Result<(), BackendError> {
    /// The numbers that Linux gives these file systems, from `statfs(2)`: NFS, SMB, CIFS, SMB2, AFS, Coda, Ceph, 9P.
    const NETWORK: [u32; 8] = [
        0x6969,
        0x517B,
        0xFF53_4D42,
        0xFE53_4D42,
        0x5346_414F,
        0x7375_7245,
        0x00C3_6400,
        0x0102_1997,
    ];
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    // What cannot be asked is left to SQLite to refuse.
    let Ok(system) = rustix::fs::statfs(folder.unwrap_or(Path::new("."))) else {
        return Ok(());
    };
    let is_network = u32::try_from(system.f_type & 0xFFFF_FFFF).is_ok_and(|kind| NETWORK.contains(&kind));
    if is_network {
        let context = "the database is on a network file system, where machines would not see each other's locks; use Redis \
                       or Postgres for more than one machine";
        return Err(BackendError::new(BackendErrorKind::Config, context).not_written());
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_file: &Path) -> Result<(), BackendError> {
    Ok(())
}
