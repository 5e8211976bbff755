//! Whether the file and its tables are as they should be.
//!
//! Owns the checks, each of which is bounded whatever the size of the file. Does not own the requirements on a connection, which
//! are checked whenever one is opened: [`connecting`].

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use idem_core::BackendError;
use idem_core::columns::listed;
use idem_core::inspect::{Finding, Listed, Selection};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use tokio::time::timeout;

use super::{arguments, name_of, summary};
use crate::SqliteBackend;
use crate::change::Change;
use crate::clock::Clock;
use crate::error::backend_error;
use crate::record::Parameters;
use crate::table::text;
use crate::{connecting, migrations};

const WHAT: &str = "checking the database";

/// How long the check of writing waits for its turn.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// How many records are read, to find some that cannot be.
const SAMPLE: u32 = 200;

const MEBI: u64 = 1024 * 1024;

/// A log of this size or more is not emptied, because somebody reads an old state of the database.
const LARGE_LOG: u64 = 64 * MEBI;

/// With less room than this on the disk, writes may fail soon.
const LITTLE_ROOM: u64 = 100 * MEBI;

/// Up to this size, the whole file is checked for damage.
const CHECKED_AS_A_WHOLE: u64 = 64 * MEBI;

type Checked = Result<Finding, BackendError>;

/// All findings. Fails if the file cannot be opened.
pub(super) async fn diagnose(backend: &SqliteBackend) -> Result<Vec<Finding>, BackendError> {
    let options = &backend.store().options;
    let mut connection = connecting::reader(options).await?;
    let connection = &mut connection;
    let path = options.get_filename();
    let mut findings = vec![
        checked("version", version(connection).await),
        Finding::good(
            "file-system",
            "the file is not on a network file system, as far as the system tells",
        ),
        log(path),
        permissions(path),
        checked("disk", disk(path, connection).await),
        clock(backend),
        writing(backend).await,
        checked("damage", damage(connection).await),
    ];
    let tables = tables(backend, connection).await;
    let are_there = tables.is_ok();
    findings.push(tables.unwrap_or_else(|missing| missing));
    if are_there {
        findings.push(checked("migrations", migrations(backend, connection).await));
        findings.push(checked("triggers", beside(backend, connection).await));
        findings.push(checked("sweeper", sweeper(backend, connection).await));
        findings.push(checked("records", records(backend, connection).await));
    }
    Ok(findings)
}

/// The finding of a check, or why it could not be made.
fn checked(check: &'static str, found: Checked) -> Finding {
    found.unwrap_or_else(|error| Finding::unchecked(check, with_cause(&error)))
}

/// The error and its cause. Neither shows more than the name of the file.
fn with_cause(error: &BackendError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

async fn version(connection: &mut SqliteConnection) -> Checked {
    let version: String = value_of(connection, "SELECT sqlite_version()").await?;
    Ok(Finding::good(
        "version",
        format!("SQLite {version}, which is part of this program"),
    ))
}

/// The connection would not have been opened without a write-ahead log.
fn log(file: &Path) -> Finding {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    let len = std::fs::metadata(name).map_or(0, |log| log.len());
    let there = format!(
        "there is a write-ahead log of {} MiB, and each commit reaches the disk",
        len / MEBI
    );
    if len < LARGE_LOG {
        return Finding::good("log", there);
    }
    let text = there + "; it grows while a connection keeps a read transaction open: look for one in your application";
    Finding::warning("log", text)
}

#[cfg(unix)]
fn permissions(file: &Path) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;

    const CHECK: &str = "permissions";
    /// Other users may read.
    const OTHERS_READ: u32 = 0o004;
    match std::fs::metadata(file) {
        Ok(found) if found.permissions().mode() & OTHERS_READ == 0 => {
            Finding::good(CHECK, "other users of this machine cannot read the file")
        }
        Ok(_) => {
            let text = "every user of this machine can read the file, and the stored answers in it: run `chmod o=` on it, \
                        and on the files beside it whose names end in `-wal` and `-shm`";
            Finding::warning(CHECK, text)
        }
        Err(error) => Finding::unchecked(CHECK, error.to_string()),
    }
}

#[cfg(not(unix))]
fn permissions(_file: &Path) -> Finding {
    Finding::unchecked("permissions", "this system's permissions are not known to idem")
}

