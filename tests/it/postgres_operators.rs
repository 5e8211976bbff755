//! What operators see and settle in Postgres, beside the contract: transactions and locks that a settlement meets.

use std::time::Duration;

use bytes::Bytes;
use idem_axum::PostgresBackend;
use idem_axum::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use idem_axum::sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use idem_core::inspect::{
    Inspect as _, Listed, LiveClaim, Phase, RecordState, RecordVersion, Selection, Settled, Settlement, StepChange,
};
use idem_core::steps::StepBackend as _;
use idem_core::{
    Acquisition, Backend as _, BackendErrorKind, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey,
    Record, RecordKey, Scope, Token,
};
use idem_tests::{Log, PgBouncer, PostgresServer, in_time, until};
use tokio::task::JoinHandle;

const LONG: Duration = Duration::from_mins(10);

/// A backend in a schema of its own, with one claim, and what an operator has seen of it.
struct Scene {
    server: std::sync::Arc<PostgresServer>,
    backend: PostgresBackend,
    schema: String,
    key: RecordKey,
    claim: Claim,
    version: RecordVersion,
}

impl Scene {
    async fn new() -> Self {
        Self::at("read committed").await
    }

    /// In a database whose transactions have this isolation level by default.
    async fn at(isolation: &str) -> Self {
        let server = PostgresServer::shared().await;
        let (_, schema) = server.backend().await;
        let options: PgConnectOptions = server.url().parse().expect("a valid URL");
        let options = options
            .options([("default_transaction_isolation", isolation)])
            .application_name(&schema);
        let pool = PgPoolOptions::new().connect_lazy_with(options);
        let backend = PostgresBackend::new(pool).with_schema(&schema);
        let key = RecordKey::new("ship", &Scope::of("acme"), &IdempotencyKey::of("k")).expect("a valid key");
        let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(LONG).with_lease(LONG));
        let acquired = backend.claim(&key, &claim).await.expect("a healthy server");
        assert_eq!(acquired, Acquisition::Acquired);
        let (token, phase) = (claim.token, Phase::Claimed);
        Self {
            server,
            backend,
            schema,
            key,
            claim,
            version: RecordVersion::new(token, phase),
        }
    }

    /// SQL with `$` in the place of the schema, which holds what it takes until the connection is told to end.
    async fn hold(&self, sql: &str) -> PgConnection {
        self.server.hold(&self.said(sql)).await
    }

    async fn execute(&self, sql: &str) {
        self.server.execute(&self.said(sql)).await;
    }

    async fn count(&self, what: &str) -> i64 {
        self.server
            .query(&self.said(&format!("SELECT count(*) FROM {what}")))
            .await
    }

    fn said(&self, sql: &str) -> String {
        sql.replace('$', &self.schema)
    }

    /// The lease lapses: the claim's own, and that of its renewal.
    async fn lapse(&self) {
        self.execute(
            "UPDATE $.idem_records SET lease_until = now() - interval '1 second'; \
             UPDATE $.idem_records_leases SET lease_until = now() - interval '1 second'",
        )
        .await;
    }

    /// Waits until so many calls of the backend wait for a lock.
    async fn until_blocked(&self, calls: i64) {
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
            self.schema
        );
        until("the calls wait for a lock", async || {
            self.server.query::<i64>(&waiting).await == calls
        })
        .await;
    }

    /// Settles in a task.
    fn settling(&self, settlement: &Settlement, live: LiveClaim) -> JoinHandle<Settled> {
        let (backend, key, version) = (self.backend.clone(), self.key.clone(), self.version);
        let settlement = settlement.clone();
        tokio::spawn(async move {
            let shown = backend.inspect(&key).await.expect("a healthy server");
            let version = shown.map_or(version, |shown| shown.version());
            let settled = backend.settle(&key, version, &settlement, live).await;
            settled.expect("a healthy server")
        })
    }

    /// Calls the backend as the owner of the claim, in a task.
    fn owning<F>(&self, call: impl FnOnce(PostgresBackend, RecordKey, Claim) -> F) -> JoinHandle<Fenced>
    where
        F: Future<Output = Result<Fenced, idem_core::BackendError>> + Send + 'static,
    {
        let called = call(self.backend.clone(), self.key.clone(), self.claim.clone());
        tokio::spawn(async move { called.await.expect("a healthy server") })
    }

    fn renewing(&self, has_steps: bool) -> JoinHandle<Fenced> {
        self.owning(move |backend, key, mut claim| async move {
            claim.has_steps = has_steps;
            backend.renew(&key, &claim).await
        })
    }

    fn recording(&self, name: &'static str) -> JoinHandle<Fenced> {
        self.owning(
            move |backend, key, claim| async move { backend.record_step(&key, &claim, name, &Bytes::new()).await },
        )
    }

    async fn found(&self) -> Option<Record> {
        self.backend.read(&self.key).await.expect("a healthy server")
    }
}

