//! The backend on real files, in this process. Several processes, kills and full disks are in the workspace's tests.

mod clocks;
mod files;
mod locks;
mod operators;

use std::time::Duration;

use idem_core::conformance::Subject;
use idem_core::{
    Acquisition, Backend as _, BackendErrorKind, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey,
    Record, RecordKey, Scope,
};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;

use crate::SqliteBackend;
use crate::table::text;

idem_core::conformance!(OnFile::start());
idem_core::conformance_of_inspection!(OnFile::start());

/// A backend, and the folder of its file.
struct OnFile {
    backend: SqliteBackend,
    folder: TempDir,
}

impl OnFile {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = SqliteBackend::open(folder.path().join("idem.db")).await;
        let backend = backend.expect("the file can be created");
        Self { backend, folder }
    }

    /// Another backend on the same file, as another process has it.
    async fn other(&self) -> SqliteBackend {
        let path = self.folder.path().join("idem.db");
        SqliteBackend::open(path).await.expect("the file is there")
    }

    /// A connection of a stranger.
    async fn stranger(&self) -> SqliteConnection {
        let path = self.folder.path().join("idem.db");
        let options = SqliteConnectOptions::new().filename(path);
        options.connect().await.expect("the file is there")
    }
}

impl Subject for OnFile {
    type Backend = SqliteBackend;

    fn backend(&self) -> &SqliteBackend {
        &self.backend
    }

    async fn spoil(&self, key: &RecordKey) -> bool {
        let mut stranger = self.stranger().await;
        let spoilt = sqlx::query("UPDATE idem_records SET state = 9 WHERE key = ?")
            .bind(key.as_str())
            .execute(&mut stranger)
            .await;
        spoilt.expect("the record is there").rows_affected() == 1
    }
}

fn key(name: &str) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(name)).expect("a valid key")
}

const POLICY: ClaimPolicy = ClaimPolicy::new(Duration::from_hours(1)).with_lease(Duration::from_secs(30));

/// A claim that is acquired.
async fn claimed(backend: &SqliteBackend, name: &str) -> Claim {
    let claim = Claim::first(Fingerprint::NONE, &POLICY);
    let acquired = backend.claim(&key(name), &claim).await;
    assert_eq!(acquired.expect("the file can be written"), Acquisition::Acquired);
    claim
}

async fn execute(connection: &mut SqliteConnection, sql: &str) -> u64 {
    let executed = sqlx::raw_sql(text(sql.to_owned())).execute(connection).await;
    executed.expect("a valid statement").rows_affected()
}
