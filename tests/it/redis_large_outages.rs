//! Large answers through outages, silent connections and other large answers: they fare as small ones do (IDEM-13).

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::future::join_all;
use idem_axum::{RedisBackend, idempotent};
use idem_tests::{Answer, App, Proxy, RedisServer, Service, in_time, until};
use reqwest::Method;
use tokio::sync::Semaphore;

/// What the handler answers with, and when.
#[derive(Clone)]
struct Script {
    size: usize,
    started: Arc<Semaphore>,
    may_end: Arc<Semaphore>,
}

#[idempotent(ttl = "24h", scope = global, lease = "3s", max_response = "64MiB")]
async fn large(Extension(script): Extension<Script>) -> Bytes {
    script.started.add_permits(1);
    script.may_end.acquire().await.expect("it is open").forget();
    vec![7; script.size].into()
}

#[idempotent(ttl = "24h", scope = global)]
async fn small() -> (StatusCode, &'static str) {
    (StatusCode::CREATED, "twenty bytes or less")
}

const MEBIBYTE: usize = 1 << 20;

/// Little more than what is small: the time that its size allows is little more than a deadline.
const BARELY_LARGE: usize = 70_000;

struct Setting {
    server: RedisServer,
    proxy: Proxy,
    service: Service,
    script: Script,
}

impl Setting {
    async fn start(size: usize) -> Self {
        let server = RedisServer::start_durable().await;
        let proxy = Proxy::start(server.address()).await;
        let backend = RedisBackend::connect(&format!("redis://{}/", proxy.address)).await;
        let script = Script {
            size,
            started: Semaphore::new(0).into(),
            may_end: Semaphore::new(0).into(),
        };
        let routes: Router<App> = Router::new()
            .route("/large", post(large))
            .route("/small", post(small))
            .layer(Extension(script.clone()));
        let service = Service::start(backend.expect("it answers"), routes, None).await;
        Self {
            server,
            proxy,
            service,
            script,
        }
    }

    async fn send(&self, path: &str, key: &str) -> Answer {
        self.service.client.call(Method::POST, path).key(key).send().await
    }

    /// Sends a request whose handler waits in its middle, and returns when it has come there.
    async fn begin(&self, key: &str) -> tokio::task::JoinHandle<Answer> {
        let asked = tokio::spawn(self.service.client.call(Method::POST, "/large").key(key).send());
        self.script.started.acquire().await.expect("it is open").forget();
        asked
    }

    fn let_end(&self, count: usize) {
        self.script.may_end.add_permits(count);
    }

    async fn record(&self, key: &str) {
        self.let_end(1);
        let first = self.send("/large", key).await;
        assert!(!first.says_not_stored());
        self.script.started.acquire().await.expect("it is open").forget();
    }

    async fn assert_replays(&self, key: &str) {
        let again = self.send("/large", key).await;
        assert!(again.is_replay(), "{:?} {:?}", again.status, again.body);
        assert_eq!(again.body.len(), self.script.size);
    }

    async fn connections_received(&self) -> u64 {
        let info: String = redis::cmd("INFO")
            .arg("stats")
            .query_async(&mut self.server.connection().await)
            .await
            .expect("INFO is allowed");
        let count = info
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"));
        count.and_then(|count| count.parse().ok()).expect("a number")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_outlasts_a_redis_that_is_stopped_while_it_is_recorded() {
    in_time(async {
        let setting = Setting::start(BARELY_LARGE).await;
        let asked = setting.begin("k").await;
        setting.server.freeze();
        setting.let_end(1);
        let first = asked.await.expect("no panic");
        assert!(first.says_not_stored());
        tokio::time::sleep(Duration::from_secs(3)).await;
        setting.server.thaw();
        setting.service.idempotency.drain().await;
        setting.assert_replays("k").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_outlasts_a_redis_that_refuses_connections() {
    in_time(async {
        let mut setting = Setting::start(BARELY_LARGE).await;
        let asked = setting.begin("k").await;
        setting.server.kill();
        setting.let_end(1);
        let first = asked.await.expect("no panic");
        assert!(first.says_not_stored());
        // Longer than the time that its size allows, were each refused try counted.
        tokio::time::sleep(Duration::from_secs(20)).await;
        setting.server.restart().await;
        setting.service.idempotency.drain().await;
        setting.assert_replays("k").await;
    })
    .await;
}

/// The connection of large answers is used seldom, and a firewall forgets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_recorded_although_its_connection_was_forgotten() {
    in_time(async {
        let setting = Setting::start(BARELY_LARGE).await;
        setting.record("first").await;
        setting.proxy.silence_connections();
        let mut sent = 0;
        while setting.send("/small", &format!("small-{sent}")).await.status != StatusCode::CREATED {
            sent += 1;
        }
        setting.record("second").await;
        setting.assert_replays("second").await;
        setting.proxy.silence_connections();
        while setting.send("/small", &format!("small-{sent}")).await.status != StatusCode::CREATED {
            sent += 1;
        }
        setting.assert_replays("first").await;
    })
    .await;
}

/// Both of them: that of small calls as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_recorded_although_all_connections_were_forgotten_while_it_was_made() {
    in_time(async {
        let setting = Setting::start(BARELY_LARGE).await;
        setting.record("first").await;
        let asked = setting.begin("k").await;
        setting.proxy.silence_connections();
        setting.let_end(1);
        asked.await.expect("no panic");
        setting.service.idempotency.drain().await;
        setting.assert_replays("k").await;
    })
    .await;
}

/// About 4 MB a second, which one of them needs a second for, and all of them eight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_answers_at_once_wait_for_their_turn_on_a_slow_line() {
    in_time(async {
        let setting = Setting::start(4 * MEBIBYTE).await;
        setting.proxy.slow_down(Duration::from_millis(3));
        setting.let_end(8);
        let keys: Vec<_> = (0..8).map(|number| format!("k{number}")).collect();
        join_all(keys.iter().map(|key| setting.send("/large", key))).await;
        setting.service.idempotency.drain().await;
        join_all(keys.iter().map(|key| setting.assert_replays(key))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_during_a_large_replay_cost_no_connection() {
    in_time(async {
        let setting = Setting::start(4 * MEBIBYTE).await;
        setting.record("k").await;
        setting.proxy.slow_down(Duration::from_millis(3));
        let before = setting.connections_received().await;
        for _ in 0..5 {
            let read = setting.proxy.bytes_to_clients();
            let asked = tokio::spawn(setting.service.client.call(Method::POST, "/large").key("k").send());
            until("it is on its way", async || {
                setting.proxy.bytes_to_clients() > read + (MEBIBYTE / 2) as u64
            })
            .await;
            asked.abort();
        }
        setting.assert_replays("k").await;
        // One more is that which asks.
        assert_eq!(setting.connections_received().await - before, 1);
    })
    .await;
}