async fn end(mut holder: PgConnection, end: &'static str) {
    holder.execute(end).await.expect("the transaction is open");
}

fn rerun(step: Option<StepChange>) -> Settlement {
    let began_at = std::time::UNIX_EPOCH + LONG;
    let token = Token::random();
    Settlement::Rerun { token, began_at, step }
}

fn every_settlement() -> [Settlement; 3] {
    [
        Settlement::Forget,
        rerun(None),
        Settlement::complete(Completion::NotStored, LONG),
    ]
}

/// The handler has completed its record, and its transaction is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_waits_for_the_transaction_that_completes_the_claim() {
    in_time(async {
        for isolation in ["read committed", "serializable"] {
            for settlement in every_settlement() {
                for (ending, expected) in [("COMMIT", Settled::Changed), ("ROLLBACK", Settled::Applied)] {
                    let scene = Scene::at(isolation).await;
                    let answer = Completion::Stored(Bytes::from_static(b"by the handler"));
                    let mut handler = scene.hold("CREATE TABLE $.effects ()").await;
                    let complete = scene
                        .backend
                        .completion_sql((&scene.key, &scene.claim), (&answer, LONG));
                    handler
                        .execute(AssertSqlSafe(complete))
                        .await
                        .expect("the claim is in place");
                    let settling = scene.settling(&settlement, LiveClaim::Force);
                    scene.until_blocked(1).await;
                    end(handler, ending).await;
                    assert_eq!(
                        settling.await.expect("no panic"),
                        expected,
                        "{settlement:?} after {ending}"
                    );
                    let found = scene.found().await;
                    let is_handlers =
                        matches!(found, Some(Record::Completed { completion, .. }) if completion == answer);
                    assert_eq!(is_handlers, ending == "COMMIT", "{settlement:?}");
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_effects_of_a_handler_whose_claim_was_settled_are_rolled_back() {
    in_time(async {
        for settlement in every_settlement() {
            let scene = Scene::new().await;
            scene.execute("CREATE TABLE $.effects (effect text)").await;
            let mut transaction = scene.backend.begin().await.expect("a healthy server");
            let effect = AssertSqlSafe(scene.said("INSERT INTO $.effects VALUES ('paid')"));
            transaction.connection().execute(effect).await.expect("a table");
            let settled = scene.settling(&settlement, LiveClaim::Force).await.expect("no panic");
            assert_eq!(settled, Settled::Applied);
            let owner = (&scene.key, &scene.claim);
            let completed = scene
                .backend
                .complete_in(transaction, owner, (&Completion::NotStored, LONG), || ())
                .await;
            assert_eq!(
                completed.expect("a healthy server"),
                Fenced::Superseded,
                "{settlement:?}"
            );
            assert_eq!(scene.count("$.effects").await, 0, "{settlement:?}");
        }
    })
    .await;
}

/// The settlement has ended the lease and waits for a step that is locked. Meanwhile the owner renews.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_waits_for_a_settlement_is_superseded() {
    in_time(async {
        for was_renewed in [false, true] {
            let scene = Scene::new().await;
            assert_eq!(scene.recording("charge").await.expect("no panic"), Fenced::Applied);
            if !was_renewed {
                scene.execute("DELETE FROM $.idem_records_leases").await;
            }
            let holder = scene.hold("SELECT FROM $.idem_records_steps FOR UPDATE").await;
            let settling = scene.settling(&Settlement::Forget, LiveClaim::Force);
            scene.until_blocked(1).await;
            let renewing = scene.renewing(false);
            scene.until_blocked(2).await;
            end(holder, "COMMIT").await;
            assert_eq!(settling.await.expect("no panic"), Settled::Applied);
            assert_eq!(renewing.await.expect("no panic"), Fenced::Superseded, "{was_renewed}");
            assert_eq!(scene.found().await, None);
        }
    })
    .await;
}

/// The renewal of a claim with steps that are about to expire locks the record first, as a settlement does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_and_a_renewal_that_wait_for_one_row_come_one_after_the_other() {
    in_time(async {
        for settles_first in [false, true] {
            let scene = Scene::new().await;
            assert_eq!(scene.recording("charge").await.expect("no panic"), Fenced::Applied);
            scene
                .execute("UPDATE $.idem_records SET expires_at = now() + interval '1 minute'")
                .await;
            let holder = scene.hold("SELECT FROM $.idem_records FOR UPDATE").await;
            let (settling, renewing);
            if settles_first {
                settling = scene.settling(&Settlement::Forget, LiveClaim::Force);
                scene.until_blocked(1).await;
                renewing = scene.renewing(true);
            } else {
                renewing = scene.renewing(true);
                scene.until_blocked(1).await;
                settling = scene.settling(&Settlement::Forget, LiveClaim::Force);
            }
            scene.until_blocked(2).await;
            end(holder, "COMMIT").await;
            let expected = if settles_first {
                Fenced::Superseded
            } else {
                Fenced::Applied
            };
            assert_eq!(renewing.await.expect("no panic"), expected);
            assert_eq!(settling.await.expect("no panic"), Settled::Applied);
            assert_eq!(scene.found().await, None);
            assert_eq!(scene.renewing(true).await.expect("no panic"), Fenced::Superseded);
        }
    })
    .await;
}

/// Its first answer was lost, so that the owner repeats the claim after an operator has forgotten it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_repeated_after_it_was_forgotten_is_renewed_like_any_other() {
    in_time(async {
        let scene = Scene::new().await;
        for _ in 0..2 {
            let settled = scene.settling(&Settlement::Forget, LiveClaim::Force).await;
            assert_eq!(settled.expect("no panic"), Settled::Applied);
            assert_eq!(scene.renewing(false).await.expect("no panic"), Fenced::Superseded);
            let repeated = scene.backend.claim(&scene.key, &scene.claim).await;
            assert_eq!(repeated.expect("a healthy server"), Acquisition::Acquired);
            assert_eq!(scene.renewing(false).await.expect("no panic"), Fenced::Applied);
        }
        let settled = scene.settling(&Settlement::Forget, LiveClaim::Force).await;
        assert_eq!(settled.expect("no panic"), Settled::Applied);
        let repeated = scene.backend.claim(&scene.key, &scene.claim).await;
        assert_eq!(repeated.expect("a healthy server"), Acquisition::Acquired);
        assert_eq!(scene.recording("charge").await.expect("no panic"), Fenced::Applied);
        assert_eq!(scene.renewing(true).await.expect("no panic"), Fenced::Applied);
    })
    .await;
}

/// Without force, a claim is refused that was renewed while the settlement waited, although it had lapsed before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_claim_that_is_renewed_meanwhile_is_live() {
    in_time(async {
        for was_renewed in [false, true] {
            for (ending, is_live) in [("COMMIT", true), ("ROLLBACK", false)] {
                let scene = Scene::new().await;
                if was_renewed {
                    assert_eq!(scene.renewing(false).await.expect("no panic"), Fenced::Applied);
                }
                scene.lapse().await;
                // As a renewal does.
                let renewal = "INSERT INTO $.idem_records_leases AS renewed (id, token, lease_until, expires_at) \
                               SELECT id, token, now() + interval '5 minutes', now() + interval '1 hour' FROM $.idem_records \
                               ON CONFLICT (id, token) DO UPDATE SET lease_until = excluded.lease_until, \
                               expires_at = excluded.expires_at WHERE NOT renewed.is_over";
                let holder = scene.hold(renewal).await;
                let settling = scene.settling(&Settlement::Forget, LiveClaim::Refuse);
                scene.until_blocked(1).await;
                end(holder, ending).await;
                let settled = settling.await.expect("no panic");
                if is_live {
                    assert!(matches!(settled, Settled::Live(left) if left <= LONG), "{settled:?}");
                    assert!(matches!(scene.found().await, Some(Record::Claimed { claim, .. }) if claim == scene.claim));
                    let again = scene.settling(&Settlement::Forget, LiveClaim::Refuse).await.expect("no panic");
                    let five_minutes = Duration::from_mins(5);
                    assert!(matches!(again, Settled::Live(left) if left <= five_minutes), "{again:?}");
                } else {
                    assert_eq!((settled, scene.found().await), (Settled::Applied, None));
                }
            }
        }
    })
    .await;
}

/// A step that is committed while a settlement waits for its record is one that the operator has not seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_does_not_end_a_step_that_was_recorded_while_it_waited() {
    in_time(async {
        for isolation in ["read committed", "repeatable read", "serializable"] {
            for settlement in every_settlement() {
                let scene = Scene::at(isolation).await;
                let holder = scene.hold("SELECT FROM $.idem_records FOR UPDATE").await;
                let recording = scene.recording("charge");
                scene.until_blocked(1).await;
                let settling = scene.settling(&settlement, LiveClaim::Force);
                scene.until_blocked(2).await;
                end(holder, "COMMIT").await;
                assert_eq!(recording.await.expect("no panic"), Fenced::Applied, "{isolation}");
                assert_eq!(settling.await.expect("no panic"), Settled::Changed, "{isolation}");
                assert_eq!(scene.count("$.idem_records_steps").await, 1, "{settlement:?}");
                let is_claimed = matches!(scene.found().await, Some(Record::Claimed { claim, .. }) if claim.has_steps);
                assert!(is_claimed, "{settlement:?}");
                let again = scene.settling(&settlement, LiveClaim::Force).await;
                assert_eq!(again.expect("no panic"), Settled::Applied, "{settlement:?}");
                let steps = i64::from(matches!(settlement, Settlement::Rerun { .. }));
                assert_eq!(scene.count("$.idem_records_steps").await, steps, "{settlement:?}");
            }
        }
    })
    .await;
}