/// How large the file is, and how much room there is for more.
async fn disk(file: &Path, connection: &mut SqliteConnection) -> Checked {
    let [pages, free] = pages(connection).await?;
    let size = format!(
        "the file has {} MiB, of which {} are free for new records",
        pages / MEBI,
        free / MEBI
    );
    Ok(match room(file) {
        None => Finding::good("disk", size),
        Some(room) if room < LITTLE_ROOM => {
            let text = format!(
                "{size}; the disk has {} MiB left; when it is full, requests with new keys get 503",
                room / MEBI
            );
            Finding::warning("disk", text)
        }
        Some(room) => Finding::good("disk", format!("{size}; the disk has {} MiB left", room / MEBI)),
    })
}

/// The bytes of all pages, and of those that are free.
async fn pages(connection: &mut SqliteConnection) -> Result<[u64; 2], BackendError> {
    let size: i64 = value_of(connection, "PRAGMA page_size").await?;
    let mut bytes = [0; 2];
    for (bytes, pages) in bytes.iter_mut().zip(["PRAGMA page_count", "PRAGMA freelist_count"]) {
        let pages: i64 = value_of(connection, pages).await?;
        *bytes = pages.unsigned_abs().saturating_mul(size.unsigned_abs());
    }
    Ok(bytes)
}

/// The bytes that are left on the disk of the file.
#[cfg(target_os = "linux")]
fn room(file: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(file).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(target_os = "linux"))]
fn room(_file: &Path) -> Option<u64> {
    None
}

fn clock(backend: &SqliteBackend) -> Finding {
    match backend.changes.clock() {
        Ok(clock) if clock.is_of_boot() => Finding::good("clock", "leases go by the boot clock, which nobody can set"),
        Ok(_) => {
            let text = "leases go by the time of day: setting it forward ends leases early";
            Finding::warning("clock", text)
        }
        Err(error) => Finding::failing("clock", with_cause(&error)),
    }
}

/// Commits a transaction that writes no record.
async fn writing(backend: &SqliteBackend) -> Finding {
    const CHECK: &str = "writing";
    let write = backend.changes.make(|answer| Change::Touch { answer });
    match timeout(WRITE_LIMIT, write).await {
        Ok(Ok(())) => Finding::good(CHECK, "the file can be written"),
        Ok(Err(error)) => Finding::failing(CHECK, with_cause(&error)),
        Err(_elapsed) => {
            let text =
                "a transaction of the application has been writing for a second or longer; all claims wait for it";
            Finding::warning(CHECK, text)
        }
    }
}

async fn damage(connection: &mut SqliteConnection) -> Checked {
    const CHECK: &str = "damage";
    let [size, _] = pages(connection).await?;
    if size > CHECKED_AS_A_WHOLE {
        let text = "the file is too large to be checked here; `PRAGMA quick_check` checks it";
        return Ok(Finding::unchecked(CHECK, text));
    }
    let found: String = value_of(connection, "PRAGMA quick_check(1)").await?;
    Ok(if found == "ok" {
        Finding::good(CHECK, "`PRAGMA quick_check` finds no damage")
    } else {
        Finding::failing(CHECK, format!("`PRAGMA quick_check` finds: {found}"))
    })
}

/// Whether every table has every column.
async fn tables(backend: &SqliteBackend, connection: &mut SqliteConnection) -> Result<Finding, Finding> {
    let columns = sqlx::query(backend.store().statements.operator.columns.clone());
    match columns.fetch_optional(connection).await {
        Ok(_) => Ok(Finding::good("tables", "all tables and columns are there")),
        Err(error) => Err(Finding::failing("tables", with_cause(&failed(error)))),
    }
}

async fn migrations(backend: &SqliteBackend, connection: &mut SqliteConnection) -> Checked {
    const CHECK: &str = "migrations";
    let name = &backend.store().name;
    let notes = format!(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '{}_migrations'",
        name.plain()
    );
    if value_of::<i64>(connection, &notes).await? == 0 {
        let text = "`SqliteBackend::migrate` has never run, so the application's own migrations have made the tables";
        return Ok(Finding::good(CHECK, text));
    }
    let (done, known) = (migrations::done(connection, name).await?, migrations::known());
    if let Some((version, _)) = done.iter().find(|done| !known.contains(done)) {
        let text = format!(
            "migration {version} has run, which this version of idem does not know: running processes go on, but none of \
             this version starts any more; update them"
        );
        return Ok(Finding::warning(CHECK, text));
    }
    Ok(if done.len() < known.len() {
        let text = format!(
            "{} of {} migrations have run: run `SqliteBackend::migrate`",
            done.len(),
            known.len()
        );
        Finding::failing(CHECK, text)
    } else {
        Finding::good(CHECK, format!("all {} have run", known.len()))
    })
}

