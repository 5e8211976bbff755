//! Who may do what, and who sees what.

use crate::client::{Answer, order};
use crate::process::Service;

const ORDER: &str = "/shipping/order";

fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    assert!(answer.json()["error"].is_string());
}

#[tokio::test]
async fn nobody_gets_in_without_a_known_token() {
    let service = Service::start(0);

    assert_refused(&service.client.get_bare("/shipping/orders").await);
    assert_refused(&service.client.post(ORDER, "acme", "k", &order("a")).await);
    assert_refused(&service.client.post("/naive/shipping/order", "", "k", &order("a")).await);

    assert!(service.client.listed("acme-demo").await.is_empty());
}

#[tokio::test]
async fn a_request_that_was_refused_for_its_token_claims_no_key() {
    let service = Service::start(0);

    assert_refused(&service.client.post(ORDER, "acme", "k", &order("a")).await);
    let first = service.client.post(ORDER, "acme-demo", "k", &order("b")).await;

    assert_eq!(first.status, 201);
    assert_eq!(first.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn tenants_share_neither_keys_nor_rows() {
    let service = Service::start(0);

    let acme = service.client.post(ORDER, "acme-demo", "k", &order("a")).await;
    let globex = service.client.post(ORDER, "globex-demo", "k", &order("b")).await;

    assert_eq!((acme.status, globex.status), (201, 201));
    assert_eq!(globex.header("idempotent-replayed"), None);
    assert_eq!(service.client.listed("acme-demo").await, ["a"]);
    assert_eq!(service.client.listed("globex-demo").await, ["b"]);
}

#[tokio::test]
async fn tokens_come_from_the_environment() {
    let service = Service::start_with(&[
        ("SHIPPING_DELAY_MS", "0"),
        ("SHIPPING_TOKENS", "t1==initech,t2=initech"),
    ]);

    let first = service.client.post(ORDER, "t1=", "k", &order("a")).await;
    let replay = service.client.post(ORDER, "t2", "k", &order("a")).await;

    assert_eq!((first.status, replay.status), (201, 201));
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_refused(&service.client.post(ORDER, "acme-demo", "k", &order("a")).await);
}