/// An owner that records a step and completes at once may leave the row of the step behind. No operator sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_record_is_settled_although_the_row_of_a_step_was_left_behind() {
    in_time(async {
        for settlement in every_settlement() {
            let scene = Scene::new().await;
            let completed = scene
                .backend
                .complete(&scene.key, &scene.claim, &Completion::Unknown, LONG)
                .await;
            assert_eq!(completed.expect("a healthy server"), Fenced::Applied);
            scene
                .execute("INSERT INTO $.idem_records_steps SELECT id, 'charge', '' FROM $.idem_records")
                .await;
            let settled = scene.settling(&settlement, LiveClaim::Refuse).await.expect("no panic");
            assert_eq!(settled, Settled::Applied, "{settlement:?}");
            assert_eq!(scene.count("$.idem_records_steps").await, 0, "{settlement:?}");
        }
    })
    .await;
}

/// So may one whose record has expired: its row is there when the key is claimed again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_without_steps_does_not_get_those_that_were_left_behind() {
    in_time(async {
        let mail = StepChange::Done {
            name: "mail".to_owned(),
            step: Bytes::new(),
        };
        let other = StepChange::NotDone {
            name: "mail".to_owned(),
        };
        for (step, left) in [(None, 0), (Some(other), 0), (Some(mail), 1)] {
            let scene = Scene::new().await;
            scene
                .execute("INSERT INTO $.idem_records_steps SELECT id, 'charge', '' FROM $.idem_records")
                .await;
            let settlement = rerun(step);
            let settled = scene.settling(&settlement, LiveClaim::Force).await.expect("no panic");
            assert_eq!(settled, Settled::Applied, "{settlement:?}");
            let records = scene.count("$.idem_records").await;
            let steps = scene.count("$.idem_records_steps").await;
            assert_eq!((records, steps), (left, left), "{settlement:?}");
        }
    })
    .await;
}