/// The triggers that delete steps, and the index of the sweep.
async fn beside(backend: &SqliteBackend, connection: &mut SqliteConnection) -> Checked {
    const CHECK: &str = "triggers";
    let beside = sqlx::query(backend.store().statements.operator.beside.clone());
    let found = beside.fetch_all(connection).await.map_err(failed)?;
    let of_type = |wanted: &str| {
        let types = found.iter().filter_map(|row| row.try_get::<String, _>(0).ok());
        types.filter(|found| found == wanted).count()
    };
    Ok(if of_type("trigger") < 2 {
        let text = "a trigger is missing that deletes the steps of a record with it: a later request with the same key would \
                    take them for its own; create the triggers of `idem_sqlite::MIGRATIONS`";
        Finding::failing(CHECK, text)
    } else if of_type("index") == 0 {
        let text = "the index on `expires_ms` is missing, so each sweep reads the whole table: create the index of \
                    `idem_sqlite::MIGRATIONS`";
        Finding::warning(CHECK, text)
    } else {
        Finding::good(CHECK, "the triggers and the index are there")
    })
}

async fn sweeper(backend: &SqliteBackend, connection: &mut SqliteConnection) -> Checked {
    const CHECK: &str = "sweeper";
    let at = (backend.changes.clock()?, Clock::now());
    let now = arguments(WHAT, Parameters::none().at(at))?;
    let late = sqlx::query_with(backend.store().statements.operator.late.clone(), now);
    let row = late.fetch_one(connection).await.map_err(failed)?;
    let (count, age_ms): (i64, Option<i64>) = read(&row)?;
    let Some(age_ms) = age_ms else {
        return Ok(Finding::good(CHECK, "no record has expired more than an hour ago"));
    };
    let at_least = if count == 1_000 { "at least " } else { "" };
    let text = format!(
        "{at_least}{count} records have expired more than an hour ago, the first one {} h ago: no process sweeps them, or \
         none is fast enough. See `SqliteBackend::with_sweeper`. Requests are not affected, but the file grows",
        age_ms.unsigned_abs() / 3_600_000
    );
    Ok(Finding::warning(CHECK, text))
}

/// Reads some records, to find those in a form of another version.
async fn records(backend: &SqliteBackend, connection: &mut SqliteConnection) -> Checked {
    const CHECK: &str = "records";
    let at = (backend.changes.clock()?, Clock::now());
    let limit = arguments(WHAT, Parameters::limit(SAMPLE))?;
    let sample = sqlx::query_with(backend.store().statements.operator.sample.clone(), limit);
    let rows = sample.fetch_all(connection).await.map_err(failed)?;
    let mut unreadable = Vec::new();
    for row in &rows {
        let name = name_of(row).map_err(failed)?;
        if let Some(Listed::Unreadable(found)) = listed(&name, &Selection::all(), |key| summary(row, key, at)) {
            unreadable.push(found.why);
        }
    }
    let looked = format!("of the {} records that were written last", rows.len());
    Ok(match unreadable.first() {
        None => Finding::good(CHECK, format!("{looked}, each can be read")),
        Some(why) => {
            let text = format!(
                "{looked}, {} cannot be read ({why}): a request with such a key gets 503 until the record expires; another \
                 version of idem has written it, or something else has",
                unreadable.len()
            );
            Finding::failing(CHECK, text)
        }
    })
}

/// The one value that a statement of this module finds.
async fn value_of<T>(connection: &mut SqliteConnection, sql: &str) -> Result<T, BackendError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    let row = sqlx::query(text(sql.to_owned())).fetch_one(connection).await;
    row.and_then(|row| row.try_get(0)).map_err(failed)
}

fn read(row: &SqliteRow) -> Result<(i64, Option<i64>), BackendError> {
    let read = || Ok((row.try_get(0)?, row.try_get(1)?));
    read().map_err(failed)
}

fn failed(error: sqlx::Error) -> BackendError {
    backend_error(WHAT, error).not_written()
}
