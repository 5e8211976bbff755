//! Files that are not as they should be.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[tokio::test]
async fn a_new_file_is_read_by_its_owner_alone_and_so_is_its_log() {
    let file = OnFile::start().await;
    let _claim = claimed(&file.backend, "k").await;
    for name in ["idem.db", "idem.db-wal"] {
        let found = std::fs::metadata(file.folder.path().join(name)).expect("it is there");
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_database_in_memory_is_refused_because_each_connection_would_have_another_one() {
    let pool = SqlitePool::connect("sqlite::memory:").await.expect("memory");
    let backend = SqliteBackend::new(pool);
    for error in [
        backend.migrate().await.expect_err("no file"),
        backend.check().await.expect_err("no file"),
    ] {
        assert_eq!(error.kind(), BackendErrorKind::Config, "{error}");
        assert!(error.to_string().contains("in memory"), "{error}");
    }
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_said_and_nothing_is_taken_for_absent() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = SqliteBackend::open(folder.path().join("no such folder/idem.db")).await;
    assert_eq!(
        missing.expect_err("there is no folder").kind(),
        BackendErrorKind::Unavailable
    );

    let path = folder.path().join("text.db");
    std::fs::write(
        &path,
        "no database, and long enough for its header to be read as one ".repeat(99),
    )
    .expect("written");
    let damaged = SqliteBackend::open(&path).await.expect_err("it is a text");
    assert_eq!(damaged.kind(), BackendErrorKind::Refused, "{damaged}");
    assert!(damaged.to_string().contains("damaged"), "{damaged}");

    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("empty.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.expect("created");
    let unmigrated = SqliteBackend::new(pool);
    let error = unmigrated.check().await.expect_err("there is no table");
    assert_eq!(error.kind(), BackendErrorKind::Config, "{error}");
    assert!(error.to_string().contains("SqliteBackend::migrate"), "{error}");
    let claim = Claim::first(Fingerprint::NONE, &POLICY);
    let error = unmigrated
        .claim(&key("k"), &claim)
        .await
        .expect_err("there is no table");
    assert!(error.is_not_written(), "{error}");
    unmigrated.migrate().await.expect("it may");
    unmigrated.migrate().await.expect("again");
    unmigrated.check().await.expect("there is one now");
}

#[tokio::test]
async fn tables_of_two_names_in_one_file_do_not_touch_each_other() {
    let file = OnFile::start().await;
    let other = file.backend.clone().with_table("others");
    other.migrate().await.expect("a table more");
    let _first = claimed(&file.backend, "k").await;
    let _second = claimed(&other, "k").await;
}

/// Two processes must not write two files under one name: whoever comes later would not see what the first one has claimed.
#[tokio::test]
async fn a_file_that_is_moved_away_or_replaced_is_opened_anew() {
    let file = OnFile::start().await;
    let _claim = claimed(&file.backend, "k").await;
    let (path, away) = (file.folder.path().join("idem.db"), file.folder.path().join("away.db"));
    for suffix in ["", "-wal", "-shm"] {
        let named = |path: &std::path::Path| format!("{}{suffix}", path.display());
        std::fs::rename(named(&path), named(&away)).expect("it is there");
    }
    let other = Claim::first(Fingerprint::NONE, &POLICY);
    let error = file.backend.claim(&key("other"), &other).await.expect_err("it is gone");
    assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{error}");
    assert!(
        error.is_not_written() && error.to_string().contains("cannot be opened"),
        "{error}"
    );
    let replaced = file.other().await;
    let first = claimed(&replaced, "new").await;
    let found = file.backend.claim(&key("new"), &other).await.expect("a healthy file");
    assert!(
        matches!(&found, Acquisition::Existing(Record::Claimed { claim, .. }) if *claim == first),
        "{found:?}"
    );
    assert_eq!(file.backend.read(&key("k")).await.expect("a healthy file"), None);
}
