//! What Postgres refuses for a while is an outage like any other, as on Redis: an outcome waits for its end.

use std::fs::OpenOptions;
use std::io::Write as _;

use idem_axum::PostgresBackend;
use idem_axum::sqlx::postgres::PgPoolOptions;
use idem_tests::{PostgresServer, in_time};

use crate::redis_refusals::assert_recorded_after;

/// Lets `refuse` be said to the server while an outcome waits to be recorded, and `mend` some leases later.
async fn assert_recorded(refuse: &str, mend: &str) {
    in_time(async {
        let server = PostgresServer::start().await;
        let (_, schema) = server.backend().await;
        only_by_password(&server, "app").await;
        server
            .execute(&format!(
                "CREATE ROLE app LOGIN PASSWORD 'old'; GRANT USAGE ON SCHEMA {schema} TO app; \
                 GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO app"
            ))
            .await;
        let url = server.url().replace("postgres@", "app:old@");
        let pool = PgPoolOptions::new().connect_lazy(&url).expect("a valid URL");
        let backend = PostgresBackend::new(pool).with_schema(&schema);
        let said = |sql: &str| sql.replace('$', &schema);
        let (refuse, mend) = (said(refuse), said(mend));
        assert_recorded_after(
            backend,
            async || {
                server.execute(&refuse).await;
                server.kill_clients().await;
            },
            async || server.execute(&mend).await,
        )
        .await;
    })
    .await;
}

/// Lets a role prove itself, unlike all others.
async fn only_by_password(server: &PostgresServer, role: &str) {
    let file: String = server.query("SELECT current_setting('hba_file')").await;
    let trusted = std::fs::read_to_string(&file).expect("the server's folder is ours");
    let mut rules = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&file)
        .expect("it is ours");
    write!(rules, "host all {role} 127.0.0.1/32 scram-sha-256\n{trusted}").expect("it can be written");
    drop(rules);
    server.execute("SELECT pg_reload_conf()").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_rotated_costs_no_outcome() {
    assert_recorded("ALTER ROLE app PASSWORD 'new'", "ALTER ROLE app PASSWORD 'old'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_log_in_for_a_while_costs_no_outcome() {
    assert_recorded("ALTER ROLE app NOLOGIN", "ALTER ROLE app LOGIN").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_on_the_tables_that_is_taken_for_a_while_costs_no_outcome() {
    assert_recorded(
        "REVOKE ALL ON ALL TABLES IN SCHEMA $ FROM app",
        "GRANT ALL ON ALL TABLES IN SCHEMA $ TO app",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_on_the_database_that_is_taken_for_a_while_costs_no_outcome() {
    assert_recorded(
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
        "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
    )
    .await;
}
