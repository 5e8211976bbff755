//! The migrations that create the table.
//!
//! Owns the migrations and running them. They run in one transaction. A table beside that of the records lists the migrations that
//! have run; its name differs from that of sqlx, so that these migrations do not collide with the application's. Does not own the
//! meaning of the columns: [`record`](crate::record).

use std::time::Duration;

use idem_core::{BackendError, BackendErrorKind};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{Connection as _, Row as _, SqliteConnection};

use crate::connecting;
use crate::error::backend_error;
use crate::table::{Name, text};

/// Every migration in order, as a name and its SQL, for the table `idem_records`.
///
/// Use them to create the table by your own migrations. Otherwise call [`SqliteBackend::migrate`](crate::SqliteBackend::migrate).
/// Later versions of this crate append migrations and change none. For another table, replace the name.
pub const MIGRATIONS: &[(&str, &str)] = &[
    ("records", include_str!("../migrations/0001_records.sql")),
    ("steps", include_str!("../migrations/0002_steps.sql")),
    ("unknown_states", include_str!("../migrations/0003_unknown_states.sql")),
];

const WHAT: &str = "migrating";

/// How long a migration waits for another process that migrates or writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the migrations that have not been run yet.
pub(crate) async fn run(options: &SqliteConnectOptions, name: &Name) -> Result<(), BackendError> {
    let mut connection = connecting::connect(options, PATIENCE).await?;
    fetch(&mut connection, "BEGIN IMMEDIATE".to_owned()).await?;
    let notes = name.quoted_with("_migrations");
    let create =
        format!("CREATE TABLE IF NOT EXISTS {notes} (version INTEGER PRIMARY KEY, description TEXT NOT NULL) STRICT");
    fetch(&mut connection, create).await?;
    let done = done(&mut connection, name).await?;
    let known = known();
    if let Some((version, _)) = done.iter().find(|done| !known.contains(done)) {
        let context = format!("migration {version} of {notes} is not one of this version's");
        return Err(BackendError::new(BackendErrorKind::Config, context));
    }
    for (version, (description, sql)) in (1_i64..).zip(MIGRATIONS).skip(done.len()) {
        fetch(&mut connection, sql.replace("idem_records", name.plain())).await?;
        let note = format!("INSERT INTO {notes} (version, description) VALUES ({version}, '{description}')");
        fetch(&mut connection, note).await?;
    }
    fetch(&mut connection, "COMMIT".to_owned()).await?;
    connection.close().await.map_err(|error| backend_error(WHAT, error))
}

/// The number and the name of each migration of this version.
pub(crate) fn known() -> Vec<(i64, String)> {
    let numbered = (1..).zip(MIGRATIONS);
    numbered
        .map(|(version, (name, _))| (version, (*name).to_owned()))
        .collect()
}

/// The number and the name of each migration that has run, in order.
pub(crate) async fn done(connection: &mut SqliteConnection, name: &Name) -> Result<Vec<(i64, String)>, BackendError> {
    let notes = name.quoted_with("_migrations");
    let done = format!("SELECT version, description FROM {notes} ORDER BY version");
    let done = fetch(connection, done).await?;
    let read = |row: &SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?));
    let done: sqlx::Result<Vec<_>> = done.iter().map(read).collect();
    done.map_err(|error| backend_error(WHAT, error))
}

async fn fetch(connection: &mut SqliteConnection, sql: String) -> Result<Vec<SqliteRow>, BackendError> {
    let fetched = sqlx::raw_sql(text(sql)).fetch_all(connection).await;
    fetched.map_err(|error| backend_error(WHAT, error))
}
