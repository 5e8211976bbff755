//! The migrations that create the tables.
//!
//! Owns the migrations and running them. They run in one transaction of text statements, under a lock that ends with the
//! transaction, so that they also run through a pooler in transaction mode. A table beside that of the records lists the
//! migrations that have run. It has the columns of sqlx's own table and another name, so that these migrations do not collide
//! with the application's. Does not own the meaning of the columns: [`record`](crate::record).

use std::borrow::Cow;

use idem_core::{BackendError, BackendErrorKind};
use sqlx::migrate::{Migration, MigrationType};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqlSafeStr as _};

use crate::connections::Connections;
use crate::error::backend_error;
use crate::table::Name;

/// Every migration in order, as a name and its SQL, for the table `public.idem_records`.
///
/// Use them to create the tables by your own migrations. Otherwise call
/// [`PostgresBackend::migrate`](crate::PostgresBackend::migrate). Later versions of this crate append migrations and change none.
/// For another schema or table, replace these names.
pub const MIGRATIONS: &[(&str, &str)] = &[
    ("records", include_str!("../migrations/0001_records.sql")),
    ("leases", include_str!("../migrations/0002_leases.sql")),
    ("origin", include_str!("../migrations/0003_origin.sql")),
    ("steps", include_str!("../migrations/0004_steps.sql")),
];

const WHAT: &str = "migrating";

/// Runs the migrations that have not been run yet.
pub(crate) async fn run(connections: &Connections, name: &Name) -> Result<(), BackendError> {
    let mut lent = connections.lend(WHAT).await?;
    let failed = |error| backend_error(WHAT, error);
    let connection = lent.take_out().map_err(failed)?;
    let migrations: Vec<_> = (1..).zip(MIGRATIONS).map(|step| migration(step, name)).collect();
    if !have_run(&migrations, connection, name).await? {
        run_in_transaction(&migrations, connection, name).await?;
    }
    lent.put_back();
    Ok(())
}

/// Whether all migrations have run. Checked without taking the lock: a migrating process holds the lock until its transaction
/// ends, and if that process has lost its network, the transaction can last for hours. No other process could start meanwhile.
async fn have_run(migrations: &[Migration], connection: &mut PgConnection, name: &Name) -> Result<bool, BackendError> {
    let notes = name.qualified_with("_migrations");
    let are_there = format!("SELECT true WHERE to_regclass('{notes}') IS NOT NULL");
    if fetch(connection, are_there).await?.is_empty() {
        return Ok(false);
    }
    let done = done(connection, name).await?;
    let are_ours = done.iter().map(|(_, checksum)| &checksum[..]);
    Ok(are_ours.eq(migrations.iter().map(|ours| &*ours.checksum)))
}

async fn run_in_transaction(
    migrations: &[Migration],
    connection: &mut PgConnection,
    name: &Name,
) -> Result<(), BackendError> {
    let failed = |error| backend_error(WHAT, error);
    let mut transaction = connection.begin().await.map_err(failed)?;
    let notes = name.qualified_with("_migrations");
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended('{notes}', 0))");
    fetch(&mut transaction, lock).await?;
    // Only if the schema does not exist, because `CREATE SCHEMA IF NOT EXISTS` needs a permission even if it does nothing.
    let schema = format!("SELECT true FROM pg_namespace WHERE nspname = '{}'", name.schema());
    if fetch(&mut transaction, schema).await?.is_empty() {
        let create = format!("CREATE SCHEMA IF NOT EXISTS {}", name.quoted_schema());
        fetch(&mut transaction, create).await?;
    }
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {notes} (version bigint PRIMARY KEY, description text NOT NULL, \
         installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, \
         execution_time bigint NOT NULL)"
    );
    fetch(&mut transaction, create).await?;
    let done = done(&mut transaction, name).await?;
    for (version, checksum) in &done {
        let is_ours = |ours: &&Migration| ours.version == *version && *ours.checksum == **checksum;
        if !migrations.iter().any(|ours| is_ours(&ours)) {
            let context = format!("migration {version} of {notes} is not one of this version's");
            return Err(BackendError::new(BackendErrorKind::Config, context));
        }
    }
    for ours in migrations.iter().skip(done.len()) {
        fetch(&mut transaction, ours.sql.as_str().to_owned()).await?;
        let note = format!(
            "INSERT INTO {notes} (version, description, success, checksum, execution_time) \
             VALUES ({}, '{}', true, decode('{}', 'hex'), -1)",
            ours.version,
            ours.description,
            hex(&ours.checksum)
        );
        fetch(&mut transaction, note).await?;
    }
    transaction.commit().await.map_err(failed)
}

/// The number and the checksum of each migration of this version, as `1 c0ffee`.
pub(crate) fn known(name: &Name) -> Vec<String> {
    let migrations = (1..).zip(MIGRATIONS).map(|step| migration(step, name));
    migrations
        .map(|ours| format!("{} {}", ours.version, hex(&ours.checksum)))
        .collect()
}

/// The version and the checksum of each migration that has run, in order.
async fn done(connection: &mut PgConnection, name: &Name) -> Result<Vec<(i64, Vec<u8>)>, BackendError> {
    let notes = name.qualified_with("_migrations");
    let done = format!("SELECT version, encode(checksum, 'hex') FROM {notes} WHERE success ORDER BY version");
    let rows = fetch(connection, done).await?;
    let read = |row: &PgRow| Ok((row.try_get(0)?, unhex(row.try_get(1)?)));
    let read = rows.iter().map(read).collect::<sqlx::Result<_>>();
    read.map_err(|error| backend_error(WHAT, error))
}

async fn fetch(connection: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, BackendError> {
    let fetched = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
    fetched.map_err(|error| backend_error(WHAT, error))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Decodes hexadecimal digits. Invalid digits are left out, so that such a checksum equals no valid one.
fn unhex(hex: &str) -> Vec<u8> {
    let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    hex.as_bytes().chunks(2).filter_map(digit).collect()
}

fn migration((version, (description, sql)): (i64, &(&'static str, &str)), name: &Name) -> Migration {
    let sql = sql
        .replace("public.idem_records_leases", &name.qualified_with("_leases"))
        .replace("public.idem_records_steps", &name.qualified_with("_steps"))
        .replace("public.idem_records", &name.qualified())
        .replace("idem_records_expiry", &name.quoted_with("_expiry"));
    let sql = AssertSqlSafe(sql).into_sql_str();
    Migration::new(version, Cow::Borrowed(*description), MigrationType::Simple, sql, false)
}
