//! The two routes that take orders.

use serde_json::json;
use tokio::task::JoinSet;

use crate::client::order;
use crate::process::Service;

const ORDER: &str = "/shipping/order";
const NAIVE: &str = "/naive/shipping/order";

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_writes_no_row() {
    let service = Service::start(0);

    let first = service.client.post(ORDER, "acme-demo", "k", &order("a")).await;
    let retry = service.client.post(ORDER, "acme-demo", "k", &order("a")).await;

    assert_eq!(first.status, 201);
    assert_eq!(first.json()["ok"], true);
    assert!(first.json()["shipping_id"].is_i64());
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(retry.status, 201);
    assert_eq!(retry.body, first.body);
    assert_eq!(retry.header("content-type"), first.header("content-type"));
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    assert_eq!(service.client.listed("acme-demo").await, ["a"]);
}

#[tokio::test]
async fn the_naive_route_ships_again() {
    let service = Service::start(0);

    let first = service.client.post(NAIVE, "acme-demo", "k", &order("a")).await;
    let retry = service.client.post(NAIVE, "acme-demo", "k", &order("a")).await;

    assert_eq!((first.status, retry.status), (201, 201));
    assert_ne!(first.body, retry.body);
    assert_eq!(service.client.listed("acme-demo").await, ["a", "a"]);
}

#[tokio::test]
async fn a_key_is_refused_for_another_order_and_missed_where_it_is_not_sent() {
    let service = Service::start(0);

    let first = service.client.post(ORDER, "acme-demo", "k", &order("a")).await;
    let reused = service.client.post(ORDER, "acme-demo", "k", &order("b")).await;
    let missing = service.client.post(ORDER, "acme-demo", "", &order("a")).await;

    assert_eq!(first.status, 201);
    assert_eq!(reused.status, 422);
    assert_eq!(reused.json()["code"], "key-reused");
    assert_eq!(missing.status, 400);
    assert_eq!(missing.json()["code"], "key-missing");
    assert_eq!(service.client.listed("acme-demo").await, ["a"]);
}

#[tokio::test]
async fn an_order_with_an_empty_field_is_refused_and_the_refusal_replayed() {
    let service = Service::start(0);

    for field in ["order_id", "vendor", "address"] {
        let mut empty = order("a");
        empty[field] = json!("");
        let first = service.client.post(ORDER, "acme-demo", field, &empty).await;
        let retry = service.client.post(ORDER, "acme-demo", field, &empty).await;

        assert_eq!((first.status, retry.status), (422, 422));
        assert_eq!(first.json(), json!({ "error": format!("`{field}` must not be empty") }));
        assert_eq!(retry.body, first.body);
        assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    }
    assert!(service.client.listed("acme-demo").await.is_empty());
}

#[tokio::test]
async fn what_no_database_can_keep_is_refused_and_not_tried() {
    let service = Service::start(0);

    let answer = service.client.post(ORDER, "acme-demo", "k", &order("a\0b")).await;

    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["error"], "`order_id` must not contain U+0000");
}

#[tokio::test]
async fn many_orders_at_once_are_all_written() {
    let service = Service::start(0);
    let ids: Vec<String> = (0..32).map(|number| format!("{number:02}")).collect();

    let mut posts = JoinSet::new();
    for id in ids.clone() {
        let client = service.client.clone();
        posts.spawn(async move { client.post(ORDER, "acme-demo", &id, &order(&id)).await.status });
    }

    assert!(posts.join_all().await.iter().all(|status| *status == 201));
    let mut listed = service.client.listed("acme-demo").await;
    listed.sort();
    assert_eq!(listed, ids);
}
