//! What operators see and settle, beside the contract.

use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use idem_core::inspect::{Finding, Health, Inspect as _, LiveClaim, Phase, RecordVersion, Settled, Settlement};
use idem_core::steps::StepBackend as _;
use sqlx::Row as _;

use super::*;

fn version(claim: &Claim, phase: Phase) -> RecordVersion {
    let token = claim.token;
    RecordVersion::new(token, phase)
}

async fn finding(backend: &SqliteBackend, check: &str) -> Finding {
    let findings = backend.diagnose().await.expect("the file can be opened");
    let found = findings.iter().find(|finding| finding.check == check);
    found
        .unwrap_or_else(|| panic!("no check `{check}` in {findings:?}"))
        .clone()
}

async fn assert_finds(backend: &SqliteBackend, check: &str, health: Health, text: &str) {
    let found = finding(backend, check).await;
    assert!(found.health == health && found.text.contains(text), "{found:?}");
}

/// The transaction of a handler is one with its record: it is settled before or after it, and never in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_waits_for_the_transaction_that_completes_the_claim() {
    for settlement in [
        Settlement::Forget,
        Settlement::complete(Completion::NotStored, POLICY.ttl()),
    ] {
        for (end, expected) in [("COMMIT", Settled::Changed), ("ROLLBACK", Settled::Applied)] {
            let file = OnFile::start().await;
            let claim = claimed(&file.backend, "k").await;
            let mut handler = file.stranger().await;
            execute(&mut handler, "BEGIN IMMEDIATE").await;
            let answer = Completion::Stored(Bytes::from_static(b"by the handler"));
            let complete = file.backend.completion_sql((&key("k"), &claim), (&answer, claim.ttl));
            assert_eq!(execute(&mut handler, &complete).await, 1);
            let (backend, settlement) = (file.backend.clone(), settlement.clone());
            let version = version(&claim, Phase::Claimed);
            let settling =
                tokio::spawn(async move { backend.settle(&key("k"), version, &settlement, LiveClaim::Force).await });
            tokio::task::yield_now().await;
            assert!(!settling.is_finished());
            execute(&mut handler, end).await;
            let settled = settling.await.expect("no panic").expect("a healthy file");
            assert_eq!(settled, expected, "after {end}");
            let found = file.backend.read(&key("k")).await.expect("a healthy file");
            let is_handlers = matches!(found, Some(Record::Completed { completion, .. }) if completion == answer);
            assert_eq!(is_handlers, end == "COMMIT");
        }
    }
}

#[tokio::test]
async fn a_settlement_that_is_given_up_while_a_stranger_writes_is_never_made() {
    let file = OnFile::start().await;
    let claim = claimed(&file.backend, "k").await;
    let mut stranger = file.stranger().await;
    execute(&mut stranger, "BEGIN IMMEDIATE").await;
    let version = version(&claim, Phase::Claimed);
    let (key, forget) = (key("k"), Settlement::Forget);
    let settling = file.backend.settle(&key, version, &forget, LiveClaim::Force);
    let given_up = tokio::time::timeout(Duration::from_millis(100), settling).await;
    assert!(given_up.is_err(), "{given_up:?}");
    execute(&mut stranger, "ROLLBACK").await;
    let renewed = file.backend.renew(&key, &claim).await.expect("a healthy file");
    assert_eq!(renewed, Fenced::Applied);
}

#[tokio::test]
async fn the_steps_of_a_record_that_is_settled_are_no_rows_any_more() {
    let file = OnFile::start().await;
    for settlement in [
        Settlement::Forget,
        Settlement::complete(Completion::Unknown, POLICY.ttl()),
    ] {
        let claim = claimed(&file.backend, "k").await;
        let recorded = file
            .backend
            .record_step(&key("k"), &claim, "charge", &Bytes::new())
            .await;
        assert_eq!(recorded.expect("a healthy file"), Fenced::Applied);
        let shown = file.backend.inspect(&key("k")).await.expect("a healthy file");
        let version = shown.expect("it is there").version();
        let settled = file
            .backend
            .settle(&key("k"), version, &settlement, LiveClaim::Force)
            .await;
        assert_eq!(settled.expect("a healthy file"), Settled::Applied);
        let steps = sqlx::query_scalar("SELECT count(*) FROM idem_records_steps");
        let steps: i64 = steps.fetch_one(&mut file.stranger().await).await.expect("a table");
        assert_eq!(steps, 0, "{settlement:?}");
    }
}

