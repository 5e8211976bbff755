//! How a handler's own transaction ends, and what a handler can do wrong with it.

use axum::http::StatusCode;
use idem_axum::JointErrorKind;
use idem_tests::{Log, until};

use super::{Database, Scene, assert_released, on_both_databases};

on_both_databases! {
    a_commit_that_was_forgotten_is_found_out_and_undone
    a_success_that_was_made_anew_is_not_sent_either_where_nothing_was_committed
    a_commit_that_fails_is_the_handlers_to_answer
    a_handler_that_rolls_back_may_refuse
    an_answer_other_than_the_recorded_one_is_sent_and_the_recorded_one_is_replayed
    an_attempt_that_was_superseded_rolls_back_and_the_others_answer_stays
    a_success_of_an_attempt_that_was_superseded_is_not_sent
    a_statement_that_did_not_reach_the_record_is_not_taken_for_another_attempt
    a_success_whose_record_was_not_written_is_not_repeated
    a_success_that_was_committed_without_a_number_of_rows_is_sent
    a_record_that_has_expired_was_committed_all_the_same
    a_transaction_that_is_longer_than_lease_and_record_can_be_committed
    a_statement_that_fails_after_the_record_undoes_it_in_postgres_and_only_itself_in_sqlite
    a_handler_that_panics_or_fails_after_its_commit_does_not_run_again
    an_answer_that_is_sent_ahead_of_its_commit_is_true_or_not_sent
    a_stream_in_place_of_the_recorded_answer_is_not_sent
}

async fn a_commit_that_was_forgotten_is_found_out_and_undone(scene: Scene) {
    let (log, _guard) = Log::listen(tracing::Level::WARN);
    let forgotten = scene.send(&[("then", "forget")]).await;
    assert_eq!(forgotten.problem(), "rolled-back", "{forgotten:?}");
    assert_eq!(forgotten.status, StatusCode::INTERNAL_SERVER_ERROR);
    let lines = log.lines_with("as if its Joint were committed");
    assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{}", log.text());
    assert_released(&scene).await;
}

async fn a_success_that_was_made_anew_is_not_sent_either_where_nothing_was_committed(scene: Scene) {
    let forgotten = scene.send(&[("then", "forget and rebuild")]).await;
    assert_eq!(forgotten.problem(), "rolled-back", "{forgotten:?}");
    assert_released(&scene).await;
}

async fn a_commit_that_fails_is_the_handlers_to_answer(scene: Scene) {
    let failed = scene.send(&[("then", "break the commit")]).await;
    assert_eq!(
        (failed.status, failed.text()),
        (StatusCode::SERVICE_UNAVAILABLE, "the handler's own")
    );
    assert_released(&scene).await;
}

async fn a_handler_that_rolls_back_may_refuse(scene: Scene) {
    let refused = scene.send(&[("then", "roll back and refuse")]).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    scene.send(&[]).await.assert_replays(&refused);
    assert_eq!(scene.counts().await, (0, 1));
}

async fn an_answer_other_than_the_recorded_one_is_sent_and_the_recorded_one_is_replayed(scene: Scene) {
    let (log, _guard) = Log::listen(tracing::Level::WARN);
    let same = scene.call("/charges", &[("then", "rebuild")]).key("rebuilt");
    assert_eq!(same.send().await.status, StatusCode::CREATED);
    let lines = log.lines_with("Joint");
    assert!(lines.is_empty(), "it is the same answer: {lines:?}");

    let changed = scene.send(&[("then", "change")]).await;
    assert_eq!(changed.status, StatusCode::CREATED, "{changed:?}");
    assert!(changed.headers.contains_key("x-changed"));
    let lines = log.lines_with("changed its answer");
    assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{}", log.text());
    let replay = scene.send(&[]).await;
    assert!(replay.is_replay(), "{replay:?}");
    assert!(!replay.headers.contains_key("x-changed"));

    // A refusal after the commit is the handler's affair.
    let refused = scene
        .call("/charges", &[("then", "refuse")])
        .key("refused")
        .send()
        .await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    let replay = scene.call("/charges", &[]).key("refused").send().await;
    assert!(replay.is_replay() && replay.status == StatusCode::CREATED, "{replay:?}");
    assert_eq!(scene.counts().await, (3, 3));
}

/// Holds an attempt before its transaction, and lets another one take its claim over and finish.
async fn superseded(scene: &Scene, then: &str) -> [idem_tests::Answer; 2] {
    let first = scene.call("/charges", &[("hold", "before"), ("then", then)]).key("k");
    let first = tokio::spawn(first.send());
    scene.steps.reached.notified().await;
    let records = scene.database.table("idem_records");
    let lapse = match scene.database {
        Database::Postgres(..) => "lease_until = now() - interval '1 second'",
        Database::Sqlite(_) => "lapses_ns = 0",
    };
    scene.database.execute(&format!("UPDATE {records} SET {lapse}")).await;
    let second = scene.send(&[]).await;
    scene.steps.go_on.notify_one();
    [first.await.expect("no panic"), second]
}

async fn an_attempt_that_was_superseded_rolls_back_and_the_others_answer_stays(scene: Scene) {
    let [first, second] = superseded(&scene, "").await;
    assert_eq!(second.status, StatusCode::CREATED, "{second:?}");
    assert_eq!(first.status, StatusCode::CONFLICT, "{first:?}");
    assert_eq!(first.problem(), "in-flight");
    assert_eq!(scene.steps.errors(), [JointErrorKind::Superseded]);
    assert_eq!(scene.counts().await, (1, 1));
    scene.send(&[]).await.assert_replays(&second);
}

