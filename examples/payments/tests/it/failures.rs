//! The provider fails at each step, and the client's retry finishes what was begun.

use idem_tests::in_time;

use crate::provider::Failure;
use crate::scene::{Scene, Storage};
use crate::service::{pay, pay_cents};

async fn a_retry_goes_on_after_the_step_that_failed(storage: Storage) {
    let scene = Scene::set(storage).await;
    let service = scene.start(None).await;
    for what in ["hold", "capture", "mail"] {
        for failure in [Failure::Before, Failure::After] {
            let reference = format!("{what}-{failure:?}");
            scene.provider.fail_next(what, failure);
            let failed = pay(&service.url, &reference).await.expect("it lives");
            assert_eq!(failed.status(), 502, "{reference}");
            // What was begun belongs to this request.
            if what != "hold" {
                let other = pay_cents(&service.url, &reference, 2).await.expect("it lives");
                assert_eq!(other.status(), 422, "{reference}");
            }
            let paid = pay(&service.url, &reference).await.expect("it lives");
            assert_eq!(paid.status(), 201, "{reference}");
            assert!(!paid.headers().contains_key("idempotent-replayed"), "{reference}");
            let paid = paid.bytes().await.expect("a body");
            let replay = pay(&service.url, &reference).await.expect("it lives");
            assert!(replay.headers().contains_key("idempotent-replayed"), "{reference}");
            assert_eq!(replay.bytes().await.expect("a body"), paid);
            assert_eq!(scene.provider.done(&reference), [1, 1, 1], "{reference}");
        }
    }
    assert_eq!(scene.query("SELECT count(*) FROM ledger").await, 6);
}

async fn what_the_bank_declines_is_final(storage: Storage) {
    let scene = Scene::set(storage).await;
    let service = scene.start(None).await;
    scene.provider.fail_next("capture", Failure::Declined);
    for is_replay in [false, true] {
        let declined = pay(&service.url, "o").await.expect("it lives");
        assert_eq!(declined.status(), 402);
        assert_eq!(declined.headers().contains_key("idempotent-replayed"), is_replay);
    }
    assert_eq!(scene.provider.done("o"), [1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_postgres_a_retry_finishes_what_was_begun() {
    in_time(async {
        a_retry_goes_on_after_the_step_that_failed(Storage::Postgres).await;
        what_the_bank_declines_is_final(Storage::Postgres).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_sqlite_a_retry_finishes_what_was_begun() {
    in_time(async {
        a_retry_goes_on_after_the_step_that_failed(Storage::Sqlite).await;
        what_the_bank_declines_is_final(Storage::Sqlite).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_a_retry_finishes_what_was_begun() {
    in_time(async {
        a_retry_goes_on_after_the_step_that_failed(Storage::Redis).await;
        what_the_bank_declines_is_final(Storage::Redis).await;
    })
    .await;
}
