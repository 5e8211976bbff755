//! What the table is made by.

use idem_core::BackendError;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, PgPool, SqlSafeStr as _};

use crate::error::{backend_error, migrate_error};
use crate::table::Name;

/// Every migration in order, as a name and its SQL, for the table `public.idem_records`.
///
/// For those who run migrations of their own; everybody else calls
/// [`PostgresBackend::migrate`](crate::PostgresBackend::migrate). Later versions add to the end and change nothing. For
/// another schema or table, put its name in the place of these.
pub const MIGRATIONS: &[(&str, &str)] = &[("records", include_str!("../migrations/0001_records.sql"))];

/// Runs those that have not been run yet. Which have is noted in a table beside the records', so that the application's
/// own migrations and these do not meet.
pub(crate) async fn run(pool: &PgPool, name: &Name) -> Result<(), BackendError> {
    let is_there = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)");
    let is_there = is_there.bind(name.schema()).fetch_one(pool).await;
    let migrations: Vec<_> = (1..).zip(MIGRATIONS).map(|step| migration(step, name)).collect();
    if have_run(&migrations, pool, name).await? {
        return Ok(());
    }
    let mut migrator = Migrator::with_migrations(migrations);
    // Only where it has to, for it takes a permission even where it does nothing.
    if !is_there.map_err(|error| backend_error("looking for the schema", error))? {
        migrator.create_schema(name.quoted_schema());
    }
    migrator.dangerous_set_table_name(name.qualified_with("_migrations"));
    migrator.run(pool).await.map_err(migrate_error)
}

/// Whether there is nothing to do, found out without waiting for anybody: whoever migrates holds a lock for as long as its
/// connection lasts, which of a process that was cut off can be hours, and nobody could start meanwhile.
async fn have_run(migrations: &[Migration], pool: &PgPool, name: &Name) -> Result<bool, BackendError> {
    let failed = |error| backend_error("looking for what has been migrated", error);
    let notes = name.qualified_with("_migrations");
    let are_there = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&notes);
    if !are_there.fetch_one(pool).await.map_err(failed)? {
        return Ok(false);
    }
    let done = AssertSqlSafe(format!("SELECT checksum FROM {notes} WHERE success ORDER BY version"));
    let done: Vec<Vec<u8>> = sqlx::query_scalar(done).fetch_all(pool).await.map_err(failed)?;
    Ok(done.iter().eq(migrations.iter().map(|migration| &*migration.checksum)))
}

fn migration((version, (description, sql)): (i64, &(&'static str, &str)), name: &Name) -> Migration {
    let sql = sql
        .replace("public.idem_records", &name.qualified())
        .replace("idem_records_expiry", &name.quoted_with("_expiry"));
    let sql = AssertSqlSafe(sql).into_sql_str();
    Migration::new(version, (*description).into(), MigrationType::Simple, sql, false)
}