/// A handler that does not look at the error has written its row twice; its client at least gets the other attempt's answer.
async fn a_success_of_an_attempt_that_was_superseded_is_not_sent(scene: Scene) {
    let (log, _guard) = Log::listen(tracing::Level::WARN);
    let [first, second] = superseded(&scene, "swallow the error").await;
    assert_eq!(second.status, StatusCode::CREATED, "{second:?}");
    assert_eq!(first.problem(), "in-flight", "{first:?}");
    let lines = log.lines_with("another attempt had taken its claim over");
    assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{}", log.text());
    scene.send(&[]).await.assert_replays(&second);
}

async fn a_statement_that_did_not_reach_the_record_is_not_taken_for_another_attempt(scene: Scene) {
    let (log, _guard) = Log::listen(tracing::Level::WARN);
    let answer = scene.send(&[("then", "execute twice")]).await;
    assert_eq!(answer.problem(), "rolled-back", "{answer:?}");
    assert_eq!(scene.steps.errors(), [JointErrorKind::Superseded]);
    assert_eq!(log.lines_with("changed no row").len(), 1, "{}", log.text());
    assert_released(&scene).await;
}

/// Its row is committed and its claim in place: a second run would write a second row.
async fn a_success_whose_record_was_not_written_is_not_repeated(scene: Scene) {
    let answer = scene.send(&[("then", "execute nothing and swallow the error")]).await;
    assert_eq!(answer.problem(), "not-committed", "{answer:?}");
    assert_eq!(scene.send(&[]).await.problem(), "response-not-stored");
    assert_eq!(scene.counts().await, (1, 1));
}

/// Some clients report no number, and some handlers do not look at errors.
async fn a_success_that_was_committed_without_a_number_of_rows_is_sent(scene: Scene) {
    let answer = scene.send(&[("then", "pass on no number and swallow the error")]).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "rebuilt"));
    let replay = scene.send(&[]).await;
    assert!(replay.is_replay() && replay.text() == "entry", "{replay:?}");
    assert_eq!(scene.counts().await, (1, 1));
}

/// The handler is slow after its commit, and its record is kept for less than that.
async fn a_record_that_has_expired_was_committed_all_the_same(scene: Scene) {
    let told = [("then", "pause"), ("answer", "kept for 100 ms")];
    let answer = scene.send(&told).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(scene.counts().await.0, 1);
}

/// In SQLite, nobody can renew the claim meanwhile, and nobody can take it over.
async fn a_transaction_that_is_longer_than_lease_and_record_can_be_committed(scene: Scene) {
    let answer = scene
        .call("/charges/short", &[("hold", "a while")])
        .key("k")
        .send()
        .await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(scene.counts().await, (1, 1));
}

/// Postgres answers the COMMIT of a transaction that it has rolled back without an error.
async fn a_statement_that_fails_after_the_record_undoes_it_in_postgres_and_only_itself_in_sqlite(scene: Scene) {
    let answer = scene.send(&[("then", "fail and swallow that")]).await;
    match scene.database {
        Database::Postgres(..) => {
            assert_eq!(answer.problem(), "rolled-back", "{answer:?}");
            assert_released(&scene).await;
        }
        Database::Sqlite(_) => {
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            assert_eq!(scene.counts().await, (1, 1));
        }
    }
}

async fn a_handler_that_panics_or_fails_after_its_commit_does_not_run_again(scene: Scene) {
    for (number, then) in ["panic", "fail afterwards"].into_iter().enumerate() {
        let first = scene.call("/charges", &[("then", then)]).key(then).send().await;
        assert_eq!(first.status, StatusCode::INTERNAL_SERVER_ERROR, "{first:?}");
        let retry = scene.call("/charges", &[]).key(then).send().await;
        assert!(retry.is_replay() && retry.status == StatusCode::CREATED, "{retry:?}");
        assert_eq!(scene.counts().await.0, i64::try_from(number + 1).expect("few"));
    }
}

/// Another task of the handler's commits later, while idem asks for the end of the transaction.
async fn an_answer_that_is_sent_ahead_of_its_commit_is_true_or_not_sent(scene: Scene) {
    let told = [("then", "answer before the commit")];
    let first = tokio::spawn(scene.call("/charges", &told).key("k").send());
    match &scene.database {
        Database::Postgres(server, schema) => {
            let waiting = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%'"
            );
            until("idem waits for the transaction", async || {
                server.query::<i64>(&waiting).await == 1
            })
            .await;
        }
        // It shows nobody who waits, so either may be first.
        Database::Sqlite(_) => tokio::task::yield_now().await,
    }
    scene.steps.go_on.notify_one();
    let first = first.await.expect("no panic");
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    scene.send(&[]).await.assert_replays(&first);
    assert_eq!(scene.counts().await, (1, 1));
}

async fn a_stream_in_place_of_the_recorded_answer_is_not_sent(scene: Scene) {
    let refused = scene.send(&[("then", "forget and stream")]).await;
    assert_eq!(refused.problem(), "not-configured", "{refused:?}");
    assert_released(&scene).await;
}