/// An operator who has given up must not find the record changed a minute later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_does_not_wait_for_a_locked_record_for_ever() {
    in_time(async {
        let scene = Scene::new().await;
        let holder = scene.hold("SELECT FROM $.idem_records FOR UPDATE").await;
        let settling = scene
            .backend
            .settle(&scene.key, scene.version, &Settlement::Forget, LiveClaim::Force);
        let error = settling.await.expect_err("it is locked");
        assert_eq!(error.kind(), BackendErrorKind::Timeout, "{error}");
        assert!(error.is_not_written(), "{error}");
        drop(holder);
        assert_eq!(scene.count("$.idem_records").await, 1);
    })
    .await;
}

/// Ends that meet again and again wait for each other, and never in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_and_an_owner_that_meet_do_not_stop_each_other() {
    in_time(async {
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let server = PostgresServer::start().await;
        let backend = PostgresBackend::new(server.pool().await);
        backend.migrate().await.expect("it may");
        for round in 0..40 {
            let key = RecordKey::new("ship", &Scope::global(), &IdempotencyKey::of(&round));
            let key = &key.expect("a valid key");
            let mut claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(LONG).with_lease(LONG));
            assert_eq!(backend.claim(key, &claim).await.expect("claims"), Acquisition::Acquired);
            let (settlement, step) = (&every_settlement()[round % 3], Bytes::new());
            let recorded = backend.record_step(key, &claim, "charge", &step).await;
            assert_eq!(recorded.expect("a healthy server"), Fenced::Applied);
            let shown = backend.inspect(key).await.expect("a healthy server");
            let version = shown.expect("it is there").version();
            claim.has_steps = true;
            let claim = &claim;
            let (settled, _, _, completed, parked) = futures_util::join!(
                backend.settle(key, version, settlement, LiveClaim::Force),
                backend.renew(key, claim),
                backend.record_step(key, claim, "ship", &step),
                async {
                    let completion = &Completion::NotStored;
                    if round % 2 == 0 {
                        Some(backend.complete(key, claim, completion, LONG).await)
                    } else {
                        None
                    }
                },
                async {
                    if round % 2 == 1 {
                        Some(backend.park(key, claim).await)
                    } else {
                        None
                    }
                },
            );
            let ended = completed.or(parked).expect("one of them").expect("a healthy server");
            let settled = settled.expect("a healthy server");
            let both = settled == Settled::Applied && ended == Fenced::Applied;
            assert!(!both, "{settlement:?}");
            assert!(
                settled == Settled::Applied || ended == Fenced::Applied,
                "{settlement:?}"
            );
        }
        assert_eq!(server.query::<i64>(deadlocks).await, 0);
    })
    .await;
}

