//! IDEM-3, IDEM-9, IDEM-10: other requests, other tenants, nobody at all.

use axum::http::StatusCode;
use idem_tests::{OTHER_TENANT, Order, Service, on_every_backend};

on_every_backend! {
    another_body_under_a_key_is_refused_in_flight_and_after
    another_tenant_has_a_key_space_of_its_own
    without_a_token_a_replay_is_as_unauthorized_as_a_first_request
    a_refused_body_claims_nothing
    a_natural_key_needs_no_header
}

async fn another_body_under_a_key_is_refused_in_flight_and_after(service: Service) {
    let order = Order::new("secret").held();
    let other = Order::new("other");
    let first = tokio::spawn(service.client.order("k", &order).send());
    service.app.wait_until_started(1).await;

    let in_flight = service.client.order("k", &other).send().await;
    service.app.open_gate();
    let first = first.await.expect("no panic");
    let after = service.client.order("k", &other).send().await;

    assert_eq!(first.status, StatusCode::CREATED);
    for refused in [in_flight, after] {
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.problem(), "key-reused");
        assert!(
            !String::from_utf8_lossy(&refused.body).contains("secret"),
            "{refused:?}"
        );
        assert!(refused.headers.get("retry-after").is_none());
    }
    assert_eq!(service.app.executions("other"), 0);
    service.client.order("k", &order).send().await.assert_replays(&first);
}

async fn another_tenant_has_a_key_space_of_its_own(service: Service) {
    let order = Order::new("o");
    let ours = service.client.order("k", &order).send().await;
    let theirs = service.client.order("k", &order).tenant(OTHER_TENANT).send().await;
    assert_eq!(ours.json()["tenant"], "acme");
    assert_eq!(theirs.json()["tenant"], "globex");
    assert!(!theirs.is_replay());
    assert_eq!(service.app.executions("o"), 2);
    service.client.order("k", &order).send().await.assert_replays(&ours);
    service
        .client
        .order("k", &order)
        .tenant(OTHER_TENANT)
        .send()
        .await
        .assert_replays(&theirs);
}

async fn without_a_token_a_replay_is_as_unauthorized_as_a_first_request(service: Service) {
    let order = Order::new("o");
    let first = service.client.order("k", &order).no_tenant().send().await;
    assert_eq!(first.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        service.client.order("k", &order).send().await.status,
        StatusCode::CREATED
    );
    let replay = service.client.order("k", &order).no_tenant().send().await;
    assert_eq!(replay.status, StatusCode::UNAUTHORIZED);
    assert!(replay.body.is_empty(), "{replay:?}");
    assert_eq!(service.app.executions("o"), 1);
}

async fn a_refused_body_claims_nothing(service: Service) {
    let call = || service.client.call(reqwest::Method::POST, "/orders").key("k");
    let json = |body: &'static str| call().header("content-type", b"application/json").body(body);
    assert_eq!(json("{").send().await.status, StatusCode::BAD_REQUEST);
    assert_eq!(json("{}").send().await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(call().body("o").send().await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let accepted = service.client.order("k", &Order::new("o")).send().await;
    assert_eq!(accepted.status, StatusCode::CREATED);
    assert!(!accepted.is_replay());
}

async fn a_natural_key_needs_no_header(service: Service) {
    let call = |order: &Order| {
        service
            .client
            .call(reqwest::Method::POST, "/orders/natural")
            .json(order)
    };
    let first = call(&Order::new("o/1")).send().await;
    let retry = call(&Order::new("o/1")).send().await;
    let other = call(&Order::new("o/2")).send().await;
    let changed = call(&Order::new("o/1").answered_with(200)).send().await;
    retry.assert_replays(&first);
    assert!(!other.is_replay());
    assert_eq!(changed.problem(), "key-reused");
    let empty = call(&Order::new("")).send().await;
    assert_eq!(empty.status, StatusCode::BAD_REQUEST);
    assert_eq!(empty.problem(), "key-invalid");
    assert_eq!(service.app.executions(""), 0);
}
