//! Who is told of a handler's own commit, what idem asks for it, and what it says where it gets no answer.

use std::sync::Arc;

use axum::http::StatusCode;
use idem_axum::sqlx::postgres::PgPool;
use idem_axum::{Backend, PostgresBackend};
use idem_core::{IdempotencyKey, RecordKey, Scope};
use idem_tests::{Answer, Proxy, Service, in_time, until};
use reqwest::Method;
use tokio::net::TcpListener;

use super::handler::routes;
use super::{Database, Scene, on_both_databases};

on_both_databases! {
    a_duplicate_in_another_process_is_woken_by_the_commit_and_gets_the_answer
}

/// Waits for the end of the claim as another process does, by a backend of its own: told, because nothing else ends this.
async fn told_of_the_end(scene: &Scene, backend: impl Backend) {
    let key = RecordKey::new("POST /charges/waiting", &Scope::global(), &IdempotencyKey::of("k"));
    let changed = backend.changed(&key.expect("a valid key")).await;
    let changed = changed.expect("the database answers");
    let other = Service::start(backend, routes(&scene.steps), None).await;
    let call = || {
        other
            .client
            .call(Method::POST, "/charges/waiting")
            .body("entry")
            .key("k")
    };
    let waiting = tokio::spawn(call().send());
    scene.steps.go_on.notify_one();
    changed.await;
    let waited = waiting.await.expect("no panic");
    assert_eq!(waited.status, StatusCode::CREATED, "{waited:?}");
    assert!(waited.is_replay(), "{waited:?}");
}

async fn a_duplicate_in_another_process_is_woken_by_the_commit_and_gets_the_answer(scene: Scene) {
    let first = scene.call("/charges/waiting", &[("hold", "before")]).key("k");
    let first = tokio::spawn(first.send());
    scene.steps.reached.notified().await;
    match &scene.database {
        Database::Postgres(server, schema) => {
            let backend = PostgresBackend::new(server.pool().await).with_schema(schema);
            told_of_the_end(&scene, backend).await;
        }
        Database::Sqlite(file) => told_of_the_end(&scene, file.backend().await).await,
    }
    let first = first.await.expect("no panic");
    scene
        .call("/charges/waiting", &[])
        .key("k")
        .send()
        .await
        .assert_replays(&first);
    assert_eq!(scene.counts().await, (1, 1));
}

/// A scene whose records are reached by a proxy, and whose handler is not.
async fn behind_a_proxy() -> (Scene, Proxy) {
    let database = Database::postgres().await;
    let Database::Postgres(server, schema) = &database else {
        panic!("it is in Postgres");
    };
    let proxy = Proxy::start(server.address()).await;
    let behind = proxy.address.to_string();
    let url = server.url().replace(&server.address().to_string(), &behind);
    let pool = PgPool::connect_lazy(&url).expect("a URL");
    let backend = PostgresBackend::new(pool).with_schema(schema);
    (Scene::with(database, backend).await, proxy)
}

/// Sends a charge and cuts idem off once its handler has committed.
async fn cut_off_after_the_commit(scene: &Scene, cut_off: impl FnOnce()) -> Answer {
    let sent = tokio::spawn(scene.call("/charges", &[("hold", "committed")]).key("k").send());
    scene.steps.reached.notified().await;
    cut_off();
    scene.steps.go_on.notify_one();
    sent.await.expect("no panic")
}

async fn assert_open_and_then_replayed(scene: &Scene, answer: &Answer, mend: impl FnOnce()) {
    assert_eq!(answer.problem(), "not-committed", "{answer:?}");
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    mend();
    until("the retry is replayed", async || {
        let retry = scene.send(&[]).await;
        match retry.status {
            StatusCode::CREATED => retry.is_replay(),
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{retry:?}");
                false
            }
        }
    })
    .await;
    assert_eq!(scene.counts().await, (1, 1));
}

#[tokio::test]
async fn where_the_database_is_gone_after_the_commit_nothing_is_known_and_a_retry_finds_out() {
    in_time(async {
        let (scene, proxy) = behind_a_proxy().await;
        let Database::Postgres(server, _) = &scene.database else {
            return;
        };
        let server = Arc::clone(server);
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let nowhere = closed.local_addr().expect("it is bound");
        drop(closed);
        let answer = cut_off_after_the_commit(&scene, || {
            proxy.lead_to(nowhere);
            proxy.cut_connections();
        })
        .await;
        assert_open_and_then_replayed(&scene, &answer, || proxy.lead_to(server.address())).await;
    })
    .await;
}

#[tokio::test]
async fn where_the_line_falls_silent_after_the_commit_nothing_is_known_and_a_retry_finds_out() {
    in_time(async {
        let (scene, proxy) = behind_a_proxy().await;
        let answer = cut_off_after_the_commit(&scene, || proxy.silence_connections()).await;
        assert_open_and_then_replayed(&scene, &answer, || ()).await;
    })
    .await;
}

/// One to claim and one to ask; a replay takes one, and the handler's own statements are on its own connection.
#[tokio::test]
async fn idem_asks_the_database_twice_for_a_first_answer_and_once_for_a_replay() {
    in_time(async {
        let (scene, proxy) = behind_a_proxy().await;
        let messages = async |key: &str| {
            let before = proxy.messages_to_server();
            let answer = scene.call("/charges", &[]).key(key).send().await;
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            proxy.messages_to_server() - before
        };
        // The connection is opened, and statements are prepared.
        for key in ["warm", "warm", "warm again"] {
            messages(key).await;
        }
        assert_eq!(messages("k").await, 2);
        assert_eq!(messages("k").await, 1);
    })
    .await;
}
