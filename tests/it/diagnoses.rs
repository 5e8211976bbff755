//! What a diagnosis says of servers and files that are not as they should be.

use std::sync::Arc;
use std::time::Duration;

use idem_axum::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use idem_axum::{PostgresBackend, SqliteBackend};
use idem_core::inspect::{Finding, Health, Inspect};
use idem_core::{Acquisition, Backend as _, Claim, ClaimPolicy, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{PostgresServer, SqliteFile, in_time, until};

async fn assert_finds(backend: &impl Inspect, check: &str, health: Health, text: &str) {
    let findings = backend.diagnose().await.expect("the store can be reached");
    let found = findings.iter().find(|finding| finding.check == check);
    let is_right = |found: &Finding| found.health == health && found.text.contains(text);
    assert!(found.is_some_and(is_right), "{check} {health:?} {text:?}: {findings:?}");
}

/// A backend in a schema of its own.
struct OnPostgres {
    server: Arc<PostgresServer>,
    backend: PostgresBackend,
    schema: String,
}

impl OnPostgres {
    async fn new() -> Self {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        Self {
            server,
            backend,
            schema,
        }
    }

    /// Executes SQL with `$` in the place of the schema.
    async fn execute(&self, sql: &str) {
        self.server.execute(&sql.replace('$', &self.schema)).await;
    }

    /// A backend on the same tables whose connections are opened with other options.
    fn with(&self, change: impl FnOnce(PgConnectOptions) -> PgConnectOptions) -> PostgresBackend {
        let options: PgConnectOptions = self.server.url().parse().expect("a valid URL");
        let pool = PgPoolOptions::new().connect_lazy_with(change(options));
        PostgresBackend::new(pool).with_schema(&self.schema)
    }
}

async fn claim(backend: &PostgresBackend, name: &str) {
    let key = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(name)).expect("a valid key");
    let policy = ClaimPolicy::new(Duration::from_mins(10)).with_lease(Duration::from_mins(10));
    let claimed = backend.claim(&key, &Claim::first(Fingerprint::NONE, &policy)).await;
    assert_eq!(claimed.expect("a healthy server"), Acquisition::Acquired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_postgres_has_good_findings_but_for_its_disk() {
    in_time(async {
        let on = OnPostgres::new().await;
        claim(&on.backend, "k").await;
        let findings = on.backend.diagnose().await.expect("a healthy server");
        assert!(findings.len() >= 14, "{findings:?}");
        for finding in findings {
            // The servers of the tests run without `fsync`, and are as busy as the tests make them.
            let is_good = finding.health == Health::Good || ["durability", "connections"].contains(&finding.check);
            assert!(is_good, "{finding:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diagnosis_tells_what_is_missing_in_postgres() {
    in_time(async {
        let on = OnPostgres::new().await;
        for (spoil, check, health, text) in [
            (
                "DROP INDEX $.idem_records_expiry",
                "indexes",
                Health::Warning,
                "sweep_at",
            ),
            (
                "ALTER TABLE $.idem_records_steps DROP CONSTRAINT idem_records_steps_id_fkey",
                "indexes",
                Health::Failing,
                "foreign key",
            ),
            (
                "ALTER TABLE $.idem_records_leases DROP CONSTRAINT idem_records_leases_pkey",
                "indexes",
                Health::Failing,
                "idem_records_leases",
            ),
            (
                "UPDATE $.idem_records_migrations SET version = 99 WHERE version = 4",
                "migrations",
                Health::Warning,
                "migration 99",
            ),
            (
                "DELETE FROM $.idem_records_migrations WHERE version > 2",
                "migrations",
                Health::Failing,
                "2 of 4",
            ),
            (
                "DROP TABLE $.idem_records_migrations",
                "migrations",
                Health::Good,
                "own",
            ),
            (
                "ALTER TABLE $.idem_records DROP COLUMN owner",
                "tables",
                Health::Failing,
                "missing: idem_records.owner;",
            ),
            (
                "DROP TABLE $.idem_records_steps",
                "tables",
                Health::Failing,
                "idem_records_steps.id",
            ),
        ] {
            on.execute(spoil).await;
            assert_finds(&on.backend, check, health, text).await;
        }
        let nowhere = on.backend.clone().with_schema("nowhere");
        assert_finds(&nowhere, "tables", Health::Failing, "PostgresBackend::migrate").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diagnosis_tells_what_a_role_of_postgres_may_not_do() {
    in_time(async {
        let on = OnPostgres::new().await;
        on.execute("CREATE ROLE reader_of_$ LOGIN").await;
        let role = format!("reader_of_{}", on.schema);
        let backend = on.with(|options| options.username(&role));
        assert_finds(&backend, "permissions", Health::Failing, "USAGE on the schema").await;
        assert_finds(&backend, "sweeper", Health::Unchecked, "permission denied").await;
        on.execute("GRANT USAGE ON SCHEMA $ TO reader_of_$; GRANT SELECT ON ALL TABLES IN SCHEMA $ TO reader_of_$")
            .await;
        assert_finds(
            &backend,
            "permissions",
            Health::Failing,
            "INSERT on idem_records_leases",
        )
        .await;
        assert_finds(&backend, "sweeper", Health::Good, "late").await;
        on.execute("GRANT ALL ON ALL TABLES IN SCHEMA $ TO reader_of_$").await;
        assert_finds(&backend, "permissions", Health::Good, "read and write").await;
        assert_finds(&backend, "records", Health::Good, "can be read").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diagnosis_tells_of_records_in_postgres_that_are_late_or_cannot_be_read() {
    in_time(async {
        let on = OnPostgres::new().await;
        for name in ["late", "renewed", "of another version"] {
            claim(&on.backend, name).await;
        }
        let two_hours_ago = "now() - interval '125 minutes'";
        on.execute(&format!(
            "INSERT INTO $.idem_records_leases SELECT id, token, lease_until, expires_at FROM $.idem_records WHERE key LIKE '%renewed'; \
             UPDATE $.idem_records SET expires_at = {two_hours_ago}, sweep_at = {two_hours_ago}, state = 3 \
             WHERE key LIKE '%late'; \
             UPDATE $.idem_records SET expires_at = {two_hours_ago}, sweep_at = {two_hours_ago} WHERE key LIKE '%renewed'; \
             UPDATE $.idem_records SET state = 9 WHERE key LIKE '%version'"
        ))
        .await;
        assert_finds(&on.backend, "sweeper", Health::Warning, "1 records should have been swept").await;
        assert_finds(&on.backend, "sweeper", Health::Warning, "the first one 2 h ago").await;
        assert_finds(&on.backend, "records", Health::Failing, "1 cannot be read").await;
        assert_eq!(on.backend.sweep(10).await.expect("sweeps"), 1);
        assert_finds(&on.backend, "sweeper", Health::Good, "late").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diagnosis_tells_of_settings_of_postgres_by_which_records_are_lost_or_refused() {
    in_time(async {
        let on = OnPostgres::new().await;
        let set = |setting: &'static str, value: &'static str| on.with(|options| options.options([(setting, value)]));
        let read_only = set("default_transaction_read_only", "on");
        assert_finds(&read_only, "writing", Health::Failing, "read-only").await;
        let serializable = set("default_transaction_isolation", "serializable");
        assert_finds(&serializable, "isolation", Health::Warning, "serializable").await;
        assert_finds(&on.backend, "durability", Health::Warning, "fsync").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diagnosis_tells_of_a_standby_and_of_a_primary_that_does_not_wait_for_it() {
    in_time(async {
        let primary = PostgresServer::start().await;
        let backend = PostgresBackend::new(primary.pool().await);
        backend.migrate().await.expect("it may");
        let standby = primary.standby().await;
        // It answers before it follows.
        until("the standby follows", async || {
            let following = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            primary.query::<i64>(following).await == 1
        })
        .await;
        assert_finds(&backend, "standbys", Health::Warning, "1 of 1 standbys").await;
        let backend = PostgresBackend::new(standby.pool().await);
        assert_finds(&backend, "writing", Health::Failing, "standby").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diagnosis_tells_of_a_file_of_sqlite_that_cannot_be_written() {
    in_time(async {
        let file = SqliteFile::create_on_disk().await;
        if file.disk().is_none() {
            println!("left out: only an administrator can mount a disk");
            return;
        }
        let backend = file.backend().await;
        assert_finds(&backend, "writing", Health::Good, "can be written").await;
        assert!(file.set_read_only(true));
        assert_finds(&backend, "writing", Health::Failing, "I/O error").await;
        let later = file.backend().await;
        assert_finds(&later, "writing", Health::Failing, "read-only").await;
        assert!(file.set_read_only(false));
        file.disk().expect("it was mounted").fill();
        let backend: SqliteBackend = file.backend().await;
        assert_finds(&backend, "disk", Health::Warning, "0 MiB left").await;
        file.disk().expect("it was mounted").make_room();
    })
    .await;
}