/// Through a pooler in transaction mode, everything is sent as text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_an_operator_sees_and_settles() {
    in_time(async {
        let server = PostgresServer::start().await;
        let bouncer = PgBouncer::before_with(&server, &[]).await;
        let pool = PgPoolOptions::new().connect_lazy(&bouncer.url()).expect("a valid URL");
        let backend = PostgresBackend::new(pool.clone());
        backend.migrate().await.expect("it may");
        let (log, _listening) = Log::listen(tracing::Level::TRACE);
        let key = RecordKey::new("ship", &Scope::global(), &IdempotencyKey::of("k")).expect("a valid key");
        let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(LONG));
        backend.claim(&key, &claim).await.expect("claims");
        let recorded = backend
            .record_step(&key, &claim, "charge", &Bytes::from_static(b"\0\xFF"))
            .await;
        assert_eq!(recorded.expect("a healthy server"), Fenced::Applied);
        let shown = backend
            .inspect(&key)
            .await
            .expect("a healthy server")
            .expect("a record");
        assert_eq!(shown.steps, [("charge".to_owned(), Bytes::from_static(b"\0\xFF"))]);
        let settlement = Settlement::complete(Completion::Stored(Bytes::from_static(b"\0\xFE")), LONG);
        let version = shown.version();
        let settled = backend.settle(&key, version, &settlement, LiveClaim::Force).await;
        assert_eq!(settled.expect("a healthy server"), Settled::Applied);
        let page = backend
            .scan(&Selection::all(), None, 10)
            .await
            .expect("a healthy server");
        let [Listed::Record(listed)] = &page.records[..] else {
            panic!("{page:?}");
        };
        let expected = RecordState::Stored {
            len: 2,
            head: Bytes::from_static(b"\0\xFE"),
        };
        assert_eq!(listed.state, expected);
        let findings = backend.diagnose().await.expect("a healthy server");
        let told = findings.iter().find(|finding| finding.check == "connection");
        assert!(told.is_some_and(|told| told.text.contains("pooler")), "{findings:?}");
        // sqlx logs the statements of the application, and no statement that has a record's bytes in it.
        pool.execute("SELECT 'the application'")
            .await
            .expect("a healthy server");
        assert!(!log.lines_with("the application").is_empty());
        for bytes in ["00ff", "00fe"] {
            assert!(log.lines_with(bytes).is_empty(), "{}", log.text());
        }
    })
    .await;
}