/// Of 3,000 records, no statement goes through all.
#[tokio::test]
async fn each_statement_of_an_operator_goes_by_an_index() {
    let file = OnFile::start().await;
    let mut stranger = file.stranger().await;
    let records = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
                INSERT INTO idem_records SELECT 'o:@global:' || i, 3, x'00', 1, x'00', 1, 1, 1, '', 'none', 0, 1, NULL FROM n";
    assert_eq!(execute(&mut stranger, records).await, 3000);
    execute(&mut stranger, "ANALYZE").await;
    let statements = &file.backend.store().statements.operator;
    for (statement, expected) in [
        (&statements.scan, "(key>? AND key<?)"),
        (&statements.inspect, "SEARCH record USING INDEX"),
        (&statements.look, "(key=?)"),
        (&statements.forget, "(key=?)"),
        (&statements.rerun, "(key=?)"),
        (&statements.complete, "(key=?)"),
        (&statements.drop_step, "(key=? AND name=?)"),
        (&statements.has_steps, "(key=?)"),
        (&statements.late, "idem_records_expiry (expires_ms<?)"),
    ] {
        let explain = text(format!("EXPLAIN QUERY PLAN {}", statement.as_str()));
        let plan = sqlx::query(explain)
            .fetch_all(&mut stranger)
            .await
            .expect("a valid statement");
        let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        let plan = plan.join("; ");
        let reads_all = plan.split("; ").any(|line| line.starts_with("SCAN idem"));
        assert!(
            plan.contains(expected) && !reads_all && !plan.contains("B-TREE"),
            "{plan}"
        );
    }
}

#[tokio::test]
async fn a_healthy_file_has_good_findings_alone() {
    let file = OnFile::start().await;
    let _claim = claimed(&file.backend, "k").await;
    let findings = file.backend.diagnose().await.expect("a healthy file");
    assert!(findings.len() >= 10, "{findings:?}");
    for finding in findings {
        // The disk of the machine may be full.
        let is_good = finding.health == Health::Good || finding.check == "disk";
        assert!(is_good, "{finding:?}");
    }
}

#[tokio::test]
async fn a_diagnosis_tells_what_is_missing_beside_the_records() {
    let file = OnFile::start().await;
    let mut stranger = file.stranger().await;
    for (spoil, check, health, text) in [
        ("DROP INDEX idem_records_expiry", "triggers", Health::Warning, "index"),
        (
            "DROP TRIGGER idem_records_steps_end",
            "triggers",
            Health::Failing,
            "trigger",
        ),
        (
            "INSERT INTO idem_records_migrations VALUES (99, 'later')",
            "migrations",
            Health::Warning,
            "migration 99",
        ),
        (
            "DELETE FROM idem_records_migrations WHERE version > 1",
            "migrations",
            Health::Failing,
            "1 of 3",
        ),
        ("DROP TABLE idem_records_migrations", "migrations", Health::Good, "own"),
        (
            "DROP TABLE idem_records_steps",
            "tables",
            Health::Failing,
            "SqliteBackend::migrate",
        ),
    ] {
        execute(&mut stranger, spoil).await;
        assert_finds(&file.backend, check, health, text).await;
    }
    let findings = file.backend.diagnose().await.expect("the file can be opened");
    assert!(
        findings.iter().all(|finding| finding.check != "sweeper"),
        "{findings:?}"
    );
}

#[tokio::test]
async fn a_diagnosis_tells_of_records_that_are_late_or_cannot_be_read() {
    let file = OnFile::start().await;
    for name in ["late", "later", "of another version", "held"] {
        let _claim = claimed(&file.backend, name).await;
    }
    let mut stranger = file.stranger().await;
    let late = "UPDATE idem_records SET expires_ms = (unixepoch() - 7300) * 1000";
    execute(&mut stranger, late).await;
    assert_finds(&file.backend, "sweeper", Health::Good, "an hour").await;
    let ended = "UPDATE idem_records SET state = 3 WHERE key LIKE '%:late%'";
    assert_eq!(execute(&mut stranger, ended).await, 2, "the others are held");
    assert_finds(&file.backend, "sweeper", Health::Warning, "2 records have expired").await;
    let spoil = "UPDATE idem_records SET state = 9, expires_ms = expires_ms * 2 WHERE key LIKE '%version'";
    assert_eq!(execute(&mut stranger, spoil).await, 1);
    assert_finds(&file.backend, "records", Health::Failing, "1 cannot be read").await;
}

#[tokio::test]
async fn a_diagnosis_tells_who_may_read_the_file_and_whether_it_is_written() {
    let file = OnFile::start().await;
    let path = file.folder.path().join("idem.db");
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    mode(0o644);
    assert_finds(&file.backend, "permissions", Health::Warning, "chmod").await;
    mode(0o600);
    assert_finds(&file.backend, "permissions", Health::Good, "other users").await;
    let mut stranger = file.stranger().await;
    execute(&mut stranger, "BEGIN IMMEDIATE").await;
    assert_finds(&file.backend, "writing", Health::Warning, "a second").await;
    drop(stranger);
    assert_finds(&file.backend, "writing", Health::Good, "can be written").await;
    std::fs::remove_file(&path).expect("it is ours");
    let error = file.backend.diagnose().await.expect_err("the file is gone");
    assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{error}");
}
