//! The incidents that are about the store as a whole, a whole scope, or a record that is none of this version.

use idem_tests::{Log, RedisServer, Service, in_time};
use reqwest::Method;
use serde_json::{Value, json};
use tracing::Level;

use super::incidents::assert_logged;
use super::service::start;
use super::{Desk, member};

#[tokio::test]
async fn incident_11_the_doctor_finds_a_server_that_evicts_records() {
    in_time(async {
        let server = RedisServer::start_with(&["--appendonly", "yes"]).await;
        server.set("maxmemory", "100mb").await;
        server.set("maxmemory-policy", "allkeys-lru").await;
        let mut desk = Desk::new(&server, 11);
        let line = |printed: &str| {
            printed
                .lines()
                .find(|line| line.contains(" eviction "))
                .map(str::to_owned)
        };
        let ill = desk.run(6).await;
        assert!(line(&ill).is_some_and(|line| line.contains("noeviction")), "{ill}");
        server.set("maxmemory-policy", "noeviction").await;
        let well = desk.run(0).await;
        assert!(line(&well).is_some_and(|line| line.starts_with("good")), "{well}");
        desk.end();
    })
    .await;
}

#[tokio::test]
async fn incident_12_the_records_of_a_customer_are_counted_and_removed() {
    in_time(async {
        let (service, server, shop) = start().await;
        let of = |path: &str, tenant: &str, key: &str| service.client.call(Method::POST, path).tenant(tenant).key(key);
        for number in 0..3 {
            of("/prices", "leaving", &format!("p-{number}")).send().await;
        }
        of("/prices", "staying", "p").send().await;
        let in_flight = tokio::spawn(of("/exports", "leaving", "e").send());
        shop.until_started().await;
        let mut desk = Desk::new(&server, 12);
        let removed = desk.run(5).await;
        assert!(
            removed.contains("4 records") || removed.contains("3 records would be forgotten"),
            "{removed}"
        );
        assert!(
            removed.contains("3 forgotten, 0 gone before, 0 changed meanwhile, 1 live and left"),
            "{removed}"
        );
        shop.release();
        in_flight.await.expect("no panic");
        let watched = desk.run(0).await;
        assert!(watched.contains("watching 1 record;"), "{watched}");
        desk.end();
        let left = desk_after(&server).await;
        assert_eq!(left.as_array().map(Vec::len), Some(1));
        assert_eq!(shop_is_untouched(&service).await, 1);
    })
    .await;
}

/// What is still listed of the customer: the request that was in flight.
async fn desk_after(server: &RedisServer) -> Value {
    let desk = Desk::new(server, 12);
    let listed = desk.shell("idem list --scope leaving --json").await;
    member(&String::from_utf8_lossy(&listed.stdout), "records")
}

/// The other customer's answer is replayed.
async fn shop_is_untouched(service: &Service) -> u64 {
    let replay = service
        .client
        .call(Method::POST, "/prices")
        .tenant("staying")
        .key("p")
        .send()
        .await;
    assert!(replay.is_replay());
    replay.json()["price"].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn incident_13_a_record_of_another_layout_is_removed_by_force() {
    in_time(async {
        let (log, _guard) = Log::listen(Level::INFO);
        let (service, server, shop) = start().await;
        shop.mend();
        let mut set = redis::cmd("SET");
        let name = "idem:{POST%20/quotes:acme:quote-13}";
        set.arg(name).arg("\u{9}later").arg("EX").arg(86_400);
        set.exec_async(&mut server.connection().await).await.expect("SET");
        let quote = async || {
            let call = service.client.call(Method::POST, "/quotes").key("quote-13");
            call.json(&json!({})).send().await
        };
        assert_eq!(quote().await.problem(), "backend-unavailable");
        assert_logged(&log, 13);
        let mut desk = Desk::new(&server, 13);
        let shown = desk.run(1).await;
        assert!(shown.contains("its version is unreadable-"), "{shown}");
        desk.run(0).await;
        desk.end();
        assert_eq!(quote().await.json()["total"], 42);
        assert_eq!(shop.runs(), 1);
    })
    .await;
}