/// With thousands of records, no call of an operator reads a whole table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_of_an_operator_goes_by_an_index() {
    in_time(async {
        let scene = Scene::new().await;
        assert_eq!(scene.recording("charge").await.expect("no panic"), Fenced::Applied);
        scene
            .execute(
                "INSERT INTO $.idem_records SELECT sha256(i::text::bytea), 'o:@global:' || i, 1, sha256(i::text::bytea), 1, '', \
                 1, 1, now(), now() + interval '1 hour', now() + interval '1 hour' FROM generate_series(1, 5000) i; \
                 INSERT INTO $.idem_records_leases SELECT id, token, now(), now() + interval '1 hour' FROM $.idem_records \
                 ON CONFLICT DO NOTHING; \
                 INSERT INTO $.idem_records_steps SELECT id, 'charge', '' FROM $.idem_records ON CONFLICT DO NOTHING; \
                 ANALYZE $.idem_records; ANALYZE $.idem_records_leases; ANALYZE $.idem_records_steps",
            )
            .await;
        let reads = scene.said(
            "SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = '$'",
        );
        let is_counted = scene.said(
            "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = '$' AND relname = 'idem_records'",
        );
        let (before, looked) = (
            scene.server.query::<i64>(&reads).await,
            scene.server.query::<i64>(&is_counted).await,
        );
        let backend = &scene.backend;
        let all = Selection::all();
        // The rows that were made by hand cannot be read; their versions are read together.
        let page = backend.scan(&all, None, 20).await.expect("a healthy server");
        assert_eq!((page.records.len(), page.looked_at, page.commands), (20, 20, 2));
        let narrow = all.clone().with_scope(&Scope::of("acme")).expect("valid");
        let page = backend.scan(&narrow, page.next.as_ref(), 20).await.expect("a healthy server");
        assert!(page.looked_at == 2_000 && page.next.is_some(), "{page:?}");
        let one = narrow.with_operation("ship").expect("valid").with_key(&IdempotencyKey::of("k")).expect("valid");
        let page = backend.scan(&one, None, 20).await.expect("a healthy server");
        assert!(page.records.len() == 1 && page.looked_at == 1 && page.next.is_none(), "{page:?}");
        backend.inspect(&scene.key).await.expect("a healthy server");
        for settlement in [rerun(None), Settlement::complete(Completion::Unknown, LONG)] {
            let settled = scene.settling(&settlement, LiveClaim::Force).await;
            assert_eq!(settled.expect("no panic"), Settled::Applied);
        }
        // The statistics of a session are counted when it ends.
        let sessions = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{}'",
            scene.schema
        );
        assert!(scene.server.query::<i64>(&sessions).await > 0);
        until("the reads are counted", async || {
            scene.server.query::<i64>(&is_counted).await >= looked + 8
        })
        .await;
        assert_eq!(scene.server.query::<i64>(&reads).await, before, "a table was read as a whole");
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_another_store_and_a_server_that_is_gone_are_errors_without_credentials() {
    let pool = PgPoolOptions::new().connect_lazy("postgres://app:hunter2@127.0.0.1:1/shop");
    let backend = PostgresBackend::new(pool.expect("a valid URL"));
    let foreign = idem_core::inspect::Cursor::new("no cursor");
    let error = backend
        .scan(&Selection::all(), Some(&foreign), 1)
        .await
        .expect_err("foreign");
    assert_eq!(error.kind(), BackendErrorKind::Config);
    let error = backend.diagnose().await.expect_err("nothing listens there");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
