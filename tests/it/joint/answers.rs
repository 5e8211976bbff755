//! Answers that are recorded, and answers that are not.

use axum::http::StatusCode;
use idem_axum::JointErrorKind;
use idem_tests::until;

use super::{Scene, assert_released, on_both_databases};

on_both_databases! {
    an_answer_is_committed_and_replayed_byte_for_byte
    an_answer_that_is_too_large_is_committed_without_its_body
    a_stream_that_turns_out_too_large_rolls_back
    a_refusal_and_a_failure_are_recorded_where_the_handler_has_them_recorded
    a_verdict_says_for_how_long_the_record_is_kept
    an_answer_that_is_not_kept_is_sent_as_it_is_and_released
    an_unknown_outcome_rolls_back_and_is_remembered
}

async fn an_answer_is_committed_and_replayed_byte_for_byte(scene: Scene) {
    for (number, told) in [
        "",
        "headers",
        "binary",
        "204",
        "303",
        "length 0",
        "length 1024",
        "streamed 0",
        "streamed 1020",
    ]
    .iter()
    .enumerate()
    {
        // Quotes, backslashes and placeholders, which no statement may take for its own.
        let key = format!("k'{number}\\\"$1?2;--");
        let send = || scene.call("/charges", &[("answer", told)]).key(&key).send();
        let first = send().await;
        assert!(
            first.status.is_success() || first.status.is_redirection(),
            "{told}: {first:?}"
        );
        send().await.assert_replays(&first);
        let both = i64::try_from(number + 1).expect("few");
        assert_eq!(scene.counts().await, (both, both), "{told}");
    }
}

async fn an_answer_that_is_too_large_is_committed_without_its_body(scene: Scene) {
    let first = scene.send(&[("answer", "length 1025")]).await;
    assert_eq!((first.status, first.body.len()), (StatusCode::OK, 1025));
    assert!(first.says_not_stored(), "{first:?}");
    assert_eq!(scene.send(&[]).await.problem(), "response-not-stored");
    assert_eq!(scene.counts().await, (1, 1));
}

/// It is read before the record is made, so that it cannot be sent any more.
async fn a_stream_that_turns_out_too_large_rolls_back(scene: Scene) {
    let refused = scene.send(&[("answer", "streamed 1030")]).await;
    assert_eq!(refused.problem(), "not-configured", "{refused:?}");
    assert_released(&scene).await;
    assert_eq!(scene.steps.errors(), [JointErrorKind::Answer]);
}

async fn a_refusal_and_a_failure_are_recorded_where_the_handler_has_them_recorded(scene: Scene) {
    for (number, told) in ["404", "kept 500"].into_iter().enumerate() {
        let send = || scene.call("/charges", &[("answer", told)]).key(told).send();
        let first = send().await;
        assert!(!first.status.is_success(), "{first:?}");
        send().await.assert_replays(&first);
        assert_eq!(scene.counts().await.0, i64::try_from(number + 1).expect("few"));
    }
}

async fn a_verdict_says_for_how_long_the_record_is_kept(scene: Scene) {
    let told = [("answer", "kept for 100 ms")];
    let first = scene.send(&told).await;
    assert_eq!(first.status, StatusCode::CREATED);
    until("the record has expired", async || {
        let retry = scene.send(&told).await;
        assert_eq!(retry.status, StatusCode::CREATED, "{retry:?}");
        !retry.is_replay()
    })
    .await;
    assert_eq!(scene.counts().await, (2, 1));
}

async fn an_answer_that_is_not_kept_is_sent_as_it_is_and_released(scene: Scene) {
    for (told, status) in [("500", 500), ("503", 503), ("release", 201)] {
        let first = scene.send(&[("answer", told)]).await;
        assert_eq!((first.status.as_u16(), first.text()), (status, "entry"), "{first:?}");
        assert_eq!(scene.counts().await, (0, 0));
    }
    assert_released(&scene).await;
    assert_eq!(scene.steps.errors(), [JointErrorKind::NotKept; 3]);
}

async fn an_unknown_outcome_rolls_back_and_is_remembered(scene: Scene) {
    let first = scene.send(&[("answer", "unknown")]).await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "entry"));
    assert_eq!(scene.send(&[]).await.problem(), "outcome-unknown");
    assert_eq!(scene.counts().await, (0, 1));
}
